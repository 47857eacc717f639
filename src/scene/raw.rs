//! Clips and streams as bytes for another program: what `xclipd scene --raw` writes.
//!
//! The format describes itself: the line `XCLIPRAW 1\n`, then a 4-byte little-endian length and a JSON header of
//! that length, then records. `kind` in the header says which records follow:
//!
//! - `clips`: per clip a 4-byte length and a JSON object (action, colour, captions, …), `frames` × `size` ×
//!   `size` × 3 bytes of RGB, and `frames` × 2 × 11 × 2 little-endian f32 of joints.
//! - `stream`: per picture `width` × `height` × 3 bytes of RGB; the header has the truth.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Value, json};

use super::action::Action;
use super::caption::{self, Claim, Colour, GENERIC};
use super::clip::{Clip, ClipOptions, clip};
use super::pose::JOINTS;
use super::random::Random;
use super::render::Stage;
use super::script::Script;

/// Which clips [`write_clips`] writes. Clip i is the clip of seed `seed + i`, so a run can go on anywhere.
#[derive(Clone, Debug)]
pub struct RawOptions {
    pub clip: ClipOptions,
    pub seed: u64,
    /// Position of the first clip.
    pub start: u64,
    /// Every `step`th clip only: for several readers of one sequence.
    pub step: u64,
    pub count: u64,
    /// Hardness grows from `clip.hardness` to this ...
    pub final_hardness: f32,
    /// ... over so many clips.
    pub ramp: u64,
}

/// Writes `options.count` clips with everything needed for training on them.
///
/// # Errors
/// Those of `out`; a closed pipe is how a reader ends the sequence.
pub fn write_clips(out: &mut impl Write, options: &RawOptions) -> io::Result<()> {
    write_header(
        out,
        &json!({
            "kind": "clips",
            "size": options.clip.size,
            "frames": options.clip.frames,
            "people": 2,
            "joints": JOINTS,
            "labels": Action::ALL.map(Action::label),
            "phrasings": Action::ALL.map(|action| action.phrasings()),
            "held_out_phrasings": Action::ALL.map(|action| action.held_out_phrasings()),
            "colours": Colour::ALL.map(Colour::name),
            "generic": GENERIC,
            "movements": caption::MOVEMENTS.map(|movement| json!({
                "action": movement.action.index(),
                "forwards": movement.forwards,
                "backwards": movement.backwards,
            })),
        }),
    )?;
    let mut options = options.clone();
    let (first, last) = (options.clip.hardness, options.final_hardness);
    for i in 0..options.count {
        let position = options.start.wrapping_add(i.wrapping_mul(options.step));
        let done = (position as f32 / options.ramp.max(1) as f32).min(1.0);
        options.clip.hardness = first + (last - first) * done;
        let seed = options.seed.wrapping_add(position);
        let clip = clip(seed, &options.clip);
        write_json(out, &describe(&clip, seed))?;
        out.write_all(&clip.frames)?;
        for value in &clip.joints {
            out.write_all(&value.to_le_bytes())?;
        }
    }
    out.flush()
}

/// Writes a stream of `script` at `rate` pictures per second with its truth.
///
/// # Errors
/// Those of `out`.
pub fn write_stream(
    out: &mut impl Write,
    script: &Script,
    width: u32,
    height: u32,
    rate: f64,
) -> io::Result<()> {
    let frames = (script.duration.as_secs_f64() * rate).floor() as u64;
    let truth: Vec<Value> = script
        .truth()
        .iter()
        .map(|t| json!({"label": t.label, "start": t.start, "end": t.end, "actor": t.actor}))
        .collect();
    write_header(
        out,
        &json!({
            "kind": "stream",
            "width": width,
            "height": height,
            "rate": rate,
            "frames": frames,
            "seed": script.seed,
            "truth": truth,
        }),
    )?;
    let mut stage = Stage::new(script, width, height);
    let mut rgba = vec![0u8; width as usize * height as usize * 4];
    let mut rgb = Vec::with_capacity(rgba.len() / 4 * 3);
    for i in 0..frames {
        stage.draw(Duration::from_secs_f64(i as f64 / rate), &mut rgba);
        rgb.clear();
        rgb.extend(rgba.chunks_exact(4).flat_map(|pixel| [pixel[0], pixel[1], pixel[2]]));
        out.write_all(&rgb)?;
    }
    out.flush()
}

fn write_header(out: &mut impl Write, header: &Value) -> io::Result<()> {
    out.write_all(b"XCLIPRAW 1\n")?;
    write_json(out, header)
}

fn write_json(out: &mut impl Write, value: &Value) -> io::Result<()> {
    let text = value.to_string();
    out.write_all(&(text.len() as u32).to_le_bytes())?;
    out.write_all(text.as_bytes())
}

/// What is known of a clip. `captions` are sentences about it, true ones first, then one that is nearly true;
/// each with its claim, so that a reader can tell which other clips it fits. `phrasings` has a random sentence
/// for each of the twenty actions.
fn describe(clip: &Clip, seed: u64) -> Value {
    let mut random = Random::fork(seed, 0x7465_7874);
    let claim = Claim {
        action: clip.action,
        colour: clip.colour.filter(|_| clip.action != Action::Empty && random.chance(0.65)),
        direction: clip.direction.filter(|_| caption::has_direction(clip.action) && random.chance(0.6)),
    };
    let mut claims = vec![claim];
    match claim {
        Claim { direction: Some(direction), .. } if random.chance(0.6) => {
            claims.push(Claim { direction: Some(direction.opposite()), ..claim });
        }
        Claim { colour: Some(_), .. } => {
            let colour = random.pick(&Colour::ALL);
            // A caption never trained as true is not trained as untrue either.
            if !caption::held_out(claim.action, colour) {
                claims.push(Claim { colour: Some(colour), ..claim });
            }
        }
        _ => {}
    }
    if let Some((action, colour)) = clip.other {
        claims.push(Claim { action, colour: random.chance(0.5).then_some(colour), direction: None });
    }
    let captions: Vec<Value> = claims
        .iter()
        .map(|claim| {
            json!({
                "text": caption::caption(&mut random, claim),
                "action": claim.action.index(),
                "colour": claim.colour.map(Colour::index),
                "direction": claim.direction.map(|direction| direction.sign()),
            })
        })
        .collect();
    let phrasings: Vec<String> =
        Action::ALL.iter().map(|&action| caption::caption(&mut random, &Claim::of(action))).collect();
    json!({
        "seed": seed,
        "action": clip.action.index(),
        "actions": clip.actions.iter().map(|action| action.index()).collect::<Vec<_>>(),
        "colour": clip.colour.map(Colour::index),
        "direction": clip.direction.map(|direction| direction.sign()),
        "facing": clip.facing.map(|direction| direction.sign()),
        "other": clip.other.map(|(action, _)| action.index()),
        "other_colour": clip.other.map(|(_, colour)| colour.index()),
        "look": clip.look.name(),
        "captions": captions,
        "phrasings": phrasings,
    })
}
