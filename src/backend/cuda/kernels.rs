//! The only launches of the project's own kernels: geometry and arguments as kernels/NAME.cu states them.
//!
//! Each function has its kernel's name. Addresses must hold what the kernel's header says; all sizes were
//! checked when the checkpoint was loaded (`shape`).

use std::ffi::c_void;

use half::f16;

use super::CudaError;
use super::device::Module;
use super::launcher::{Lane, Launcher};
use super::memory::At;
use super::sys::Raw;

/// The same in every LayerNorm of the model.
const EPSILON: f32 = 1e-5;
const THREADS: u32 = 128;
const WARP: usize = 32;
/// Values in 16 bytes.
const CHUNK: usize = 8;
/// Query rows of one warp, and most warps of a block, in the attention kernels.
const QUERIES: usize = 16;
const MOST_WARPS: usize = 8;
/// Head sizes the attention kernels are compiled for; a smaller head takes the next one.
pub(super) const HEADS: [usize; 5] = [32, 48, 64, 80, 96];

/// Functions of the loaded module.
pub(super) struct Kernels {
    patch_rows: Raw,
    embed: Raw,
    layer_norm: Raw,
    quick_gelu: Raw,
    attention: [Raw; HEADS.len()],
    patch_mean: Raw,
    add_positions: Raw,
    mit_pool: Raw,
    gather_text: Raw,
    prompt_attention: [Raw; HEADS.len()],
    prompt_logits: Raw,
    embed_tokens: Raw,
    gather_rows: Raw,
    scatter_rows: Raw,
    _module: Module,
}

impl Kernels {
    pub fn new(module: Module) -> Result<Self, CudaError> {
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
        Ok(Self {
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
            _module: module,
        })
    }
}

/// A kernel's argument: its bytes from the lowest on, as on every host that CUDA runs on.
#[derive(Clone, Copy)]
struct Argument(u64);

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
    ($($argument:expr),* $(,)?) => { [$(Argument::from($argument)),*] };
}

/// One attention's sizes.
#[derive(Clone, Copy)]
pub(super) struct Attention {
    pub items: usize,
    /// Rows of each item, or of the longest where `starts` are given.
    pub length: usize,
    pub heads: usize,
    /// Values per head.
    pub head: usize,
    pub causal: bool,
}

/// Keys and values beside an item's own rows.
#[derive(Clone, Copy)]
pub(super) struct MessageKeys {
    /// A row: D values of key, D of value.
    pub at: At<f16>,
    /// Values from one item's row to the next; 0: the same row for all.
    pub stride: usize,
}

/// Gain and bias of a LayerNorm in device memory.
#[derive(Clone, Copy)]
pub(super) struct NormAt {
    pub gain: At<f32>,
    pub bias: At<f32>,
    pub width: usize,
}

