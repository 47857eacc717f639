//! What doctor says about the GPU: driver, card, libraries with their paths, which kernels it takes, and
//! whether it computes what the reference does.

use crate::backend::Precision;
use crate::backend::cuda::{self, Gpu};
use crate::command::bench::subject;
use crate::command::{CommandError, say, verify};
use crate::model::{Config, Heads};

/// A small model's stages, of tests/golden/small: rows 0, 1 and the last of hidden states, no pixels. Its
/// weights are those of the portable recipe.
const GOLDEN: &[u8] = include_bytes!("golden.safetensors");
const CONFIG: &[u8] = include_bytes!("golden.json");

/// False when there is a GPU that computes something else. None at all is fine.
pub fn check() -> Result<bool, CommandError> {
    let count = cuda::count().unwrap_or(0);
    if count == 0
        && let Err(absent) = cuda::look(0)
    {
        say!("graphics    not used, the model runs on the processor: {absent}");
        return Ok(true);
    }
    let mut gpus = Vec::with_capacity(count);
    for ordinal in 0..count {
        let label = if ordinal == 0 { "graphics" } else { "" };
        match cuda::look(ordinal) {
            Ok(gpu) => {
                say!("{label:<11} {}", describe(&gpu));
                gpus.push(gpu);
            }
            Err(unusable) => say!("{label:<11} cuda:{ordinal}: not used: {unusable}"),
        }
    }
    let Some(first) = gpus.first() else { return Ok(true) };
    if first.is_emulated() {
        say!("            this device is EMULATED, slowly, by the processor: for tests");
    }
    let release = first.driver_release().map_or(String::new(), |release| format!("{release}, "));
    say!("driver      {release}CUDA {}, {}", first.driver, first.driver_path.display());
    match cuda::blas() {
        Ok(blas) => say!("cuBLASLt    {}, {}", blas.version, blas.path.display()),
        Err(missing) => {
            say!("cuBLASLt    MISSING, the model runs on the processor: {missing}");
            return Ok(true);
        }
    }
    let mut good = true;
    for gpu in &gpus {
        good &= try_out(gpu.ordinal)?;
    }
    Ok(good)
}

fn describe(gpu: &Gpu) -> String {
    let Gpu { ordinal, name, capability: (major, minor), multiprocessors, .. } = gpu;
    let gigabytes = gpu.memory_bytes as f64 / 1e9;
    format!(
        "cuda:{ordinal} {name}, compute capability {major}.{minor}, {multiprocessors} multiprocessors, {gigabytes:.0} GB"
    )
}

/// Which kernels a GPU took, and whether it computes what the reference does.
fn try_out(ordinal: usize) -> Result<bool, CommandError> {
    let found = golden(ordinal);
    match &found {
        Ok((true, stages)) => {
            say!(
                "golden      cuda:{ordinal}: all {stages} stages of a small model are within the bounds of f16"
            )
        }
        Ok((false, _)) => say!(
            "golden      cuda:{ordinal}: DIFFERENT results from the reference, see above; use device=cpu, and report it"
        ),
        Err(error) => say!("golden      cuda:{ordinal}: UNUSABLE: {error:#}"),
    }
    Ok(matches!(found, Ok((true, _))))
}

/// Whether all stages hold, and how many. What does not is printed.
fn golden(ordinal: usize) -> anyhow::Result<(bool, usize)> {
    let config = Config::parse("golden.json", CONFIG, Heads::Hf)?;
    let mut backend = subject::synthetic_cuda(&config, ordinal)?;
    match backend.kernels() {
        ptx if ptx.starts_with("compute_") => {
            say!("kernels     {ptx}: compiled by the driver, which has no machine code for this chip here")
        }
        chip => say!("kernels     {chip}: machine code for this chip"),
    }
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
