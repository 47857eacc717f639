//! What this machine can do now: the roof that measured figures stand under.

use std::hint::black_box;
use std::time::Instant;

use super::gemm::{Activation, Cpu, Out, gemm};
use super::isa::Isa;
use super::lhs::Lhs;
use super::linear::{Format, Linear};

/// Gop/s of all threads together, the best of several tries; a multiplication and its addition are two.
#[derive(Clone, Copy, Debug)]
pub struct Roof {
    /// f32 multiply-adds in registers: what the instruction set allows.
    pub fma: f64,
    /// A 1536³ product in f32: what memory and caches leave of it.
    pub gemm: f64,
    /// As `fma`, int8 multiply-adds into 32-bit sums.
    pub dot: f64,
    /// As `gemm`, in int8 with the way from f32 and back.
    pub gemm_int8: f64,
}

impl Roof {
    /// Takes about two seconds. `threads`: 0 takes one per available core.
    pub fn measure(threads: usize) -> Self {
        let cpu = Cpu::new(Isa::best(), threads);
        let (rounds, tasks) = (2_000_000, cpu.pool.threads());
        let in_registers = |per_round: usize, spin: &(dyn Fn(usize) + Sync)| {
            best(5, || {
                cpu.pool.run(tasks, |_| spin(black_box(rounds)));
                2.0 * (rounds * per_round * tasks) as f64
            })
        };
        let ((spin, per_round), (spin_int8, per_round_int8)) = (cpu.kernels.roof, cpu.dots.roof);
        // SAFETY: the kernels are those of a detected instruction set.
        let fma = in_registers(per_round, &|rounds| {
            black_box(unsafe { spin(rounds) });
        });
        // SAFETY: as above.
        let dot = in_registers(per_round_int8, &|rounds| {
            black_box(unsafe { spin_int8(rounds) });
        });
        let (gemm, gemm_int8) = (product(&cpu, Format::F32), product(&cpu, Format::Int8));
        Self { fma, gemm, dot, gemm_int8 }
    }
}

fn product(cpu: &Cpu, format: Format) -> f64 {
    let n = 1536;
    let values: Vec<f32> = (0..n * n).map(|i| (i % 97) as f32 * 1e-3 - 0.05).collect();
    let (mut lhs, mut rhs, mut out) = (Lhs::default(), Linear::new(cpu, n, n, format), vec![0.0; n * n]);
    rhs.put(cpu, 0, &values, 1.0);
    best(5, || {
        lhs.copy_from(cpu, n, &values, n, &rhs);
        gemm(cpu, &lhs, &rhs, Activation::None, Out::Rows(&mut out));
        2.0 * (n * n * n) as f64
    })
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
