//! `bench --interactive`: a request per line on stdin, an answer per line on stdout, both JSON or plain
//! words; so that another program can time this one in turns with others (benches/peers).
//!
//! First line out: what was loaded. Requests: `window` (all frames new), `hop` (one frame new) and
//! `text` (all labels); the texts of `window` and `hop` are cached.

use std::io::{BufRead, Write};
use std::time::Instant;

use anyhow::bail;
use serde_json::json;

use super::milliseconds;
use super::subject::Subject;
use crate::backend::{Prepared, TextFeatures};

pub fn serve(subject: &mut Subject, requests: impl BufRead, out: &mut dyn Write) -> anyhow::Result<()> {
    subject.round()?;
    let texts = subject.backend.encode_text(&subject.prompts)?;
    let prepared = subject.prepare()?;
    let hello = json!({
        "backend": subject.backend.describe(),
        "load_ms": milliseconds(subject.load),
        "memory": subject.memory,
        "parameters_mb": subject.parameter_bytes() as f64 / 1e6,
        "prompts": subject.prompts,
    });
    writeln!(out, "{hello}")?;
    out.flush()?;
    for request in requests.lines() {
        let start = Instant::now();
        let logits = match request?.trim() {
            "window" => {
                let prepared = subject.prepare()?;
                Some(score(subject, &prepared, &texts)?)
            }
            "hop" => {
                subject.prepare_one()?;
                Some(score(subject, &prepared, &texts)?)
            }
            "text" => {
                subject.backend.encode_text(&subject.prompts)?;
                None
            }
            other => bail!("request `{other}`: expected window, hop or text"),
        };
        let took = milliseconds(start.elapsed());
        writeln!(out, "{}", json!({"ms": took, "logits": logits}))?;
        out.flush()?;
    }
    Ok(())
}

/// The first window's logits.
fn score(subject: &mut Subject, prepared: &[Prepared], texts: &[TextFeatures]) -> anyhow::Result<Vec<f32>> {
    let clips: Vec<&[Prepared]> = prepared.chunks(subject.config.num_frames).collect();
    let features = subject.backend.encode(&clips)?;
    let mut logits = subject.backend.compare(&features.iter().collect::<Vec<_>>(), texts)?;
    Ok(logits.swap_remove(0))
}
