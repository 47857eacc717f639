//! One kernel at a time: memory, launches and results through the driver itself, beside the backend.

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_uint, c_void};
use std::os::unix::ffi::OsStrExt;

use gstxclip::backend::cuda::CudaReducer;
use half::f16;

use crate::cuda_device::{device, root};

type Handle = *mut c_void;

macro_rules! driver {
    ($($name:ident = $symbol:literal($($argument:ty),*);)*) => {
        struct Driver {
            $($name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl Driver {
            fn open(path: &std::path::Path) -> Self {
                let path = CString::new(path.as_os_str().as_bytes()).unwrap();
                // SAFETY: a C string; the backend has opened this library before.
                let library = unsafe { libc::dlopen(path.as_ptr(), libc::RTLD_NOW) };
                assert!(!library.is_null());
                // SAFETY: the types are the functions' in cuda.h.
                Self { $($name: unsafe {
                    let function = libc::dlsym(library, $symbol.as_ptr());
                    assert!(!function.is_null(), stringify!($name));
                    std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($argument),*) -> c_int>(function)
                },)* }
            }
        }
    };
}

driver! {
    init = c"cuInit"(c_uint);
    retain = c"cuDevicePrimaryCtxRetain"(*mut Handle, c_int);
    set_current = c"cuCtxSetCurrent"(Handle);
    alloc = c"cuMemAlloc_v2"(*mut u64, usize);
    free = c"cuMemFree_v2"(u64);
    to_device = c"cuMemcpyHtoDAsync_v2"(u64, *const c_void, usize, Handle);
    to_host = c"cuMemcpyDtoHAsync_v2"(*mut c_void, u64, usize, Handle);
    fill = c"cuMemsetD8Async"(u64, u8, usize, Handle);
    synchronize = c"cuStreamSynchronize"(Handle);
    load = c"cuModuleLoadData"(*mut Handle, *const c_void);
    unload = c"cuModuleUnload"(Handle);
    function = c"cuModuleGetFunction"(*mut Handle, Handle, *const c_char);
    launch = c"cuLaunchKernel"(
        Handle, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Handle, *mut *mut c_void, *mut *mut c_void
    );
}

/// A kernel's argument: its bytes from the lowest on.
#[derive(Clone, Copy)]
pub struct Argument(u64);

/// Values on the device.
pub struct Room {
    pub at: u64,
    pub len: usize,
}

impl From<&Room> for Argument {
    fn from(room: &Room) -> Self {
        Argument(room.at)
    }
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Argument(i32::try_from(value).unwrap().cast_unsigned().into())
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Argument(value.to_bits().into())
    }
}

/// A null pointer.
pub const NULL: Argument = Argument(0);

#[macro_export]
macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { &[$($crate::lab::Argument::from($argument)),*] };
}

/// Frees what it gave when dropped. One per test, on the test's thread.
pub struct Lab {
    driver: Driver,
    module: Handle,
    rooms: RefCell<Vec<u64>>,
}

impl Lab {
    /// None where there is no device, of which a line on stderr tells.
    pub fn open() -> Option<Self> {
        let gpu = device()?;
        let driver = Driver::open(&gpu.driver_path);
        // What the backend takes here: a chip may refuse the cubin that is made for it.
        let target = CudaReducer::open(16, 16, 0).unwrap().kernels();
        let ending = if target.starts_with("sm_") { "cubin" } else { "ptx" };
        let mut code = std::fs::read(root().join(format!("kernels/cubins/{target}.{ending}"))).unwrap();
        code.push(0);
        let (mut context, mut module) = (std::ptr::null_mut(), std::ptr::null_mut());
        // SAFETY: each writes one handle; PTX ends with a zero.
        unsafe {
            check((driver.init)(0), "cuInit");
            check((driver.retain)(&mut context, 0), "cuDevicePrimaryCtxRetain");
            check((driver.set_current)(context), "cuCtxSetCurrent");
            check((driver.load)(&mut module, code.as_ptr().cast()), "cuModuleLoadData");
        }
        Some(Self { driver, module, rooms: RefCell::default() })
    }

    /// Bytes that are NaN in f16 and f32 until somebody writes them.
    fn bytes(&self, bytes: usize) -> u64 {
        let mut at = 0;
        // SAFETY: writes one address, then fills what lies there.
        unsafe {
            check((self.driver.alloc)(&mut at, bytes), "cuMemAlloc");
            check((self.driver.fill)(at, 0xff, bytes, std::ptr::null_mut()), "cuMemsetD8");
        }
        self.rooms.borrow_mut().push(at);
        at
    }

