//! What this GPU can do now: the roof that measured figures stand under.

use half::f16;

use super::CudaError;
use super::device::Event;
use super::launcher::{Lane, Launcher};
use super::memory::Buffer;
use super::product::{Into, LayerAt};
use super::runtime::probe;
use super::sys;

/// The best of several tries.
#[derive(Clone, Copy, Debug)]
pub struct Roof {
    /// Tflop/s of one large f16 product with f32 sums; a multiplication and its addition are two.
    pub product_tflop_per_s: f64,
    /// Bytes read plus bytes written of a copy on the device, in 10⁹ per second.
    pub copy_gb_per_s: f64,
}

/// Rows, columns and depth of the products, of which the fastest counts: no size suits every chip's tiles.
const SIDES: [usize; 4] = [8192, 7168, 6144, 4096];
const COPIED: usize = 256 << 20;
/// Untimed runs, in which kernels load and clocks rise.
const WARM_UP: usize = 4;
const TRIES: usize = 16;

impl Roof {
    /// Takes a few seconds. Allocates up to half a gigabyte at once meanwhile.
    pub fn measure(ordinal: usize) -> Result<Self, CudaError> {
        let launcher = Launcher::new(&probe(ordinal)?)?;
        Ok(Self { product_tflop_per_s: product(&launcher)?, copy_gb_per_s: copy(&launcher)? })
    }
}

/// The best of all sizes that fit beside what is there.
fn product(launcher: &Launcher) -> Result<f64, CudaError> {
    let free = launcher.context.free_bytes()?;
    let fits = |side: &usize| 3 * side * side * size_of::<f16>() <= free / 2;
    let sides: Vec<usize> = match launcher.context.gpu.is_emulated() {
        true => vec![64, 48],
        // The smallest is tried in any case.
        false => SIDES.into_iter().filter(|side| fits(side) || *side == SIDES[SIDES.len() - 1]).collect(),
    };
    let most = sides[0];
    let buffer = || Buffer::<f16>::new(&launcher.context, "a product to measure", most * most);
    let (weight, x, y) = (buffer()?, buffer()?, buffer()?);
    // Random-like values of usual size: zeros would draw less power, and run faster than real work can.
    let noise =
        |i: usize| f16::from_f32((i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 32768.0 - 1.0);
    let values: Vec<f16> = (0..most * most).map(noise).collect();
    launcher.upload(weight.at(), &values)?;
    launcher.upload(x.at(), &values)?;
    let mut best = 0f64;
    for side in sides {
        let layer = LayerAt { weight: weight.at(), bias: None, ins: side, outs: side };
        let milliseconds = least(launcher, || {
            launcher.product(Lane::Main, x.at(), side, side, layer, y.at(), Into::Replace)
        })?;
        best = best.max(2.0 * (side as f64).powi(3) / milliseconds / 1e9);
    }
    Ok(best)
}

fn copy(launcher: &Launcher) -> Result<f64, CudaError> {
    let bytes = if launcher.context.gpu.is_emulated() { 1 << 16 } else { COPIED };
    let buffer = || Buffer::<u8>::new(&launcher.context, "a copy to measure", bytes);
    let (from, to) = (buffer()?, buffer()?);
    launcher.clear(&from)?;
    let milliseconds = least(launcher, || launcher.copy(to.at(), from.at(), bytes))?;
    Ok(2.0 * bytes as f64 / milliseconds / 1e6)
}

/// Milliseconds of the fastest of several runs, by the device's clock.
fn least(launcher: &Launcher, work: impl Fn() -> Result<(), CudaError>) -> Result<f64, CudaError> {
    for _ in 0..WARM_UP {
        work()?;
    }
    let mut least = f64::INFINITY;
    for _ in 0..TRIES {
        let (begun, ended) =
            (Event::new(&launcher.context, sys::TIMED)?, Event::new(&launcher.context, sys::TIMED)?);
        begun.record(launcher.stream(Lane::Main))?;
        work()?;
        ended.record(launcher.stream(Lane::Main))?;
        launcher.finish()?;
        least = least.min(f64::from(ended.milliseconds_since(&begun)?));
    }
    Ok(least.max(1e-6))
}
