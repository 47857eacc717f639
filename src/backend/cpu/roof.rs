//! What this machine can do now: the roof that measured figures stand under.

use std::hint::black_box;
use std::time::Instant;

use super::gemm::{Activation, Cpu, Lhs, Linear, Out, gemm};
use super::isa::Isa;

/// GFLOP/s of all threads together, the best of several tries.
#[derive(Clone, Copy, Debug)]
pub struct Roof {
    /// Multiply-adds in registers: what the instruction set allows.
    pub fma: f64,
    /// A 1536³ product: what memory and caches leave of it.
    pub gemm: f64,
}

impl Roof {
    /// Takes about a second. `threads`: 0 takes one per available core.
    pub fn measure(threads: usize) -> Self {
        let cpu = Cpu::new(Isa::best(), threads);
        let ((spin, per_round), rounds) = (cpu.kernels.roof, 2_000_000);
        let tasks = cpu.pool.threads();
        let fma = best(5, || {
            cpu.pool.run(tasks, |_| {
                // SAFETY: the kernels are those of a detected instruction set.
                black_box(unsafe { spin(black_box(rounds)) });
            });
            2.0 * (rounds * per_round * tasks) as f64
        });
        let n = 1536;
        let (mut lhs, mut rhs, mut out) = (Lhs::default(), Linear::new(&cpu, n, n), vec![0.0; n * n]);
        rhs.put(&cpu, 0, &vec![0.01; n * n], 1.0);
        lhs.copy_from(&cpu, n, n, &vec![0.01; n * n], n);
        let gemm = best(5, || {
            gemm(&cpu, &lhs, &rhs, Activation::None, Out::Rows(&mut out));
            2.0 * (n * n * n) as f64
        });
        Self { fma, gemm }
    }
}

/// Most operations per nanosecond in `tries` runs of `work`, which says how many it did.
fn best(tries: usize, mut work: impl FnMut() -> f64) -> f64 {
    (0..tries)
        .map(|_| {
            let start = Instant::now();
            let done = work();
            done / start.elapsed().as_nanos() as f64
        })
        .fold(0.0, f64::max)
}
