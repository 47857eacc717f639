//! The driver and cuBLASLt of this process, opened once; and what the first look at a GPU finds.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::CudaError;
use super::cards::{SYSFS, cards};
use super::error::{LEAST_DRIVER, start_mend, version};
use super::images::Image;
use super::library::{Library, Missing, Wanted};
use super::release;
use super::sys::{self, BlasLt, Driver};

pub(super) struct Runtime {
    pub driver: Driver,
    pub blas: BlasLt,
    driver_path: PathBuf,
    blas_path: PathBuf,
    /// 12080 is CUDA 12.8.
    driver_version: i32,
    blas_version: usize,
}

/// A GPU that can run this backend.
#[derive(Clone, Debug)]
pub struct Gpu {
    pub ordinal: usize,
    pub name: String,
    /// Compute capability.
    pub capability: (u32, u32),
    pub memory_bytes: usize,
    pub multiprocessors: usize,
    pub l2_bytes: usize,
    /// The CUDA version the driver speaks, as in `12.8`.
    pub driver: String,
    pub driver_path: PathBuf,
    pub blas_version: String,
    pub blas_path: PathBuf,
    /// Which of the embedded kernel sets it takes, such as `sm_90` or `compute_80`.
    pub kernels: &'static str,
    pub(super) device: c_int,
}

static RUNTIME: Mutex<Option<&'static Runtime>> = Mutex::new(None);

/// Opens the libraries if they are not open yet. A failure is not kept: a folder may be named later.
pub(super) fn runtime() -> Result<&'static Runtime, CudaError> {
    let mut known = RUNTIME.lock().unwrap_or_else(|e| e.into_inner());
    if let Some(runtime) = *known {
        return Ok(runtime);
    }
    let runtime: &'static Runtime = Box::leak(Box::new(Runtime::open()?));
    *known = Some(runtime);
    Ok(runtime)
}

impl Runtime {
    fn open() -> Result<Self, CudaError> {
        let usual = ["/usr/lib/*-linux-gnu", "/usr/lib64", "/usr/lib/wsl/lib", "/run/opengl-driver/lib"];
        let wanted = Wanted { sonames: &["libcuda.so.1"], function: c"cuInit", usual: &usual };
        let library = Library::find(&wanted).map_err(|missing| match missing {
            Missing::Nowhere(looked) => CudaError::NoDriver { looked, cards: cards(Path::new(SYSFS)) },
            Missing::Bad(error) => error,
        })?;
        // Before any function that an old driver lacks.
        // SAFETY: the type in cuda.h.
        let get_version: unsafe extern "C" fn(*mut c_int) -> c_int =
            unsafe { library.function("cuDriverGetVersion")? };
        let mut driver_version = 0;
        // SAFETY: writes one number; may be called before cuInit.
        let status = unsafe { get_version(&mut driver_version) };
        if status != 0 || driver_version < LEAST_DRIVER {
            let path = library.path.display().to_string();
            return Err(CudaError::OldDriver { path, found: version(driver_version) });
        }
        let driver = Driver::load(&library)?;
        let (blas_library, soname) = open_blas(driver_version)?;
        let blas = BlasLt::load(&blas_library)?;
        // SAFETY: the type in cublasLt.h.
        let get_version: unsafe extern "C" fn() -> usize =
            unsafe { blas_library.function("cublasLtGetVersion")? };
        // SAFETY: takes nothing.
        let blas_version = unsafe { get_version() };
        tracing::debug!("{} and {soname} from {}", library.path.display(), blas_library.path.display());
        let (driver_path, blas_path) = (library.path, blas_library.path);
        let runtime = Self { driver, blas, driver_path, blas_path, driver_version, blas_version };
        // SAFETY: 0 is the only flag there is.
        let status = unsafe { (runtime.driver.init)(0) };
        match status {
            0 => Ok(runtime),
            sys::NO_DEVICE => Err(no_device(0, 0)),
            sys::OUT_OF_MEMORY => Err(CudaError::NoMemory { call: "cuInit" }),
            _ => {
                let (name, text) = runtime.words(status);
                let path = runtime.driver_path.display().to_string();
                Err(CudaError::NoStart { path, name, text, mend: start_mend(status) })
            }
        }
    }

    /// Name and text of a CUresult.
    fn words(&self, status: c_int) -> (String, String) {
        let text = |function: unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int| {
            let mut text = std::ptr::null();
            // SAFETY: writes a pointer to a constant string, or null.
            let known = unsafe { function(status, &mut text) } == 0 && !text.is_null();
            // SAFETY: a C string of the driver's.
            known.then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
        };
        let name = text(self.driver.get_error_name).unwrap_or_else(|| format!("CUDA error {status}"));
        let text = text(self.driver.get_error_string).unwrap_or_else(|| "the driver says no more".into());
        (name, text)
    }

