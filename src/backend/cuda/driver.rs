//! The driver of this process, opened once, and what it says of its GPUs.

use std::ffi::{CStr, c_char, c_int};
use std::path::{Path, PathBuf};

use super::CudaError;
use super::cards::{SYSFS, cards};
use super::error::{LEAST_DRIVER, start_mend, unavailable_mend, version};
use super::images::Image;
use super::library::{Library, Missing, OpenedOnce, Wanted};
use super::release;
use super::sys::{self, Driver};

pub(super) struct OpenDriver {
    pub functions: Driver,
    path: PathBuf,
    /// 12080 is CUDA 12.8.
    pub version: c_int,
}

/// A GPU whose chip can run this backend.
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
    pub(super) device: c_int,
}

/// Opens and starts the driver if it is not yet.
pub(super) fn driver() -> Result<&'static OpenDriver, CudaError> {
    static DRIVER: OpenedOnce<OpenDriver> = OpenedOnce::new();
    DRIVER.get(OpenDriver::open)
}

impl OpenDriver {
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
        let mut number = 0;
        // SAFETY: writes one number; may be called before cuInit.
        let status = unsafe { get_version(&mut number) };
        if status != 0 || number < LEAST_DRIVER {
            let path = library.path.display().to_string();
            return Err(CudaError::OldDriver { path, found: version(number) });
        }
        let functions = Driver::load(&library)?;
        tracing::debug!("driver {}", library.path.display());
        let driver = Self { functions, path: library.path, version: number };
        // SAFETY: 0 is the only flag there is.
        let status = unsafe { (driver.functions.init)(0) };
        match status {
            0 => Ok(driver),
            sys::NO_DEVICE => Err(no_device(0, 0)),
            sys::OUT_OF_MEMORY => Err(CudaError::NoMemory { call: "cuInit" }),
            _ => {
                let (name, text) = driver.words(status);
                let path = driver.path.display().to_string();
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
        let name = text(self.functions.get_error_name).unwrap_or_else(|| format!("CUDA error {status}"));
        let text = text(self.functions.get_error_string).unwrap_or_else(|| "the driver says no more".into());
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
        Err(match unavailable_mend(status) {
            _ if sys::LOST.contains(&status) => CudaError::Lost { call, name, text },
            Some(mend) => CudaError::Unavailable { call, name, text, mend },
            None => CudaError::Call { call, name, text },
        })
    }
}

/// Cards that the user hides are none.
fn no_device(ordinal: usize, count: usize) -> CudaError {
    let shown = count == 0 && std::env::var_os("CUDA_VISIBLE_DEVICES").is_none();
    let cards = if shown { cards(Path::new(SYSFS)) } else { Vec::new() };
    CudaError::NoDevice { ordinal, count, cards }
}

/// How many GPUs the driver shows.
pub fn count() -> Result<usize, CudaError> {
    let driver = driver()?;
    let mut count = 0;
    // SAFETY: writes one number.
    driver.check("cuDeviceGetCount", unsafe { (driver.functions.device_get_count)(&mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// What the driver says of the GPU of this ordinal; an error where its chip is too old. Opens no context and
/// allocates nothing.
pub fn look(ordinal: usize) -> Result<Gpu, CudaError> {
    let count = count()?;
    if ordinal >= count {
        return Err(no_device(ordinal, count));
    }
    let open = driver()?;
    let driver = &open.functions;
    let mut device = 0;
    // SAFETY: writes one number.
    open.check("cuDeviceGet", unsafe { (driver.device_get)(&mut device, ordinal as c_int) })?;
    let mut name = [0 as c_char; 256];
    // SAFETY: writes at most 256 bytes, the last of them zero.
    let status = unsafe { (driver.device_get_name)(name.as_mut_ptr(), name.len() as c_int, device) };
    open.check("cuDeviceGetName", status)?;
    // SAFETY: a C string, see above.
    let name = unsafe { CStr::from_ptr(name.as_ptr()) }.to_string_lossy().into_owned();
    let attribute = |which: c_int| -> Result<usize, CudaError> {
        let mut value = 0;
        // SAFETY: writes one number.
        let status = unsafe { (driver.device_get_attribute)(&mut value, which, device) };
        open.check("cuDeviceGetAttribute", status)?;
        Ok(usize::try_from(value).unwrap_or(0))
    };
    let (major, minor) = (attribute(sys::CAPABILITY_MAJOR)? as u32, attribute(sys::CAPABILITY_MINOR)? as u32);
    if Image::of((major, minor)).is_none() {
        return Err(CudaError::OldDevice { name, major, minor });
    }
    let mut memory_bytes = 0;
    // SAFETY: writes one number.
    open.check("cuDeviceTotalMem", unsafe { (driver.device_total_mem)(&mut memory_bytes, device) })?;
    Ok(Gpu {
        ordinal,
        name,
        capability: (major, minor),
        memory_bytes,
        multiprocessors: attribute(sys::MULTIPROCESSORS)?,
        l2_bytes: attribute(sys::L2_BYTES)?,
        driver: version(open.version),
        driver_path: open.path.clone(),
        device,
    })
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
}
