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

/// Rows, columns and depth of the product: large enough for every tensor core, small enough for 8 GB.
const SIDE: usize = 6144;
const COPIED: usize = 256 << 20;
const TRIES: usize = 8;

impl Roof {
    /// Takes about a second. Allocates 0.8 GB meanwhile.
    pub fn measure(ordinal: usize) -> Result<Self, CudaError> {
        let launcher = Launcher::new(&probe(ordinal)?)?;
        Ok(Self { product_tflop_per_s: product(&launcher)?, copy_gb_per_s: copy(&launcher)? })
    }
}

fn product(launcher: &Launcher) -> Result<f64, CudaError> {
    let side = if launcher.context.gpu.is_emulated() { 64 } else { SIDE };
    let buffer = || Buffer::<f16>::new(&launcher.context, "a product to measure", side * side);
    let (weight, x, y) = (buffer()?, buffer()?, buffer()?);
    // Random-like values of usual size: zeros would draw less power, and run faster than real work can.
    let noise =
        |i: usize| f16::from_f32((i.wrapping_mul(2_654_435_761) >> 8 & 0xffff) as f32 / 32768.0 - 1.0);
    let values: Vec<f16> = (0..side * side).map(noise).collect();
    launcher.upload(weight.at(), &values)?;
    launcher.upload(x.at(), &values)?;
    let layer = LayerAt { weight: weight.at(), bias: None, ins: side, outs: side };
    let milliseconds =
        least(launcher, || launcher.product(Lane::Main, x.at(), side, side, layer, y.at(), Into::Replace))?;
    Ok(2.0 * (side as f64).powi(3) / milliseconds / 1e9)
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
