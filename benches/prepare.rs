//! `prepare/…`: a frame's patch embedding and block 0. Synthetic base-patch32 unless XCLIP_BENCH_CONFIG
//! names another published configuration.

mod setup;

use criterion::{Criterion, criterion_group, criterion_main};
use gstxclip::backend::Backend;

fn prepare(c: &mut Criterion) {
    let mut setup = setup::Setup::new();
    let frames: Vec<_> = setup.frames.iter().collect();
    let name = |frames: usize| format!("{}/{frames} frames/cpu", setup.name);
    let mut group = c.benchmark_group("prepare");
    for n in [1, frames.len()] {
        group.bench_function(name(n), |b| b.iter(|| setup.backend.prepare(&frames[..n]).unwrap()));
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(15); targets = prepare }
criterion_main!(benches);
