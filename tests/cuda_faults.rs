//! What can go wrong on the way to the GPU and on it: one message with the mend where it was named, one
//! warning and the CPU where it was not. The emulated device brings the faults about (XCLIP_EMULATED_…).
#![cfg(all(feature = "cuda", unix))]

mod cuda_device;

use std::path::{Path, PathBuf};
use std::process::Command;

use cuda_device::{emulator, root, say};
use gstxclip::model::generate;

/// What one run of xclipd said.
struct Run {
    passed: bool,
    out: String,
    log: String,
}

impl Run {
    /// The errors of a run that must have failed.
    fn error(&self) -> &str {
        assert!(!self.passed, "{}{}", self.out, self.log);
        let errors: Vec<&str> = self.log.lines().filter(|line| line.starts_with("xclipd: ")).collect();
        assert_eq!(errors.len(), 1, "one message: {}", self.log);
        errors[0]
    }

    fn warnings(&self) -> Vec<&str> {
        self.log.lines().filter(|line| line.contains("WARN")).collect()
    }
}

fn xclipd(libraries: &Path, device: &str, environment: &[(&str, &str)]) -> Run {
    let golden = root().join("tests/golden/small");
    let vectors = golden.join("golden.safetensors");
    let arguments =
        ["verify", "--model", golden.to_str().unwrap(), "--golden", vectors.to_str().unwrap(), "--device"];
    // `--precision` may come behind the device.
    run(libraries, arguments.into_iter().chain(device.split(' ')), environment)
}

fn run<'a>(libraries: &Path, arguments: impl Iterator<Item = &'a str>, environment: &[(&str, &str)]) -> Run {
    // Where the tests were carried to another machine, it is elsewhere.
    let program = std::env::var_os("XCLIP_TEST_XCLIPD").unwrap_or(env!("CARGO_BIN_EXE_xclipd").into());
    let said = Command::new(program)
        .args(arguments)
        .env("XCLIP_CUDA_LIB_DIR", libraries)
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    Run { passed: said.status.success(), out: text(said.stdout), log: text(said.stderr) }
}

/// The emulated libraries, or a line that says why there is nothing to test with.
fn libraries() -> Option<PathBuf> {
    emulator()
        .inspect_err(|why| {
            say(&format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("test")));
        })
        .ok()
}

/// Folders that the backend looks through after the linker's own.
const USUAL: &str = "/usr/lib/*-linux-gnu /usr/lib64 /usr/lib/wsl/lib /run/opengl-driver/lib /usr/local/cuda*/lib64 \
                     /opt/cuda/lib64 /usr/lib/python3*/*-packages/nvidia/*/lib \
                     /usr/local/lib/python3*/*-packages/nvidia/*/lib";

/// Where this machine has the library itself, no folder hides it.
fn is_installed(soname: &str) -> bool {
    let name = std::ffi::CString::new(soname).unwrap();
    // SAFETY: a C string; the library is left open, as the backend would.
    let known = unsafe { !libc::dlopen(name.as_ptr(), libc::RTLD_LAZY).is_null() };
    let search = format!("for folder in {USUAL}; do [ ! -e \"$folder/{soname}\" ] || exit 0; done; exit 1");
    let found = known || Command::new("bash").args(["-c", &search]).status().unwrap().success();
    if found {
        say(&format!("SKIPPED in part: this machine has {soname} itself"));
    }
    found
}

#[test]
fn no_driver_is_said_with_where_it_was_looked_for() {
    if is_installed("libcuda.so.1") {
        return;
    }
    let empty = tempfile::tempdir().unwrap();
    let run = xclipd(empty.path(), "cuda:0", &[]);
    let expected =
        format!("xclipd: no NVIDIA driver: libcuda.so.1 was not found; looked in {}", empty.path().display());
    assert!(run.error().starts_with(&expected), "{}", run.error());
    assert!(run.error().contains("Install driver 525 or newer"), "{}", run.error());
    // A machine without a GPU is no reason for a warning; a card that lacks its driver is.
    let card = run.error().contains("NVIDIA card");
    let auto = xclipd(empty.path(), "auto", &[]);
    assert!(auto.passed && auto.warnings().len() == usize::from(card), "{}{}", auto.out, auto.log);
}

