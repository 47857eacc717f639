//! Driver and cuBLASLt of this process, opened once: what every call of this backend goes through.

use std::ffi::c_int;
use std::path::PathBuf;

use super::CudaError;
use super::driver::{Gpu, OpenDriver, driver, look};
use super::library::{Library, Missing, OpenedOnce, Wanted};
use super::sys::{BlasLt, Driver};

pub(super) struct Runtime {
    pub driver: &'static Driver,
    pub blas: BlasLt,
    open: &'static OpenDriver,
    blas_path: PathBuf,
    blas_version: usize,
}

/// cuBLASLt as it was found.
#[derive(Clone, Debug)]
pub struct Blas {
    /// As in `12.9.3`.
    pub version: String,
    pub path: PathBuf,
}

/// Opens the libraries if they are not open yet.
pub(super) fn runtime() -> Result<&'static Runtime, CudaError> {
    static RUNTIME: OpenedOnce<Runtime> = OpenedOnce::new();
    RUNTIME.get(Runtime::open)
}

impl Runtime {
    fn open() -> Result<Self, CudaError> {
        let open = driver()?;
        let library = open_blas(open.version)?;
        let blas = BlasLt::load(&library)?;
        // SAFETY: the type in cublasLt.h.
        let get_version: unsafe extern "C" fn() -> usize = unsafe { library.function("cublasLtGetVersion")? };
        // SAFETY: takes nothing.
        let blas_version = unsafe { get_version() };
        tracing::debug!("cuBLASLt {}", library.path.display());
        Ok(Self { driver: &open.functions, blas, open, blas_path: library.path, blas_version })
    }

    /// See [`OpenDriver::check`].
    pub fn check(&self, call: &'static str, status: c_int) -> Result<(), CudaError> {
        self.open.check(call, status)
    }
}

/// The cuBLASLt that the driver can serve: version 13 needs a driver that speaks CUDA 13.
fn open_blas(driver: c_int) -> Result<Library, CudaError> {
    let sonames: &[&'static str] = match driver {
        13_000.. => &["libcublasLt.so.13", "libcublasLt.so.12"],
        _ => &["libcublasLt.so.12"],
    };
    let usual = [
        "/usr/local/cuda/lib64",
        "/usr/local/cuda-*/lib64",
        "/opt/cuda/lib64",
        "/usr/lib/*-linux-gnu",
        "/usr/lib64",
        "/usr/lib/python3*/site-packages/nvidia/*/lib",
        "/usr/local/lib/python3*/dist-packages/nvidia/*/lib",
        "/usr/local/lib/python3*/site-packages/nvidia/*/lib",
    ];
    let wanted = Wanted { sonames, function: c"cublasLtCreate", usual: &usual };
    let package = if driver >= 13_000 { "nvidia-cublas" } else { "nvidia-cublas-cu12" };
    match Library::find(&wanted) {
        Ok(library) => Ok(library),
        Err(Missing::Bad(error)) => Err(error),
        Err(Missing::Nowhere(looked)) => {
            Err(CudaError::NoLibrary { soname: sonames.join(" or "), package, looked })
        }
    }
}

/// Looks for the libraries and the GPU of this ordinal. Never panics; one error per cause. Opens no context
/// and allocates nothing.
pub fn probe(ordinal: usize) -> Result<Gpu, CudaError> {
    let gpu = look(ordinal)?;
    runtime()?;
    Ok(gpu)
}

/// The cuBLASLt that serves the driver.
pub fn blas() -> Result<Blas, CudaError> {
    let runtime = runtime()?;
    Ok(Blas { version: blas_version(runtime.blas_version), path: runtime.blas_path.clone() })
}

/// 120903 → 12.9.3; since version 11 cuBLAS counts in these steps.
fn blas_version(number: usize) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}
