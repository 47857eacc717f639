//! The kernels' functions in the loaded module, and how one is launched.

use std::ffi::c_void;
use std::sync::Arc;

use super::CudaError;
use super::device::{Context, Module, Stream};
use super::images::Image;
use super::launcher::{Lane, Launcher};
use super::memory::At;
use super::sys::Raw;

pub(super) const WARP: usize = 32;
/// Threads of a block where its kernel leaves the choice.
const THREADS: u32 = 128;
/// Arguments of one kernel, at most.
const MOST_ARGUMENTS: usize = 16;
/// Head sizes the attention kernels are compiled for; a smaller head takes the next one.
pub(super) const HEADS: [usize; 5] = [32, 48, 64, 80, 96];

/// Functions of the loaded module.
pub(super) struct Kernels {
    pub patch_rows: Raw,
    pub embed: Raw,
    pub layer_norm: Raw,
    pub quick_gelu: Raw,
    pub attention: [Raw; HEADS.len()],
    pub patch_mean: Raw,
    pub add_positions: Raw,
    pub mit_pool: Raw,
    pub gather_text: Raw,
    pub prompt_attention: [Raw; HEADS.len()],
    pub prompt_logits: Raw,
    pub embed_tokens: Raw,
    pub gather_rows: Raw,
    pub scatter_rows: Raw,
    pub few_rows_product: Raw,
    pub preprocess_nv12: Raw,
    pub preprocess_i420: Raw,
    pub preprocess_rgb: Raw,
    module: Module,
}

impl Kernels {
    /// The embedded code for the context's GPU.
    pub fn load(context: &Arc<Context>) -> Result<Arc<Self>, CudaError> {
        let image = Image::of(context.gpu.capability).expect("the probe found one");
        let module = match Module::load(context, image) {
            // A chip may be of a capability whose machine code it does not take: Tegra's are not promised to run
            // what is made for cards (8.7 and sm_86).
            Err(refused @ CudaError::Kernels { .. }) if !image.is_ptx() => {
                tracing::info!("the driver compiles the kernels, which takes a while: {refused}");
                Module::load(context, Image::ptx()).map_err(|error| match error {
                    CudaError::Kernels { .. } => refused,
                    other => other,
                })?
            }
            loaded => loaded?,
        };
        let attention = [c"attention_32", c"attention_48", c"attention_64", c"attention_80", c"attention_96"];
        let prompt_attention = [
            c"prompt_attention_32",
            c"prompt_attention_48",
            c"prompt_attention_64",
            c"prompt_attention_80",
            c"prompt_attention_96",
        ];
        let family = |names: [&'static std::ffi::CStr; HEADS.len()]| {
            let mut functions = [Raw::NULL; HEADS.len()];
            for (function, name) in functions.iter_mut().zip(names) {
                *function = module.function(name)?;
            }
            Ok::<_, CudaError>(functions)
        };
        Ok(Arc::new(Self {
            patch_rows: module.function(c"patch_rows")?,
            embed: module.function(c"embed")?,
            layer_norm: module.function(c"layer_norm")?,
            quick_gelu: module.function(c"quick_gelu")?,
            attention: family(attention)?,
            patch_mean: module.function(c"patch_mean")?,
            add_positions: module.function(c"add_positions")?,
            mit_pool: module.function(c"mit_pool")?,
            gather_text: module.function(c"gather_text")?,
            prompt_attention: family(prompt_attention)?,
            prompt_logits: module.function(c"prompt_logits")?,
            embed_tokens: module.function(c"embed_tokens")?,
            gather_rows: module.function(c"gather_rows")?,
            scatter_rows: module.function(c"scatter_rows")?,
            few_rows_product: module.function(c"few_rows_product")?,
            preprocess_nv12: module.function(c"preprocess_nv12")?,
            preprocess_i420: module.function(c"preprocess_i420")?,
            preprocess_rgb: module.function(c"preprocess_rgb")?,
            module,
        }))
    }

    /// The loaded image's: `sm_90` or `compute_80`.
    pub fn target(&self) -> &'static str {
        self.module.target
    }
}

/// A kernel's argument: its bytes from the lowest on, as on every host that CUDA runs on.
#[derive(Clone, Copy)]
pub(super) struct Argument(u64);

impl<T> From<At<T>> for Argument {
    fn from(at: At<T>) -> Self {
        Argument(at.0)
    }
}

impl From<f32> for Argument {
    fn from(value: f32) -> Self {
        Argument(value.to_bits().into())
    }
}

impl From<usize> for Argument {
    fn from(value: usize) -> Self {
        Argument(
            i32::try_from(value)
                .expect("sizes are bounded when a checkpoint is loaded")
                .cast_unsigned()
                .into(),
        )
    }
}

macro_rules! arguments {
    ($($argument:expr),* $(,)?) => { [$($crate::backend::cuda::functions::Argument::from($argument)),*] };
}
pub(super) use arguments;

impl Stream {
    pub(super) fn launch_kernel(
        &self,
        function: Raw,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let [x, y, z] =
            grid.map(|n| u32::try_from(n).expect("sizes are bounded when a checkpoint is loaded"));
        let mut pointers = [std::ptr::null_mut::<c_void>(); MOST_ARGUMENTS];
        assert!(arguments.len() <= MOST_ARGUMENTS, "a kernel with {} arguments", arguments.len());
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = (&raw const argument.0).cast_mut().cast();
        }
        let runtime = self.context.runtime;
        // SAFETY: a function of the loaded module with the arguments of its source, which are copied before
        // the call returns; the callers' buffers hold what it reads and writes, until the stream has done it.
        let status = unsafe {
            (runtime.driver.launch_kernel)(
                function,
                x,
                y,
                z,
                threads,
                1,
                1,
                shared as u32,
                self.raw,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        runtime.check("cuLaunchKernel", status)
    }
}

impl Launcher {
    pub(super) fn launch_kernel(
        &self,
        lane: Lane,
        function: Raw,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        self.count_launch();
        self.stream(lane).launch_kernel(function, grid, threads, shared, arguments)
    }

    /// One thread per `items`.
    pub(super) fn per_thread(
        &self,
        lane: Lane,
        function: Raw,
        items: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let blocks = items.div_ceil(THREADS as usize);
        self.launch_kernel(lane, function, [blocks, 1, 1], THREADS, 0, arguments)
    }

    /// One warp per row.
    pub(super) fn per_warp(
        &self,
        lane: Lane,
        function: Raw,
        rows: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let blocks = rows.div_ceil(THREADS as usize / WARP);
        self.launch_kernel(lane, function, [blocks, 1, 1], THREADS, 0, arguments)
    }
}
