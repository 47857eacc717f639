//! Drawing: clips for training and pictures for streams. Target: 300 clips per second and core.

use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use gstxclip::scene::{Action, ClipOptions, Look, Script, Stage, clip};

fn scene(c: &mut Criterion) {
    let mut group = c.benchmark_group("scene");
    group.throughput(Throughput::Elements(1));
    let options = ClipOptions::default();
    let mut seed = 0;
    group.bench_function("clip/cpu", |b| {
        b.iter(|| {
            seed += 1;
            clip(seed, &options)
        });
    });
    for (width, height) in [(640, 480), (1920, 1080)] {
        let script = Script::random(1, Duration::from_secs(60), &Action::ALL, Look::Plain);
        let mut stage = Stage::new(&script, width, height);
        let mut rgba = vec![0; (width * height * 4) as usize];
        let mut picture = 0;
        group.bench_function(format!("picture {width}x{height}/cpu"), |b| {
            b.iter(|| {
                picture = (picture + 1) % 1500;
                stage.draw(Duration::from_millis(40 * picture), &mut rgba);
            });
        });
    }
    group.finish();
}

criterion_group!(benches, scene);
criterion_main!(benches);