/// (fault, what the message says, its mend)
const FAULTS: [(&str, &str, &str); 9] = [
    ("no-device", "device cuda:0 does not exist: the driver shows 0 GPUs", "nvidia-smi -L"),
    ("old-driver", "is too old: it speaks CUDA 11.4, needed is 12.0", "Update it to driver 525"),
    ("init:34", "does not start: cuInit says CUDA_ERROR_STUB_LIBRARY", "the driver's own folder"),
    ("init:802", "cuInit says CUDA_ERROR_SYSTEM_NOT_READY", "systemctl start nvidia-fabricmanager"),
    (
        "init:803",
        "cuInit says CUDA_ERROR_SYSTEM_DRIVER_MISMATCH",
        "restart the machine after a driver's update",
    ),
    ("init:999", "cuInit says CUDA_ERROR_UNKNOWN", "nvidia-modprobe -u"),
    (
        "retain:46",
        "cannot be had: cuDevicePrimaryCtxRetain says CUDA_ERROR_DEVICE_UNAVAILABLE",
        "nvidia-smi -c DEFAULT",
    ),
    ("retain:807", "says CUDA_ERROR_MPS_SERVER_NOT_READY", "nvidia-cuda-mps-control"),
    ("no-image", "the kernels for sm_90 do not load on this driver", "Update the driver"),
];

#[test]
fn every_fault_at_the_start_is_one_message_with_its_mend() {
    let Some(libraries) = libraries() else { return };
    for (fault, what, mend) in FAULTS {
        let run = xclipd(&libraries, "cuda:0", &[("XCLIP_EMULATED_FAULT", fault)]);
        let error = run.error();
        assert!(error.contains(what) && error.contains(mend), "{fault}: {error}");
        assert!(!error.contains("   "), "a broken line in a message: {error}");
    }
    let error = xclipd(&libraries, "cuda:3", &[]).error().to_string();
    assert!(error.contains("device cuda:3 does not exist: the driver shows 1 GPUs"), "{error}");
    let error = xclipd(&libraries, "cuda:0", &[("XCLIP_EMULATED_CAPABILITY", "7.5")]).error().to_string();
    assert!(error.contains("compute capability 7.5; needed is 8.0 (Ampere) or newer"), "{error}");
}

#[test]
fn with_auto_the_cpu_takes_over_with_at_most_one_warning() {
    let Some(libraries) = libraries() else { return };
    let faults = FAULTS.map(|(fault, ..)| ("XCLIP_EMULATED_FAULT", fault));
    let others = [("XCLIP_EMULATED_CAPABILITY", "7.5"), ("XCLIP_EMULATED_MEMORY", "1")];
    for fault in faults.into_iter().chain(others) {
        let run = xclipd(&libraries, "auto", &[fault]);
        assert!(run.passed, "{fault:?}: {}{}", run.out, run.log);
        let device = run.out.lines().next().unwrap();
        assert!(device.starts_with("cpu"), "{fault:?}: {device}");
        // Without any card there is nothing to warn of.
        let card = || xclipd(&libraries, "cuda:0", &[fault]).error().contains("NVIDIA card");
        let expected = usize::from(fault.1 != "no-device" || card());
        assert_eq!(run.warnings().len(), expected, "{fault:?}: {}", run.log);
    }
}

/// f16 is the GPU's alone; who leaves the device open gets what the CPU has.
#[test]
fn with_auto_the_cpu_takes_over_from_f16_too() {
    let Some(libraries) = libraries() else { return };
    for (fault, why) in
        [("old-driver", "is too old: it speaks CUDA 11.4"), ("no-image", "do not load on this driver")]
    {
        let run = xclipd(&libraries, "auto --precision f16", &[("XCLIP_EMULATED_FAULT", fault)]);
        assert!(run.passed && run.out.starts_with("cpu"), "{}{}", run.out, run.log);
        let warnings = run.warnings();
        assert!(warnings.len() == 1 && warnings[0].contains(why), "{}", run.log);
    }
    let run = xclipd(&libraries, "cuda:0 --precision f16", &[("XCLIP_EMULATED_FAULT", "old-driver")]);
    assert!(run.error().contains("is too old"), "{}", run.error());
}

