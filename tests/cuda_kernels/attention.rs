//! Attention of frames, messages, MIT and text, and of labels over patches.

use half::f16;

use crate::arguments;
use crate::lab::{Argument, Lab, NULL, Noise, assert_close};

/// softmax(q·kᵀ)·v for one query, in f64.
fn attend(query: &[f32], keys: &[&[f32]], values: &[&[f32]]) -> Vec<f64> {
    let dot = |key: &&[f32]| query.iter().zip(*key).map(|(q, k)| f64::from(*q) * f64::from(*k)).sum::<f64>();
    let scores: Vec<f64> = keys.iter().map(dot).collect();
    let most = scores.iter().fold(f64::NEG_INFINITY, |m, s| m.max(*s));
    let weights: Vec<f64> = scores.iter().map(|s| (s - most).exp()).collect();
    let sum: f64 = weights.iter().sum();
    let mean = |column: usize| {
        let terms = weights.iter().zip(values).map(|(w, v)| w * f64::from(v[column]));
        terms.sum::<f64>() / sum
    };
    (0..query.len()).map(mean).collect()
}

/// As the backend deals queries to warps and warps to blocks.
fn geometry(length: usize) -> (usize, usize) {
    let units = length.div_ceil(16);
    let tiles = units.div_ceil(8);
    (tiles, 32 * units.div_ceil(tiles))
}

fn padded(head: usize) -> usize {
    head.next_multiple_of(16).max(32)
}

struct Case {
    /// Rows of each item.
    lengths: Vec<usize>,
    heads: usize,
    head: usize,
    causal: bool,
    /// From item to item, in rows of key and value; None: no message.
    message: Option<usize>,
    /// Whether item starts are given.
    ragged: bool,
    /// Of queries: how far scores spread.
    size: f32,
}

fn check(lab: &Lab, noise: &mut Noise, case: &Case) {
    let Case { lengths, heads, head, causal, message, ragged, size } = case;
    let (width, items, longest) = (heads * head, lengths.len(), lengths.iter().copied().max().unwrap());
    let starts: Vec<usize> = (0..=items).map(|i| lengths[..i].iter().sum()).collect();
    let rows = starts[items];
    let mut qkv = noise.halves(rows * 3 * width, 1.0);
    for row in qkv.chunks_mut(3 * width) {
        row[..width].iter_mut().for_each(|q| *q = f16::from_f32(*q * size).to_f32());
    }
    let messages = noise.halves(items * 2 * width, 1.0);
    let out = lab.room::<f16>(rows * width);
    let (kv, starts_at) = (
        lab.put_halves(&messages),
        lab.put(&starts.iter().map(|s| i32::try_from(*s).unwrap()).collect::<Vec<_>>()),
    );
    let (tiles, threads) = geometry(longest);
    let arguments = [
        (&lab.put_halves(&qkv)).into(),
        if message.is_some() { (&kv).into() } else { NULL },
        (&out).into(),
        if *ragged { Argument::from(&starts_at) } else { NULL },
        items.into(),
        longest.into(),
        (*heads).into(),
        (*head).into(),
        usize::from(*causal).into(),
        (message.unwrap_or(0) * 2 * width).into(),
    ];
    let name = format!("attention_{}", padded(*head));
    lab.launch(&name, [tiles, *heads, items], threads, 512 * padded(*head), &arguments);

    let part = |row: usize, which: usize, h: usize| &qkv[(row * 3 + which) * width + h * head..][..*head];
    let mut expected = vec![0.0; rows * width];
    for item in 0..items {
        for h in 0..*heads {
            for i in 0..lengths[item] {
                let seen = if *causal { i + 1 } else { lengths[item] };
                let own = starts[item]..starts[item] + seen;
                let mut keys: Vec<&[f32]> = own.clone().map(|row| part(row, 1, h)).collect();
                let mut values: Vec<&[f32]> = own.map(|row| part(row, 2, h)).collect();
                if let Some(stride) = message {
                    let at = item * stride * 2 * width + h * head;
                    keys.push(&messages[at..][..*head]);
                    values.push(&messages[at + width..][..*head]);
                }
                let row = starts[item] + i;
                let to = row * width + h * head;
                expected[to..to + head].copy_from_slice(&attend(part(row, 0, h), &keys, &values));
            }
        }
    }
    let what = format!(
        "{name}: lengths {lengths:?}, {heads} heads of {head}, causal {causal}, message {message:?}, size {size}"
    );
    // Values are below 1; weights are rounded to f16.
    assert_close(&lab.get_halves(&out), &expected, 1.0 / 1024.0, &what);
}

