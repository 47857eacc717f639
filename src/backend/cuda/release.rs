//! The driver's release, as in `580.65.06`: what packages and `nvidia-smi` call it by, where the driver API tells
//! only the CUDA version it speaks.
//!
//! Sources: /proc/driver/nvidia/version of the kernel module; NVML (nvml.h) where there is none, as in WSL.

use std::ffi::{CStr, c_char, c_int, c_uint};

use super::library::{Library, Wanted};

const VERSION_FILE: &str = "/proc/driver/nvidia/version";
/// NVML_SYSTEM_DRIVER_VERSION_BUFFER_SIZE
const LONGEST: usize = 80;

pub(super) fn of_driver() -> Option<String> {
    std::fs::read_to_string(VERSION_FILE).ok().and_then(|text| parse(&text)).or_else(by_nvml)
}

/// The first word that is a number with one or two points, in the line of the module.
fn parse(text: &str) -> Option<String> {
    let line = text.lines().find(|line| line.starts_with("NVRM version:"))?;
    let is_release = |word: &&str| {
        let parts: Vec<&str> = word.split('.').collect();
        let number = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        (2..=3).contains(&parts.len()) && parts.iter().all(number)
    };
    line.split_whitespace().find(is_release).map(str::to_string)
}

fn by_nvml() -> Option<String> {
    let usual = ["/usr/lib/wsl/lib", "/usr/lib/*-linux-gnu", "/usr/lib64", "/run/opengl-driver/lib"];
    let wanted = Wanted { sonames: &["libnvidia-ml.so.1"], function: c"nvmlInit_v2", usual: &usual };
    let library = Library::find(&wanted).ok()?;
    // SAFETY: the types in nvml.h.
    let init: unsafe extern "C" fn() -> c_int = unsafe { library.function("nvmlInit_v2") }.ok()?;
    // SAFETY: as above.
    let version: unsafe extern "C" fn(*mut c_char, c_uint) -> c_int =
        unsafe { library.function("nvmlSystemGetDriverVersion") }.ok()?;
    // SAFETY: takes nothing. It stays initialised, as the library stays open.
    if unsafe { init() } != 0 {
        return None;
    }
    let mut text = [0 as c_char; LONGEST];
    // SAFETY: writes at most so many bytes, the last of them zero.
    let status = unsafe { version(text.as_mut_ptr(), LONGEST as c_uint) };
    // SAFETY: a C string, see above.
    (status == 0).then(|| unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_found_in_what_both_kinds_of_kernel_module_say() {
        let closed = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.54.03  Tue Jun  6 22:20:39 UTC 2023\n\
                      GCC version:  gcc version 12.3.0 (Debian 12.3.0-1)\n";
        assert_eq!(parse(closed).as_deref(), Some("535.54.03"));
        let open = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  580.65.06  Release Build  (root@host)\n";
        assert_eq!(parse(open).as_deref(), Some("580.65.06"));
        assert_eq!(parse("GCC version:  gcc version 12.3.0\n"), None);
    }
}