impl Launcher {
    fn launch_kernel(
        &self,
        lane: Lane,
        function: Raw,
        grid: [usize; 3],
        threads: u32,
        shared: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let [x, y, z] =
            grid.map(|n| u32::try_from(n).expect("sizes are bounded when a checkpoint is loaded"));
        let mut pointers = [std::ptr::null_mut::<c_void>(); 16];
        for (pointer, argument) in pointers.iter_mut().zip(arguments) {
            *pointer = (&raw const argument.0).cast_mut().cast();
        }
        let runtime = self.context.runtime;
        self.count_launch();
        // SAFETY: a function of the loaded module with the arguments of its source, which are copied before
        // the call returns; the addresses hold what it reads and writes (see above).
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
                self.stream(lane).raw,
                pointers.as_mut_ptr(),
                std::ptr::null_mut(),
            )
        };
        runtime.check("cuLaunchKernel", status)
    }

    /// One thread per `items`.
    fn per_thread(
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
    fn per_warp(
        &self,
        lane: Lane,
        function: Raw,
        rows: usize,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let blocks = rows.div_ceil(THREADS as usize / WARP);
        self.launch_kernel(lane, function, [blocks, 1, 1], THREADS, 0, arguments)
    }

    /// Pixels [F, S, S, 3] → patch rows [F, P, columns]; `scale` and `shift` per channel.
    #[allow(clippy::too_many_arguments)]
    pub fn patch_rows(
        &self,
        pixels: At<u8>,
        rows: At<f16>,
        scale: [f32; 3],
        shift: [f32; 3],
        frames: usize,
        size: usize,
        patch: usize,
        columns: usize,
    ) -> Result<(), CudaError> {
        let ([sr, sg, sb], [hr, hg, hb]) = (scale, shift);
        let arguments = arguments![pixels, rows, sr, sg, sb, hr, hg, hb, frames, size, patch, columns];
        let threads = frames * (size / patch).pow(2) * columns / CHUNK;
        self.per_thread(Lane::Main, self.kernels.patch_rows, threads, &arguments)
    }

    /// Embedded patches [F, P, D] → x [F, P+1, D].
    #[allow(clippy::too_many_arguments)]
    pub fn embed(
        &self,
        patches: At<f16>,
        class_row: At<f32>,
        positions: At<f32>,
        norm: NormAt,
        x: At<f16>,
        frames: usize,
        patches_per_frame: usize,
    ) -> Result<(), CudaError> {
        let NormAt { gain, bias, width } = norm;
        let arguments = arguments![
            patches,
            class_row,
            positions,
            gain,
            bias,
            x,
            frames,
            patches_per_frame,
            width,
            EPSILON
        ];
        self.per_warp(Lane::Main, self.kernels.embed, frames * (patches_per_frame + 1), &arguments)
    }

    /// Rows `stride` values apart → contiguous rows.
    pub fn layer_norm(
        &self,
        lane: Lane,
        x: At<f16>,
        stride: usize,
        out: At<f16>,
        norm: NormAt,
        rows: usize,
    ) -> Result<(), CudaError> {
        let NormAt { gain, bias, width } = norm;
        let arguments = arguments![x, out, gain, bias, rows, width, stride, EPSILON];
        self.per_warp(lane, self.kernels.layer_norm, rows, &arguments)
    }

    /// In place; the product before it has added its bias.
    pub fn quick_gelu(&self, x: At<f16>, rows: usize, width: usize) -> Result<(), CudaError> {
        let arguments = arguments![x, At::<f32>::NULL, rows, width];
        self.per_thread(Lane::Main, self.kernels.quick_gelu, rows * width / CHUNK, &arguments)
    }

    /// Rows of q, k, v → attended rows. `starts`: items + 1 row numbers, or null for items of equal length.
    #[allow(clippy::too_many_arguments)]
    pub fn attention(
        &self,
        lane: Lane,
        sizes: Attention,
        qkv: At<f16>,
        message: Option<MessageKeys>,
        out: At<f16>,
        starts: At<i32>,
    ) -> Result<(), CudaError> {
        let Attention { items, length, heads, head, causal } = sizes;
        let (which, shared) = fitting(head);
        let (at, stride) = message.map_or((At::NULL, 0), |message| (message.at, message.stride));
        let (tiles, warps) = query_tiles(length);
        let arguments =
            arguments![qkv, at, out, starts, items, length, heads, head, usize::from(causal), stride];
        let grid = [tiles, heads, items];
        self.launch_kernel(
            lane,
            self.kernels.attention[which],
            grid,
            (warps * WARP) as u32,
            shared,
            &arguments,
        )
    }

    /// x [N, T, L, D] → the mean over T of normalised patch rows, [N, P, D].
    pub fn patch_mean(
        &self,
        x: At<f16>,
        norm: NormAt,
        out: At<f16>,
        clips: usize,
        frames: usize,
        tokens: usize,
    ) -> Result<(), CudaError> {
        let NormAt { gain, bias, width } = norm;
        let arguments = arguments![x, gain, bias, out, clips, frames, tokens, width, EPSILON];
        let (grid, warps) = ([clips * (tokens - 1), 1, 1], frames.min(MOST_WARPS));
        let shared = warps * width * size_of::<f32>();
        let function = self.kernels.patch_mean;
        self.launch_kernel(Lane::Main, function, grid, (warps * WARP) as u32, shared, &arguments)
    }

    pub fn add_positions(
        &self,
        features: At<f16>,
        positions: At<f32>,
        out: At<f16>,
        clips: usize,
        frames: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![features, positions, out, clips, frames, width];
        self.per_thread(Lane::Main, self.kernels.add_positions, clips * frames * width / CHUNK, &arguments)
    }

    pub fn mit_pool(
        &self,
        hidden: At<f16>,
        features: At<f16>,
        video: At<f32>,
        clips: usize,
        frames: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![hidden, features, video, clips, frames, width];
        self.per_thread(Lane::Main, self.kernels.mit_pool, clips * width / CHUNK, &arguments)
    }

    pub fn gather_text(
        &self,
        table: At<f32>,
        index: At<i32>,
        out: At<f16>,
        rows: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![table, index, out, rows, width];
        self.per_thread(Lane::Main, self.kernels.gather_text, rows * width / CHUNK, &arguments)
    }

    /// `items` clips of `length` prompts each look at their `patches` keys.
    pub fn prompt_attention(
        &self,
        sizes: Attention,
        q: At<f16>,
        kv: At<f16>,
        out: At<f16>,
        patches: usize,
    ) -> Result<(), CudaError> {
        let Attention { items, length, heads, head, .. } = sizes;
        let (which, shared) = fitting(head);
        let (tiles, warps) = query_tiles(length);
        let arguments = arguments![q, kv, out, items, length, patches, heads, head];
        let (function, grid) = (self.kernels.prompt_attention[which], [tiles, heads, items]);
        self.launch_kernel(Lane::Main, function, grid, (warps * WARP) as u32, shared, &arguments)
    }

    #[allow(clippy::too_many_arguments)]
    pub fn prompt_logits(
        &self,
        table: At<f32>,
        index: At<i32>,
        prompted: At<f16>,
        alpha: At<f32>,
        video: At<f32>,
        scale: f32,
        logits: At<f32>,
        [clips, prompts, width]: [usize; 3],
    ) -> Result<(), CudaError> {
        let arguments =
            arguments![table, index, prompted, alpha, video, scale, logits, clips, prompts, width];
        self.per_warp(Lane::Main, self.kernels.prompt_logits, clips * prompts, &arguments)
    }

    #[allow(clippy::too_many_arguments)]
    pub fn embed_tokens(
        &self,
        ids: At<i32>,
        positions_of: At<i32>,
        tokens: At<f16>,
        positions: At<f32>,
        x: At<f16>,
        rows: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![ids, positions_of, tokens, positions, x, rows, width];
        self.per_thread(Lane::Main, self.kernels.embed_tokens, rows * width / CHUNK, &arguments)
    }

    /// out[i] = x[rows[i]]
    pub fn gather_rows(
        &self,
        x: At<f16>,
        rows: At<i32>,
        out: At<f16>,
        count: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![x, rows, out, count, width];
        self.per_thread(Lane::Main, self.kernels.gather_rows, count * width / CHUNK, &arguments)
    }

    /// out[rows[i]] = x[i]; −1 leaves x[i] out.
    pub fn scatter_rows(
        &self,
        x: At<f16>,
        rows: At<i32>,
        out: At<f16>,
        count: usize,
        width: usize,
    ) -> Result<(), CudaError> {
        let arguments = arguments![x, rows, out, count, width];
        self.per_thread(Lane::Main, self.kernels.scatter_rows, count * width / CHUNK, &arguments)
    }
}

/// Which of [`HEADS`] a head takes, and the bytes of shared memory of its blocks.
fn fitting(head: usize) -> (usize, usize) {
    let which = HEADS.iter().position(|size| *size >= head).expect("head sizes are checked at load");
    (which, 512 * HEADS[which])
}

/// Blocks over the queries of an item, and warps of each.
fn query_tiles(length: usize) -> (usize, usize) {
    let units = length.div_ceil(QUERIES);
    let tiles = units.div_ceil(MOST_WARPS);
    (tiles, units.div_ceil(tiles))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_tiles_cover_every_length_with_even_blocks() {
        for length in 1..=1025 {
            let (tiles, warps) = query_tiles(length);
            assert!((1..=MOST_WARPS).contains(&warps) && tiles * warps * QUERIES >= length, "{length}");
            assert!((tiles * warps).saturating_sub(length.div_ceil(QUERIES)) < tiles, "{length}");
        }
        assert_eq!(query_tiles(50), (1, 4));
        assert_eq!(query_tiles(197), (2, 7));
    }
}
