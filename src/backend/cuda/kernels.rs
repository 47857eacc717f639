//! The only launches of the project's own kernels: geometry and arguments as kernels/NAME.cu states them.
//!
//! Each function has its kernel's name. Addresses must hold what the kernel's header says; all sizes were
//! checked when the checkpoint was loaded (`shape`).

use half::f16;

use super::CudaError;
use super::device::Stream;
use super::functions::{Argument, HEADS, Kernels, WARP, arguments};
use super::launcher::{Lane, Launcher};
use super::memory::At;
use super::product::{Into, LayerAt};
use super::sys::Raw;

/// The same in every LayerNorm of the model.
const EPSILON: f32 = 1e-5;
/// Values in 16 bytes.
const CHUNK: usize = 8;
/// Query rows of one warp, and most warps of a block, in the attention kernels.
const QUERIES: usize = 16;
const MOST_WARPS: usize = 8;
/// Bytes of shared memory for each value of a head, in the attention kernels.
const SHARED_PER_VALUE: usize = 512;
/// Rows that few_rows_product takes.
const FEW_ROWS: usize = 32;
/// Columns of one of its blocks, and the block's threads.
const FEW_ROWS_COLUMNS: usize = 8;
const FEW_ROWS_THREADS: u32 = 256;
/// Pixels of a block of the preprocessing kernels, one a thread.
const PICTURE_TILE: [usize; 2] = [32, 8];

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

/// A picture in device memory; strides in bytes.
#[derive(Clone, Copy)]
pub(super) enum PlanesAt {
    Nv12 {
        planes: [At<u8>; 2],
        strides: [usize; 2],
    },
    I420 {
        planes: [At<u8>; 3],
        strides: [usize; 3],
    },
    /// `step` bytes a pixel, of which `order` says where red, green and blue are.
    Rgb {
        plane: At<u8>,
        stride: usize,
        step: usize,
        order: [usize; 3],
    },
}

/// What happens to rows on their way through one layer.
#[derive(Clone, Copy)]
pub(super) struct Step {
    pub norm: Option<NormAt>,
    pub layer: LayerAt,
    pub quick_gelu: bool,
    pub into: Into,
}

impl Step {
    pub fn new(norm: Option<NormAt>, layer: LayerAt, into: Into) -> Self {
        Self { norm, layer, quick_gelu: false, into }
    }
}

impl Launcher {
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

    /// Rows of x, `stride` values apart → `out`, contiguous, which is not x: LayerNorm, product, QuickGELU as
    /// `step` says. Few rows take one launch; others pass through `narrow`, which may be null without a norm.
    #[allow(clippy::too_many_arguments)]
    pub fn layer(
        &self,
        lane: Lane,
        x: At<f16>,
        stride: usize,
        rows: usize,
        step: Step,
        narrow: At<f16>,
        out: At<f16>,
    ) -> Result<(), CudaError> {
        let Step { norm, layer, quick_gelu, into } = step;
        if rows <= FEW_ROWS {
            return self.few_rows_product(lane, x, stride, rows, step, out);
        }
        let (x, stride) = match norm {
            Some(norm) => {
                self.layer_norm(lane, x, stride, narrow, norm, rows)?;
                (narrow, norm.width)
            }
            None => (x, stride),
        };
        self.product(lane, x, stride, rows, layer, out, into)?;
        if quick_gelu { self.quick_gelu(lane, out, rows, layer.outs) } else { Ok(()) }
    }

