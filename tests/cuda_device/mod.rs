//! Where the CUDA tests run: on the GPU if there is one, else on the emulated device of tests/emulator, which
//! is then built from kernels/ and put in the libraries' place.
#![allow(dead_code)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use gstxclip::backend::cuda::{CudaError, Gpu, probe, set_library_folder};

/// The repository, also where prebuilt test programs run (scripts/gpu-check.sh).
pub fn root() -> PathBuf {
    let given = std::env::var_os("XCLIP_TEST_ROOT").map(PathBuf::from);
    given.unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into())
}

/// The device, or none, of which a line on stderr tells: the calling test then has nothing to run on.
pub fn device() -> Option<&'static Gpu> {
    static FOUND: OnceLock<Result<Gpu, String>> = OnceLock::new();
    let found = FOUND.get_or_init(|| match probe(0) {
        Ok(gpu) => Ok(gpu),
        // A driver that is there and does not work is no reason to test something else.
        Err(error @ (CudaError::NoDriver { .. } | CudaError::NoDevice { .. })) => {
            let folder = emulator().map_err(|why| format!("{error}; and no emulated device: {why}"))?;
            set_library_folder(&folder);
            probe(0).map_err(|error| format!("emulated device: {error}"))
        }
        Err(error) => panic!("{error}"),
    });
    match found {
        Ok(gpu) => Some(gpu),
        Err(why) => {
            say(&format!("SKIPPED {}: {why}", std::thread::current().name().unwrap_or("test")));
            None
        }
    }
}

/// How often a kernel ran on the emulated device, or something it notes happened; none on another.
pub fn runs(kernel: &str) -> Option<i64> {
    if !device()?.is_emulated() {
        return None;
    }
    let name = std::ffi::CString::new(kernel).unwrap();
    // SAFETY: the function's type is tests/emulator/driver.cpp's.
    let runs: extern "C" fn(*const libc::c_char) -> i64 =
        unsafe { std::mem::transmute(of_driver(c"emulated_runs")) };
    Some(runs(name.as_ptr()))
}

/// After `passing` launches the next `failing` find no memory, in all of this process. An emulated device was found.
pub fn fail_launches(passing: i64, failing: i64) {
    // SAFETY: as above.
    let fail: extern "C" fn(i64, i64) = unsafe { std::mem::transmute(of_driver(c"emulated_fail_launches")) };
    fail(passing, failing);
}

/// What streams have been given and is not done yet. An emulated device was found.
pub fn pending() -> i64 {
    // SAFETY: as above.
    let pending: extern "C" fn() -> i64 = unsafe { std::mem::transmute(of_driver(c"emulated_pending")) };
    pending()
}

/// A function of the driver that the backend has open.
fn of_driver(name: &std::ffi::CStr) -> *mut libc::c_void {
    // SAFETY: C strings; the library stays open.
    let function = unsafe {
        let library = libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_LAZY | libc::RTLD_NOLOAD);
        libc::dlsym(library, name.as_ptr())
    };
    assert!(!function.is_null(), "the driver has {name:?}");
    function
}

/// The test of this name again, in a process of its own, with `environment`. None, of which a line on stderr tells,
/// without an emulated device: only that one fails on demand.
pub fn on_failing_device(test: &str, environment: &[(&str, &str)]) -> Option<std::process::Output> {
    if !device()?.is_emulated() {
        say(&format!("SKIPPED {test}: only an emulated device fails on demand"));
        return None;
    }
    let mut child = Command::new(std::env::current_exe().unwrap());
    child.args(["--exact", test, "--nocapture"]).envs(environment.iter().copied());
    Some(child.output().unwrap())
}

/// The context that is this thread's current one; null where there is none. A device was found before.
pub fn current_context() -> *mut libc::c_void {
    let mut current = std::ptr::null_mut();
    // SAFETY: the function's type is cuda.h's.
    let get: extern "C" fn(*mut *mut libc::c_void) -> libc::c_int =
        unsafe { std::mem::transmute(of_driver(c"cuCtxGetCurrent")) };
    assert_eq!(get(&mut current), 0);
    current
}

/// The folder with the emulated libraries.
pub fn emulator() -> Result<PathBuf, String> {
    let folder = std::env::var_os("XCLIP_EMULATOR").map(PathBuf::from);
    if let Some(folder) = folder.filter(|folder| folder.join("libcuda.so.1").exists()) {
        return Ok(folder);
    }
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("emulator");
    let script = root().join("tests/emulator/build.sh");
    let built = Command::new("bash").arg(script).arg(&folder).output().map_err(|e| format!("bash: {e}"))?;
    if built.status.success() {
        return Ok(folder);
    }
    let why = String::from_utf8_lossy(&built.stderr).into_owned();
    // A compiler that is not there is a reason to skip; one that refuses the sources is a fault.
    assert!(why.contains("is missing"), "tests/emulator/build.sh: {why}");
    Err(why.trim().into())
}

/// Past the capture of the test harness, which shows nothing of a test that passes.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
