//! What can go wrong on the way to the GPU and on it: one message per cause, with the mend.

use super::sys;

/// A driver of this CUDA version loads the embedded kernels (made by NVRTC 12.9): 12.0, driver 525.
pub(super) const LEAST_DRIVER: i32 = 12_000;

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CudaError {
    #[error(
        "no NVIDIA driver: libcuda.so.1 was not found; looked in {looked}. Install driver 525 or newer{} (in a \
         container: start it with GPU access), or use device=cpu",
        for_cards(cards)
    )]
    NoDriver {
        looked: String,
        /// PCI addresses of the NVIDIA cards that are there all the same.
        cards: Vec<String>,
    },
    #[error(
        "the NVIDIA driver {path} is too old: it speaks CUDA {found}, needed is 12.0. Update it to driver 525 \
         or newer, or use device=cpu"
    )]
    OldDriver { path: String, found: String },
    #[error(
        "the NVIDIA driver {path} does not start: cuInit says {name} ({text}). {mend}, or use device=cpu"
    )]
    NoStart { path: String, name: String, text: String, mend: &'static str },
    #[error(
        "library {soname} was not found; looked in {looked}. Install it with the CUDA toolkit or `pip install \
         {package}`, and name its folder (or the site-packages folder) in cuda-lib-dir or XCLIP_CUDA_LIB_DIR"
    )]
    NoLibrary { soname: String, package: &'static str, looked: String },
    #[error(
        "library {path} cannot be loaded: {why}. Repair its installation, or name another folder in cuda-lib-dir"
    )]
    BadLibrary { path: String, why: String },
    #[error("library {path} has no function {symbol}: it is too old or not the library of that name")]
    NoSymbol { path: String, symbol: &'static str },
    #[error(
        "device cuda:{ordinal} does not exist: the driver shows {count} GPUs (`nvidia-smi -L` lists them){}",
        despite_cards(cards)
    )]
    NoDevice {
        ordinal: usize,
        count: usize,
        /// PCI addresses of the NVIDIA cards that are there although the driver shows none.
        cards: Vec<String>,
    },
    #[error(
        "{name} has compute capability {major}.{minor}; needed is 8.0 (Ampere) or newer. Use another GPU or device=cpu"
    )]
    OldDevice { name: String, major: u32, minor: u32 },
    #[error("the GPU cannot take this checkpoint: {0}. Use device=cpu")]
    Refused(String),
    #[error(
        "the kernels for {target} do not load on this driver: {why}. Update the driver, or use device=cpu"
    )]
    Kernels { target: String, why: String },
    #[error(
        "out of memory on the GPU: {what} of {needed_mib} MiB does not fit into the free {free_mib} MiB. End other \
         programs on the GPU (`nvidia-smi`), or use a smaller checkpoint or device=cpu"
    )]
    OutOfMemory { what: &'static str, needed_mib: usize, free_mib: usize },
    #[error(
        "{call} ran out of memory on the GPU or of memory that can be page-locked. End other programs (`nvidia-smi`, \
         `free`), or use a smaller checkpoint or device=cpu"
    )]
    NoMemory { call: &'static str },
    #[error(
        "the GPU was lost in {call}: {name} ({text}). `dmesg | grep -i xid` tells why; restart the program, and if \
         that does not help the machine or `nvidia-smi --gpu-reset`"
    )]
    Lost { call: &'static str, name: String, text: String },
    #[error("the GPU cannot be had: {call} says {name} ({text}). {mend}, or use device=cpu")]
    Unavailable { call: &'static str, name: String, text: String, mend: &'static str },
    #[error("{call} failed: {name} ({text}). Update the driver, or use device=cpu")]
    Call { call: &'static str, name: String, text: String },
    #[error("{call} failed with {}{shape}. {}, or use device=cpu", blas_status(*status), blas_mend(*status))]
    Product { call: &'static str, status: i32, shape: String },
}

impl CudaError {
    /// Nothing on this device works any more in this process.
    pub fn is_lost(&self) -> bool {
        matches!(self, CudaError::Lost { .. })
    }

    /// This machine has no GPU that could be used, so that nobody has to hear of it who did not name one.
    pub(in crate::backend) fn is_without_gpu(&self) -> bool {
        match self {
            CudaError::NoDriver { cards, .. } | CudaError::NoDevice { cards, .. } => cards.is_empty(),
            _ => false,
        }
    }

    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, CudaError::OutOfMemory { .. } | CudaError::NoMemory { .. })
    }
}