#[test]
fn auto_takes_the_first_gpu_that_can_be_used() {
    let Some(libraries) = libraries() else { return };
    let two = |device: &str, chips: &str, fault: &str| {
        let environment = [("XCLIP_EMULATED_CAPABILITY", chips), ("XCLIP_EMULATED_FAULT", fault)];
        xclipd(&libraries, device, &environment)
    };
    for (chips, fault, first) in [
        ("9.0,9.0", "", "cuda:0"),
        ("7.5,8.9", "", "cuda:1"),
        ("9.0,8.0", "retain:46", "cuda:1"),
        ("7.5,7.0", "", "cpu"),
    ] {
        let run = two("auto", chips, fault);
        assert!(run.passed && run.out.starts_with(first), "{chips} {fault}: {}{}", run.out, run.log);
        assert_eq!(run.warnings().len(), usize::from(first == "cpu"), "{}", run.log);
    }
    // Of several reasons the first one.
    assert!(two("auto", "7.5,7.0", "").warnings()[0].contains("compute capability 7.5"));
    assert!(two("cuda:0", "7.5,8.9", "").error().contains("compute capability 7.5"));
    assert!(two("cuda:1", "7.5,8.9", "").passed);
    assert!(two("cuda:2", "7.5,8.9", "").error().contains("the driver shows 2 GPUs"));
}

#[test]
fn bench_measures_the_gpu_that_auto_takes() {
    let Some(libraries) = libraries() else { return };
    let model = tempfile::tempdir().unwrap();
    let config = root().join("tests/golden/small/config.json");
    generate(&config, model.path(), &mut |_, _| {}).unwrap();
    // The first one can be looked at, and its context cannot be had.
    let environment = [("XCLIP_EMULATED_CAPABILITY", "9.0,8.0"), ("XCLIP_EMULATED_FAULT", "retain:46")];
    let arguments = ["bench", "--model", model.path().to_str().unwrap(), "--device", "auto"];
    let sizes = ["--windows", "1", "--rounds", "1", "--prompts", "2"];
    let run = run(&libraries, arguments.into_iter().chain(sizes), &environment);
    assert!(
        run.passed && run.out.contains("cuda:1, ") && run.out.contains("EMULATED"),
        "{}{}",
        run.out,
        run.log
    );
}

/// Tegra's chips are not promised to run what is made for cards of their number.
#[test]
fn a_chip_that_refuses_machine_code_takes_what_its_driver_compiles() {
    let Some(libraries) = libraries() else { return };
    let environment = [("XCLIP_EMULATED_CAPABILITY", "8.7"), ("XCLIP_EMULATED_FAULT", "no-cubin")];
    let run = xclipd(&libraries, "cuda:0", &environment);
    assert!(run.passed && run.out.lines().next().unwrap().contains("(compute_80)"), "{}{}", run.out, run.log);
}

#[test]
fn doctor_shows_every_gpu_and_which_kernels_it_took() {
    let Some(libraries) = libraries() else { return };
    let doctor = |libraries: &Path, environment: &[(&str, &str)]| {
        run(libraries, ["doctor", "--model", "/nonexistent"].into_iter(), environment).out
    };
    let said = doctor(&libraries, &[("XCLIP_EMULATED_CAPABILITY", "7.5,8.6,9.0")]);
    for line in [
        "graphics    cuda:0: not used: emulated device has compute capability 7.5",
        "            cuda:1 emulated device, compute capability 8.6",
        "            cuda:2 emulated device, compute capability 9.0",
        "driver      CUDA 12.0, ",
        "cuBLASLt    12.",
        "kernels     sm_86: machine code for this chip",
        "golden      cuda:1: all ",
        "kernels     sm_90: ",
        "golden      cuda:2: all ",
    ] {
        assert!(said.lines().any(|found| found.starts_with(line)), "no `{line}` in\n{said}");
    }
    let environment = [("XCLIP_EMULATED_CAPABILITY", "8.7"), ("XCLIP_EMULATED_FAULT", "no-cubin")];
    let said = doctor(&libraries, &environment);
    assert!(said.contains("kernels     compute_80: compiled by the driver"), "{said}");
    if is_installed("libcublasLt.so.12") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(libraries.join("libcuda.so.1"), folder.path().join("libcuda.so.1")).unwrap();
    let said = doctor(folder.path(), &[]);
    for line in [
        "graphics    cuda:0 emulated device",
        "driver      CUDA 12.0, ",
        "cuBLASLt    MISSING, the model runs on",
    ] {
        assert!(said.lines().any(|found| found.starts_with(line)), "no `{line}` in\n{said}");
    }
}