fn case(lengths: &[usize], heads: usize, head: usize) -> Case {
    let lengths = lengths.to_vec();
    Case { lengths, heads, head, causal: false, message: None, ragged: false, size: 0.5 }
}

#[test]
fn attention_holds_for_every_head_size_and_length() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(20);
    for head in [8, 16, 24, 32, 40, 48, 56, 64, 72, 80, 88, 96] {
        check(&lab, &mut noise, &case(&[5, 5], 2, head));
    }
    for length in [1, 2, 15, 16, 17, 50, 63, 64, 65, 128, 129, 197] {
        check(&lab, &mut noise, &case(&[length], 1, 64));
    }
    check(&lab, &mut noise, &case(&[577], 1, 96));
}

#[test]
fn attention_sees_its_items_message_beside_its_own_rows() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(21);
    for (length, head) in [(1, 24), (50, 64), (63, 40), (64, 96), (127, 32), (197, 64)] {
        for stride in [0, 1] {
            check(
                &lab,
                &mut noise,
                &Case { message: Some(stride), ..case(&[length, length, length], 2, head) },
            );
        }
    }
}

#[test]
fn causal_attention_never_looks_ahead() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(22);
    for length in [1, 8, 16, 17, 64, 77, 150] {
        check(&lab, &mut noise, &Case { causal: true, ..case(&[length, length], 2, 64) });
    }
}

#[test]
fn prompts_of_any_length_lie_end_to_end() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(23);
    for causal in [false, true] {
        check(&lab, &mut noise, &Case { causal, ragged: true, ..case(&[3, 77, 1, 16, 40], 2, 64) });
        check(&lab, &mut noise, &Case { causal, ragged: true, ..case(&[7, 2], 3, 24) });
    }
}

/// Scores far beyond what exp holds, in both directions.
#[test]
fn attention_survives_scores_of_any_size() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(24);
    for size in [0.0, 30.0, 2000.0] {
        check(&lab, &mut noise, &Case { size, message: Some(1), ..case(&[70], 1, 64) });
    }
}

#[test]
fn labels_look_at_their_own_clips_patches() {
    let Some(lab) = Lab::open() else { return };
    let mut noise = Noise(25);
    for (clips, prompts, patches, heads, head) in
        [(1, 1, 1, 1, 64), (3, 5, 4, 2, 24), (2, 130, 49, 2, 64), (1, 17, 196, 1, 96), (2, 3, 65, 3, 40)]
    {
        let width = heads * head;
        let (q, kv) =
            (noise.halves(clips * prompts * width, 0.5), noise.halves(clips * patches * 2 * width, 1.0));
        let out = lab.room::<f16>(q.len());
        let (tiles, threads) = geometry(prompts);
        let arguments =
            arguments![&lab.put_halves(&q), &lab.put_halves(&kv), &out, clips, prompts, patches, heads, head];
        let name = format!("prompt_attention_{}", padded(head));
        lab.launch(&name, [tiles, heads, clips], threads, 512 * padded(head), arguments);
        let mut expected = vec![0.0; q.len()];
        for (row, query) in q.chunks(width).enumerate() {
            let own = &kv[row / prompts * patches * 2 * width..][..patches * 2 * width];
            for h in 0..heads {
                let part = |which: usize| -> Vec<&[f32]> {
                    own.chunks(2 * width).map(|row| &row[which * width + h * head..][..head]).collect()
                };
                let seen = attend(&query[h * head..][..head], &part(0), &part(1));
                expected[row * width + h * head..][..head].copy_from_slice(&seen);
            }
        }
        assert_close(
            &lab.get_halves(&out),
            &expected,
            1.0 / 1024.0,
            &format!("{name}, {prompts} of {patches}"),
        );
    }
}
