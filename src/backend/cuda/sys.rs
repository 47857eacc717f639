//! The C interface in use: the driver's and cuBLASLt's functions, loaded by name, and their constants.
//!
//! Not the tables of cudarc: it looks for `libcublasLt.so.12` or `.so.13`, as compiled, where one binary
//! serves both; a missing library or function panics; and a status code that is newer than its
//! enumerations is undefined behaviour. Here a status is a number.
//!
//! Sources: cuda.h and cublasLt.h, CUDA 12.0 (all of it unchanged in 13).

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::CudaError;
use super::library::Library;

/// A handle of the driver or of cuBLASLt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Raw(pub *mut c_void);

// SAFETY: handles are names of objects that driver and cuBLASLt guard by themselves; any thread may use them.
unsafe impl Send for Raw {}
// SAFETY: as above.
unsafe impl Sync for Raw {}

impl Raw {
    pub const NULL: Raw = Raw(std::ptr::null_mut());
}

/// A device address.
pub type Address = u64;
type Bytes = *const c_void;

macro_rules! functions {
    ($(#[$doc:meta])* $table:ident { $($name:ident: $symbol:literal($($argument:ty),*);)* }) => {
        $(#[$doc])*
        pub struct $table {
            $(pub $name: unsafe extern "C" fn($($argument),*) -> c_int,)*
        }

        impl $table {
            pub fn load(library: &Library) -> Result<Self, CudaError> {
                Ok(Self {
                    $(
                        // SAFETY: the type is the function's in the header.
                        $name: unsafe { library.function($symbol)? },
                    )*
                })
            }
        }
    };
}

functions! {
    /// libcuda.so.1; every function returns a CUresult.
    Driver {
        init: "cuInit"(c_uint);
        device_get_count: "cuDeviceGetCount"(*mut c_int);
        device_get: "cuDeviceGet"(*mut c_int, c_int);
        device_get_name: "cuDeviceGetName"(*mut c_char, c_int, c_int);
        device_get_attribute: "cuDeviceGetAttribute"(*mut c_int, c_int, c_int);
        device_total_mem: "cuDeviceTotalMem_v2"(*mut usize, c_int);
        primary_ctx_retain: "cuDevicePrimaryCtxRetain"(*mut Raw, c_int);
        ctx_set_current: "cuCtxSetCurrent"(Raw);
        ctx_push_current: "cuCtxPushCurrent_v2"(Raw);
        ctx_pop_current: "cuCtxPopCurrent_v2"(*mut Raw);
        mem_get_info: "cuMemGetInfo_v2"(*mut usize, *mut usize);
        mem_alloc: "cuMemAlloc_v2"(*mut Address, usize);
        mem_free: "cuMemFree_v2"(Address);
        mem_host_alloc: "cuMemHostAlloc"(*mut *mut c_void, usize, c_uint);
        mem_free_host: "cuMemFreeHost"(*mut c_void);
        memcpy_to_device: "cuMemcpyHtoDAsync_v2"(Address, Bytes, usize, Raw);
        memcpy_to_host: "cuMemcpyDtoHAsync_v2"(*mut c_void, Address, usize, Raw);
        memcpy_on_device: "cuMemcpyDtoDAsync_v2"(Address, Address, usize, Raw);
        memset: "cuMemsetD8Async"(Address, u8, usize, Raw);
        stream_create: "cuStreamCreate"(*mut Raw, c_uint);
        stream_destroy: "cuStreamDestroy_v2"(Raw);
        stream_synchronize: "cuStreamSynchronize"(Raw);
        stream_wait_event: "cuStreamWaitEvent"(Raw, Raw, c_uint);
        stream_begin_capture: "cuStreamBeginCapture_v2"(Raw, c_int);
        stream_end_capture: "cuStreamEndCapture"(Raw, *mut Raw);
        event_create: "cuEventCreate"(*mut Raw, c_uint);
        event_destroy: "cuEventDestroy_v2"(Raw);
        event_record: "cuEventRecord"(Raw, Raw);
        event_synchronize: "cuEventSynchronize"(Raw);
        event_elapsed_time: "cuEventElapsedTime"(*mut f32, Raw, Raw);
        module_load_data: "cuModuleLoadData"(*mut Raw, Bytes);
        module_unload: "cuModuleUnload"(Raw);
        module_get_function: "cuModuleGetFunction"(*mut Raw, Raw, *const c_char);
        launch_kernel: "cuLaunchKernel"(
            Raw, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, c_uint, Raw, *mut *mut c_void, *mut *mut c_void
        );
        graph_instantiate: "cuGraphInstantiateWithFlags"(*mut Raw, Raw, u64);
        graph_launch: "cuGraphLaunch"(Raw, Raw);
        graph_destroy: "cuGraphDestroy"(Raw);
        graph_exec_destroy: "cuGraphExecDestroy"(Raw);
        get_error_name: "cuGetErrorName"(c_int, *mut *const c_char);
        get_error_string: "cuGetErrorString"(c_int, *mut *const c_char);
    }
}

functions! {
    /// libcublasLt.so; every function returns a cublasStatus_t.
    BlasLt {
        create: "cublasLtCreate"(*mut Raw);
        destroy: "cublasLtDestroy"(Raw);
        desc_create: "cublasLtMatmulDescCreate"(*mut Raw, c_int, c_int);
        desc_destroy: "cublasLtMatmulDescDestroy"(Raw);
        desc_set: "cublasLtMatmulDescSetAttribute"(Raw, c_int, *const c_void, usize);
        layout_create: "cublasLtMatrixLayoutCreate"(*mut Raw, c_int, u64, u64, i64);
        layout_destroy: "cublasLtMatrixLayoutDestroy"(Raw);
        preference_create: "cublasLtMatmulPreferenceCreate"(*mut Raw);
        preference_destroy: "cublasLtMatmulPreferenceDestroy"(Raw);
        preference_set: "cublasLtMatmulPreferenceSetAttribute"(Raw, c_int, *const c_void, usize);
        heuristic: "cublasLtMatmulAlgoGetHeuristic"(
            Raw, Raw, Raw, Raw, Raw, Raw, Raw, c_int, *mut Heuristic, *mut c_int
        );
        matmul: "cublasLtMatmul"(
            Raw, Raw, *const c_void, Address, Raw, Address, Raw, *const c_void, Address, Raw, Address, Raw,
            *const Algorithm, Address, usize, Raw
        );
    }
}

/// cublasLtMatmulAlgo_t: opaque.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Algorithm([u64; 8]);

/// cublasLtMatmulHeuristicResult_t
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub struct Heuristic {
    pub algorithm: Algorithm,
    pub workspace: usize,
    pub state: c_int,
    pub waves: f32,
    pub reserved: [c_int; 4],
}

// CUresult
pub const OUT_OF_MEMORY: c_int = 2;
pub const STUB_LIBRARY: c_int = 34;
pub const DEVICE_UNAVAILABLE: c_int = 46;
pub const NO_DEVICE: c_int = 100;
pub const SYSTEM_NOT_READY: c_int = 802;
pub const SYSTEM_DRIVER_MISMATCH: c_int = 803;
pub const COMPAT_NOT_SUPPORTED: c_int = 804;
/// This one to MPS_MAX_CONNECTIONS: the MPS server is not there, not ready, or full.
pub const MPS_CONNECTION_FAILED: c_int = 805;
pub const MPS_MAX_CONNECTIONS: c_int = 809;
pub const UNKNOWN: c_int = 999;
/// After these the context is gone: ECC, NVLink, contained, illegal address, launch timeout, destroyed
/// context, assert, hardware stack, instruction, alignment, address space, program counter, launch
/// failure, the MPS server's call failed, client ended by the MPS server, unknown.
pub const LOST: [c_int; 16] =
    [214, 220, 226, 700, 702, 709, 710, 714, 715, 716, 717, 718, 719, 806, 810, 999];

/// Code that the driver cannot load on this device: invalid image, no binary for the GPU, invalid PTX, unsupported
/// PTX version, no JIT compiler, JIT compilation disabled, invalid source.
pub const UNFIT_IMAGE: [c_int; 7] = [200, 209, 218, 221, 222, 223, 300];

// CUdevice_attribute
pub const MULTIPROCESSORS: c_int = 16;
pub const L2_BYTES: c_int = 38;
pub const CAPABILITY_MAJOR: c_int = 75;
pub const CAPABILITY_MINOR: c_int = 76;

/// CU_STREAM_NON_BLOCKING
pub const NON_BLOCKING: c_uint = 1;
/// CU_EVENT_DEFAULT: with a time.
pub const TIMED: c_uint = 0;
/// CU_EVENT_DISABLE_TIMING
pub const UNTIMED: c_uint = 2;
/// CU_STREAM_CAPTURE_MODE_THREAD_LOCAL: other threads of the process may allocate meanwhile.
pub const THREAD_LOCAL: c_int = 1;

// cudaDataType_t, cublasComputeType_t, cublasOperation_t
pub const TYPE_F32: c_int = 0;
pub const TYPE_F16: c_int = 2;
pub const COMPUTE_F32: c_int = 68;
pub const TRANSPOSED: c_int = 1;
pub const AS_IS: c_int = 0;

// cublasLtMatmulDescAttributes_t, cublasLtEpilogue_t
pub const DESC_OP_A: c_int = 3;
pub const DESC_OP_B: c_int = 4;
pub const DESC_EPILOGUE: c_int = 7;
pub const DESC_BIAS: c_int = 8;
pub const EPILOGUE_BIAS: c_int = 4;

// cublasLtMatmulPreferenceAttributes_t
pub const PREFERENCE_WORKSPACE: c_int = 1;
/// A mask of cublasLtReductionScheme_t.
pub const PREFERENCE_REDUCTION: c_int = 3;
/// Of A, B, C, D: this and the three after it.
pub const PREFERENCE_ALIGNMENT_A: c_int = 5;
/// CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE; no reduction at all is always allowed.
pub const REDUCE_IN_COMPUTE_TYPE: u32 = 2;

// cublasStatus_t
pub const BLAS_ALLOC_FAILED: c_int = 3;