    fn few_rows_product(
        &self,
        lane: Lane,
        x: At<f16>,
        stride: usize,
        rows: usize,
        step: Step,
        out: At<f16>,
    ) -> Result<(), CudaError> {
        let LayerAt { weight, bias, ins, outs } = step.layer;
        let (gain, shift) = step.norm.map_or((At::NULL, At::NULL), |norm| (norm.gain, norm.bias));
        let (bias, gelu) = (bias.unwrap_or(At::NULL), usize::from(step.quick_gelu));
        let add = usize::from(step.into == Into::AddTo);
        let arguments =
            arguments![x, stride, gain, shift, weight, bias, out, rows, ins, outs, gelu, add, EPSILON];
        let grid = [outs / FEW_ROWS_COLUMNS, 1, 1];
        self.launch_kernel(lane, self.kernels.few_rows_product, grid, FEW_ROWS_THREADS, 0, &arguments)
    }

    /// In place; the product before it has added its bias. Not with `Into::AddTo`: what was there would pass
    /// the activation too.
    fn quick_gelu(&self, lane: Lane, x: At<f16>, rows: usize, width: usize) -> Result<(), CudaError> {
        let arguments = arguments![x, rows, width];
        self.per_thread(lane, self.kernels.quick_gelu, rows * width / CHUNK, &arguments)
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
        let (at, stride) = message.map_or((At::NULL, 0), |message| (message.at, message.stride));
        let arguments =
            arguments![qkv, at, out, starts, items, length, heads, head, usize::from(causal), stride];
        self.per_query_tile(lane, &self.kernels.attention, sizes, &arguments)
    }

    /// x [N, T, L, D] → the mean over T of normalised patch rows, [N, P, D].
    #[allow(clippy::too_many_arguments)]
    pub fn patch_mean(
        &self,
        lane: Lane,
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
        self.launch_kernel(lane, function, grid, (warps * WARP) as u32, shared, &arguments)
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
        let arguments = arguments![q, kv, out, items, length, patches, heads, head];
        self.per_query_tile(Lane::Main, &self.kernels.prompt_attention, sizes, &arguments)
    }

    /// One of the attention kernels, by its head size: a block per item, head and tile of its queries.
    fn per_query_tile(
        &self,
        lane: Lane,
        family: &[Raw; HEADS.len()],
        sizes: Attention,
        arguments: &[Argument],
    ) -> Result<(), CudaError> {
        let which =
            HEADS.iter().position(|size| *size >= sizes.head).expect("head sizes are checked at load");
        let (tiles, warps) = query_tiles(sizes.length);
        let (grid, threads) = ([tiles, sizes.heads, sizes.items], (warps * WARP) as u32);
        self.launch_kernel(lane, family[which], grid, threads, SHARED_PER_VALUE * HEADS[which], arguments)
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

    /// `out[i] = x[rows[i]]`
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

    /// `out[rows[i]] = x[i]`; −1 leaves `x[i]` out.
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

/// A picture's planes → patch rows [P, columns]. `plan`: the words of preprocess::device::DevicePlan. Not
/// through a launcher: pictures come from other threads, beside its work.
pub(super) fn preprocess(
    stream: &Stream,
    kernels: &Kernels,
    planes: PlanesAt,
    plan: At<u32>,
    size: usize,
    rows: At<f16>,
) -> Result<(), CudaError> {
    let levels = At::<u8>::NULL;
    let [width, height] = PICTURE_TILE;
    let (grid, threads) = ([size.div_ceil(width), size.div_ceil(height), 1], (width * height) as u32);
    let launch = |function, arguments: &[_]| stream.launch_kernel(function, grid, threads, 0, arguments);
    match planes {
        PlanesAt::Nv12 { planes: [y, c], strides: [ys, cs] } => {
            launch(kernels.preprocess_nv12, &arguments![y, c, ys, cs, plan, levels, rows])
        }
        PlanesAt::I420 { planes: [y, u, v], strides: [ys, us, vs] } => {
            launch(kernels.preprocess_i420, &arguments![y, u, v, ys, us, vs, plan, levels, rows])
        }
        PlanesAt::Rgb { plane, stride, step, order: [r, g, b] } => {
            launch(kernels.preprocess_rgb, &arguments![plane, stride, step, r, g, b, plan, levels, rows])
        }
    }
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
