//! What doctor says about the GPU: driver, card, libraries with their paths, which kernels it takes, and
//! whether it computes what the reference does.

use crate::backend::Precision;
use crate::backend::cuda::{Gpu, probe};
use crate::command::bench::subject;
use crate::command::{CommandError, say, verify};
use crate::model::{Config, Heads};

/// A small model's stages, of tests/golden/small: rows 0, 1 and the last of hidden states, no pixels. Its
/// weights are those of the portable recipe.
const GOLDEN: &[u8] = include_bytes!("golden.safetensors");
const CONFIG: &[u8] = include_bytes!("golden.json");

/// False when there is a GPU that computes something else. None at all is fine.
pub fn check() -> Result<bool, CommandError> {
    let gpu = match probe(0) {
        Ok(gpu) => gpu,
        Err(absent) => {
            say!("graphics    not used, the model runs on the processor: {absent}");
            return Ok(true);
        }
    };
    describe(&gpu)?;
    let found = golden();
    match &found {
        Ok((true, stages)) => {
            say!("golden      all {stages} stages of a small model are within the bounds of f16")
        }
        Ok((false, _)) => {
            say!("golden      DIFFERENT results from the reference, see above; use device=cpu, and report it")
        }
        Err(error) => say!("golden      UNUSABLE: {error:#}"),
    }
    Ok(matches!(found, Ok((true, _))))
}

fn describe(gpu: &Gpu) -> Result<(), CommandError> {
    let Gpu { ordinal, name, capability: (major, minor), multiprocessors, .. } = gpu;
    let gigabytes = gpu.memory_bytes as f64 / 1e9;
    say!(
        "graphics    cuda:{ordinal} {name}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, \
         {gigabytes:.0} GB"
    );
    if gpu.is_emulated() {
        say!("            this device is EMULATED, slowly, by the processor: for tests");
    }
    let release = gpu.driver_release().map_or(String::new(), |release| format!("{release}, "));
    say!("driver      {release}CUDA {}, {}", gpu.driver, gpu.driver_path.display());
    say!("cuBLASLt    {}, {}", gpu.blas_version, gpu.blas_path.display());
    match gpu.kernels.starts_with("sm_") {
        true => say!("kernels     {}: machine code for this chip", gpu.kernels),
        false => say!("kernels     {}: compiled by the driver for this newer chip", gpu.kernels),
    }
    Ok(())
}

/// Whether all stages hold, and how many. What does not is printed.
fn golden() -> anyhow::Result<(bool, usize)> {
    let config = Config::parse("golden.json", CONFIG, Heads::Hf)?;
    let mut backend = subject::synthetic_cuda(&config, 0)?;
    let mut report = Vec::new();
    let holds = verify::check_bytes(&mut backend, &config, GOLDEN, Precision::F16, &mut report)?;
    let report = String::from_utf8_lossy(&report);
    if !holds {
        report.lines().filter(|line| line.ends_with("FAIL")).for_each(|line| eprintln!("{line}"));
    }
    Ok((holds, report.lines().filter(|line| line.ends_with(" ok")).count()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::cpu::Isa;

    #[test]
    fn the_embedded_vectors_are_those_of_the_reference() {
        let config = Config::parse("golden.json", CONFIG, Heads::Hf).unwrap();
        let mut cpu = subject::synthetic(&config, Isa::best(), 1, Precision::F32).unwrap();
        let mut report = Vec::new();
        let holds = verify::check_bytes(&mut cpu, &config, GOLDEN, Precision::F32, &mut report).unwrap();
        let report = String::from_utf8(report).unwrap();
        assert!(holds && report.lines().filter(|line| line.ends_with(" ok")).count() >= 20, "{report}");
    }
}