    /// Where a size is known, out of memory is told with it before this.
    pub fn check(&self, call: &'static str, status: c_int) -> Result<(), CudaError> {
        match status {
            0 => return Ok(()),
            sys::OUT_OF_MEMORY => return Err(CudaError::NoMemory { call }),
            _ => {}
        }
        let (name, text) = self.words(status);
        match sys::LOST.contains(&status) {
            true => Err(CudaError::Lost { call, name, text }),
            false => Err(CudaError::Call { call, name, text }),
        }
    }
}

/// Cards that the user hides are none.
fn no_device(ordinal: usize, count: usize) -> CudaError {
    let shown = count == 0 && std::env::var_os("CUDA_VISIBLE_DEVICES").is_none();
    let cards = if shown { cards(Path::new(SYSFS)) } else { Vec::new() };
    CudaError::NoDevice { ordinal, count, cards }
}

/// The cuBLASLt that the driver can serve: version 13 needs a driver that speaks CUDA 13.
fn open_blas(driver: c_int) -> Result<(Library, &'static str), CudaError> {
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
        Ok(library) => Ok((library, sonames[0])),
        Err(Missing::Bad(error)) => Err(error),
        Err(Missing::Nowhere(looked)) => {
            Err(CudaError::NoLibrary { soname: sonames.join(" or "), package, looked })
        }
    }
}

/// Looks for the libraries and the GPU of this ordinal. Never panics; one error per cause. Opens no context
/// and allocates nothing.
pub fn probe(ordinal: usize) -> Result<Gpu, CudaError> {
    let runtime = runtime()?;
    let driver = &runtime.driver;
    let mut count = 0;
    // SAFETY: writes one number.
    runtime.check("cuDeviceGetCount", unsafe { (driver.device_get_count)(&mut count) })?;
    let count = usize::try_from(count).unwrap_or(0);
    if ordinal >= count {
        return Err(no_device(ordinal, count));
    }
    let mut device = 0;
    // SAFETY: writes one number.
    runtime.check("cuDeviceGet", unsafe { (driver.device_get)(&mut device, ordinal as c_int) })?;
    let mut name = [0 as c_char; 256];
    // SAFETY: writes at most 256 bytes, the last of them zero.
    let status = unsafe { (driver.device_get_name)(name.as_mut_ptr(), name.len() as c_int, device) };
    runtime.check("cuDeviceGetName", status)?;
    // SAFETY: a C string, see above.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let attribute = |which: c_int| -> Result<usize, CudaError> {
        let mut value = 0;
        // SAFETY: writes one number.
        let status = unsafe { (driver.device_get_attribute)(&mut value, which, device) };
        runtime.check("cuDeviceGetAttribute", status)?;
        Ok(usize::try_from(value).unwrap_or(0))
    };
    let (major, minor) = (attribute(sys::CAPABILITY_MAJOR)? as u32, attribute(sys::CAPABILITY_MINOR)? as u32);
    let Some(image) = Image::of((major, minor)) else {
        return Err(CudaError::OldDevice { name, major, minor });
    };
    let mut memory_bytes = 0;
    // SAFETY: writes one number.
    runtime.check("cuDeviceTotalMem", unsafe { (driver.device_total_mem)(&mut memory_bytes, device) })?;
    Ok(Gpu {
        ordinal,
        name,
        capability: (major, minor),
        memory_bytes,
        multiprocessors: attribute(sys::MULTIPROCESSORS)?,
        l2_bytes: attribute(sys::L2_BYTES)?,
        driver: version(runtime.driver_version),
        driver_path: runtime.driver_path.clone(),
        blas_version: blas_version(runtime.blas_version),
        blas_path: runtime.blas_path.clone(),
        kernels: image.target,
        device,
    })
}

/// 120903 → 12.9.3; since version 11 cuBLAS counts in these steps.
fn blas_version(number: usize) -> String {
    format!("{}.{}.{}", number / 10_000, number / 100 % 100, number % 100)
}

impl Gpu {
    /// The driver's release as in `580.65.06`, which names its packages; none where nothing tells it.
    pub fn driver_release(&self) -> Option<String> {
        if self.is_emulated() { None } else { release::of_driver() }
    }

    /// Whether calls reach hardware: the tests' emulated device says so in its name.
    pub fn is_emulated(&self) -> bool {
        self.name.contains("emulated")
    }

    /// Path of a library as doctor shows it.
    pub fn library_paths(&self) -> [(&'static str, &Path); 2] {
        [("driver", &self.driver_path), ("cuBLASLt", &self.blas_path)]
    }
}