    pub fn room<T>(&self, len: usize) -> Room {
        Room { at: self.bytes(len * size_of::<T>()), len }
    }

    pub fn put<T: Copy>(&self, values: &[T]) -> Room {
        let room = self.room::<T>(values.len());
        let bytes = size_of_val(values);
        // SAFETY: waited for before `values` goes.
        unsafe {
            let from = values.as_ptr().cast();
            check((self.driver.to_device)(room.at, from, bytes, std::ptr::null_mut()), "cuMemcpyHtoD");
        }
        self.finish("cuMemcpyHtoD");
        room
    }

    pub fn get<T: Copy + Default>(&self, room: &Room) -> Vec<T> {
        let mut values = vec![T::default(); room.len];
        let bytes = size_of_val(values.as_slice());
        // SAFETY: waited for before anybody looks; T is a plain number.
        unsafe {
            let to = values.as_mut_ptr().cast();
            check((self.driver.to_host)(to, room.at, bytes, std::ptr::null_mut()), "cuMemcpyDtoH");
        }
        self.finish("cuMemcpyDtoH");
        values
    }

    /// As [`Lab::put`], rounded to f16 first.
    pub fn put_halves(&self, values: &[f32]) -> Room {
        self.put(&values.iter().map(|v| f16::from_f32(*v)).collect::<Vec<_>>())
    }

    pub fn get_halves(&self, room: &Room) -> Vec<f64> {
        self.get::<f16>(room).iter().map(|v| v.to_f64()).collect()
    }

    fn finish(&self, what: &str) {
        // SAFETY: the default stream.
        check(unsafe { (self.driver.synchronize)(std::ptr::null_mut()) }, what);
    }

    /// Launches and waits.
    pub fn launch(
        &self,
        name: &str,
        grid: [usize; 3],
        threads: usize,
        shared: usize,
        arguments: &[Argument],
    ) {
        let mut pointers: Vec<*mut c_void> =
            arguments.iter().map(|argument| (&raw const argument.0).cast_mut().cast()).collect();
        let [x, y, z] = grid.map(|n| u32::try_from(n).unwrap());
        let (symbol, mut function) = (CString::new(name).unwrap(), std::ptr::null_mut());
        // SAFETY: a loaded module; the arguments are those of the kernel's source, which the test states.
        unsafe {
            check((self.driver.function)(&mut function, self.module, symbol.as_ptr()), name);
            let status = (self.driver.launch)(
                function,
                x,
                y,
                z,
                threads as u32,
                1,
                1,
                shared as u32,
                std::ptr::null_mut(),
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            );
            check(status, name);
        }
        self.finish(name);
    }

    /// One thread per item, in blocks of 128.
    pub fn per_thread(&self, name: &str, items: usize, arguments: &[Argument]) {
        self.launch(name, [items.div_ceil(128), 1, 1], 128, 0, arguments);
    }

    /// One warp per row, in blocks of 128.
    pub fn per_warp(&self, name: &str, rows: usize, arguments: &[Argument]) {
        self.launch(name, [rows.div_ceil(4), 1, 1], 128, 0, arguments);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // SAFETY: allocated and loaded once; all work is waited for.
        unsafe {
            for at in self.rooms.borrow().iter() {
                (self.driver.free)(*at);
            }
            (self.driver.unload)(self.module);
        }
    }
}

fn check(status: c_int, what: &str) {
    assert_eq!(status, 0, "{what}: CUDA error {status}");
}

/// Numbers that follow from a seed.
pub struct Noise(pub u64);

impl Noise {
    pub fn word(&mut self) -> u32 {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.0 >> 33) as u32
    }

    /// In [−size, size), as f16 holds them.
    pub fn halves(&mut self, len: usize, size: f32) -> Vec<f32> {
        self.floats(len, size).into_iter().map(|v| f16::from_f32(v).to_f32()).collect()
    }

    pub fn floats(&mut self, len: usize, size: f32) -> Vec<f32> {
        (0..len).map(|_| (self.word() as f32 / 2f32.powi(30) - 1.0) * size).collect()
    }
}

/// Rounding to f16 and `relative` of the largest expected magnitude, no more; NaN is past every bound.
pub fn assert_close(found: &[f64], expected: &[f64], relative: f64, what: &str) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let largest = expected.iter().fold(0f64, |m, v| m.max(v.abs()));
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        let bound = expected.abs() * 0.501 / 1024.0 + largest * relative + 3e-8;
        let error = (found - expected).abs();
        assert!(error <= bound, "{what}: value {i} is {found}, expected {expected} within {bound:.2e}");
    }
}

pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|v| f64::from(*v)).collect()
}
