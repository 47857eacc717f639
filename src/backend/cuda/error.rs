//! What can go wrong on the way to the GPU and on it: one message per cause, with the mend.

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
    #[error("{call} failed: {name} ({text}). Update the driver, or use device=cpu")]
    Call { call: &'static str, name: String, text: String },
    #[error(
        "cuBLASLt {call} failed with status {status}{shape}. Another version of the library may help: cuda-lib-dir"
    )]
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

/// 12080 → 12.8
pub(super) fn version(number: i32) -> String {
    format!("{}.{}", number / 1000, number % 1000 / 10)
}