fn for_cards(cards: &[String]) -> String {
    match cards {
        [] => String::new(),
        cards => format!(" for the NVIDIA card at PCI address {}", cards.join(", ")),
    }
}

fn despite_cards(cards: &[String]) -> String {
    match cards {
        [] => String::new(),
        cards => format!(
            ". There is an NVIDIA card at PCI address {}: load the driver's kernel module (`modprobe nvidia`; in a \
             container: start it with GPU access), or use device=cpu",
            cards.join(", ")
        ),
    }
}

/// What to do where a call returns this because the device is others' now. A later call may find it free.
pub(super) fn unavailable_mend(status: i32) -> Option<&'static str> {
    match status {
        sys::DEVICE_UNAVAILABLE => Some(
            "Another program has it to itself, or the device needs a reset: `nvidia-smi` shows the compute mode and the \
             program that holds it; end that, or let programs share the device by `nvidia-smi -c DEFAULT`",
        ),
        sys::MPS_CONNECTION_FAILED..=sys::MPS_MAX_CONNECTIONS => Some(MPS),
        _ => None,
    }
}

const MPS: &str = "The machine's Multi-Process Service does not serve this program: see its control.log and server.log, \
                   restart it (`echo quit | nvidia-cuda-mps-control`, then `nvidia-cuda-mps-control -d`)";

/// What to do where cuInit returns this, and the device is there.
pub(super) fn start_mend(status: i32) -> &'static str {
    match status {
        sys::SYSTEM_NOT_READY => {
            "Start what the machine's GPUs need before any program: with NVSwitch that is the fabric manager of the \
             driver's own version (`systemctl start nvidia-fabricmanager`)"
        }
        sys::SYSTEM_DRIVER_MISMATCH => {
            "The loaded kernel module is of another version than this library: restart the machine after a driver's \
             update; in a container take the host's libraries and none of your own"
        }
        sys::COMPAT_NOT_SUPPORTED => {
            "This GPU takes no forward compatibility library: remove cuda-compat from the library path"
        }
        sys::STUB_LIBRARY => {
            "This file is the CUDA toolkit's stub: name the driver's own folder in cuda-lib-dir"
        }
        sys::MPS_CONNECTION_FAILED..=sys::MPS_MAX_CONNECTIONS => MPS,
        sys::UNKNOWN => {
            "Load the driver's kernel modules (`nvidia-modprobe -u`; after a standby `rmmod nvidia_uvm`, then \
             `modprobe nvidia_uvm`), see `dmesg | grep -i nvrm`, or restart the machine"
        }
        _ => "See `nvidia-smi` and `dmesg | grep -i nvrm`; restart the machine, or install the driver again",
    }
}

/// cublasStatus_t by name.
fn blas_status(status: i32) -> String {
    let name = match status {
        1 => "CUBLAS_STATUS_NOT_INITIALIZED",
        7 => "CUBLAS_STATUS_INVALID_VALUE",
        8 => "CUBLAS_STATUS_ARCH_MISMATCH",
        11 => "CUBLAS_STATUS_MAPPING_ERROR",
        13 => "CUBLAS_STATUS_EXECUTION_FAILED",
        14 => "CUBLAS_STATUS_INTERNAL_ERROR",
        15 => "CUBLAS_STATUS_NOT_SUPPORTED",
        other => return format!("status {other} of cuBLASLt"),
    };
    name.into()
}

fn blas_mend(status: i32) -> &'static str {
    match status {
        // The library loads its kernels when they are first used, and says no more where there is no room.
        1 | 11 | 13 | 14 => {
            "Most often too little GPU memory is free: end other programs on it (`nvidia-smi`); else try another version \
             of cuBLASLt (cuda-lib-dir) or a newer driver"
        }
        _ => "Try another version of cuBLASLt (cuda-lib-dir)",
    }
}

/// 12080 → 12.8
pub(super) fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}