#[test]
fn a_library_that_is_missing_or_broken_is_named() {
    let Some(libraries) = libraries() else { return };
    let folder = tempfile::tempdir().unwrap();
    std::fs::copy(libraries.join("libcuda.so.1"), folder.path().join("libcuda.so.1")).unwrap();
    if !is_installed("libcublasLt.so.12") {
        let run = xclipd(folder.path(), "cuda:0", &[]);
        let error = run.error();
        assert!(error.contains("library libcublasLt.so.12 was not found; looked in "), "{error}");
        assert!(
            error.contains("pip install nvidia-cublas-cu12") && error.contains("cuda-lib-dir"),
            "{error}"
        );
    }
    let path = folder.path().join("libcuda.so.1");
    std::fs::write(&path, "not a library").unwrap();
    // A folder may hold libraries of another kind of processor too: where there is one that opens, it serves.
    if is_installed("libcuda.so.1") {
        return;
    }
    let run = xclipd(folder.path(), "cuda:0", &[]);
    assert!(run.error().contains(&format!("library {} cannot be loaded", path.display())), "{}", run.error());
}

/// Fewer windows per batch, then one message.
#[test]
fn less_memory_makes_smaller_batches_and_too_little_one_message() {
    let Some(libraries) = libraries() else { return };
    let with = |mebibytes: u32| {
        let memory = mebibytes.to_string();
        let environment = [("XCLIP_EMULATED_MEMORY", memory.as_str()), ("RUST_LOG", "info")];
        xclipd(&libraries, "cuda:0", &environment)
    };
    let smaller = |run: &Run| run.log.contains("windows per batch do not fit the GPU's memory");
    let plenty = with(4096);
    assert!(plenty.passed && !smaller(&plenty), "{}{}", plenty.out, plenty.log);
    // Between all windows and none there are sizes that fit with fewer; 64 MiB alone are cuBLASLt's.
    let mut fewer = 0;
    for mebibytes in (1..=16).rev().map(|step| 64 + 4 * step) {
        let run = with(mebibytes);
        if run.passed {
            fewer += usize::from(smaller(&run));
        } else {
            let error = run.error();
            assert!(error.contains("out of memory on the GPU: ") && error.contains("nvidia-smi"), "{error}");
        }
    }
    assert!(fewer > 0, "no size between {} and 64 MiB made smaller batches", 64 + 4 * 16);
    assert!(!with(1).passed, "one MiB was enough");
}

#[test]
fn a_lost_device_is_one_message_wherever_it_happens() {
    let Some(libraries) = libraries() else { return };
    for kernel in [0, 3, 40, 90] {
        let fault = format!("lost:{kernel}");
        let run = xclipd(&libraries, "cuda:0", &[("XCLIP_EMULATED_FAULT", &fault)]);
        let error = run.error();
        assert!(error.contains("the GPU was lost in cu"), "{error}");
        assert!(
            error.contains("CUDA_ERROR_ECC_UNCORRECTABLE") && error.contains("dmesg | grep -i xid"),
            "{error}"
        );
    }
}

/// Chips with a cubin of their own, chips that take an older one's, chips that came later.
#[test]
fn every_chip_since_ampere_finds_kernels_that_load() {
    let Some(libraries) = libraries() else { return };
    for (capability, kernels) in [
        ("8.0", "sm_80"),
        ("8.6", "sm_86"),
        ("8.7", "sm_86"),
        ("8.9", "sm_89"),
        ("9.0", "sm_90"),
        ("10.0", "sm_100"),
        ("10.3", "sm_100"),
        ("11.0", "compute_80"),
        ("12.0", "sm_120"),
        ("12.1", "sm_120"),
    ] {
        let run = xclipd(&libraries, "cuda:0", &[("XCLIP_EMULATED_CAPABILITY", capability)]);
        assert!(run.passed, "{capability}: {}{}", run.out, run.log);
        let device = run.out.lines().next().unwrap();
        assert!(device.contains(&format!("({kernels})")), "{capability}: {device}");
    }
}
