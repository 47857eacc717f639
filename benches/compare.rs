//! `compare/…`: clip features with label texts.

mod setup;

use criterion::{Criterion, criterion_group, criterion_main};
use gstxclip::backend::Backend;

fn compare(c: &mut Criterion) {
    let mut setup = setup::Setup::new();
    let frames: Vec<_> = setup.frames.iter().collect();
    let clip = setup.backend.prepare(&frames).unwrap();
    let clip = setup.backend.encode(&[&clip]).unwrap();
    let mut group = c.benchmark_group("compare");
    for n in [1, 10, 100] {
        let text = setup.backend.encode_text(&setup.prompts(n)).unwrap();
        let all = setup.backend.compare(&[&clip[0]], &text).unwrap();
        let alone = setup.backend.compare(&[&clip[0]], &text[n - 1..]).unwrap();
        assert_eq!(all[0][n - 1], alone[0][0], "a prompt's logit depends on the others");
        group.bench_function(format!("{}/{n} prompts/cpu", setup.name), |b| {
            b.iter(|| setup.backend.compare(&[&clip[0]], &text).unwrap())
        });
    }
}

criterion_group! { name = benches; config = Criterion::default().sample_size(15); targets = compare }
criterion_main!(benches);
