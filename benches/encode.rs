//! `encode/…`: blocks 1… over a window, MIT and prompt features; and the text tower.

mod setup;

use criterion::{Criterion, criterion_group, criterion_main};
use gstxclip::backend::Backend;

fn encode(c: &mut Criterion) {
    let mut setup = setup::Setup::new();
    let frames: Vec<_> = setup.frames.iter().collect();
    let clip = setup.backend.prepare(&frames).unwrap();
    let mut group = c.benchmark_group("encode");
    group.bench_function(format!("{}/window/cpu", setup.name), |b| {
        b.iter(|| setup.backend.encode(&[&clip]).unwrap())
    });
    for n in [1, 10] {
        let prompts = setup.prompts(n);
        group.bench_function(format!("{}/text, {n} prompts/cpu", setup.name), |b| {
            b.iter(|| setup.backend.encode_text(&prompts).unwrap())
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(15); targets = encode }
criterion_main!(benches);
