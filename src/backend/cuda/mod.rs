//! The CUDA backend: the whole model in f16 on an NVIDIA GPU, Ampere or newer.
//!
//! Built without CUDA; driver and cuBLASLt are opened at run time (`library`), after which [`probe`]
//! tells in one message what is missing. Weights are uploaded once; buffers are allocated once; a picture
//! is uploaded once, by the thread that has it, and reduced to patch rows (`reduce`, `arrivals`); a frame
//! is prepared once (`prepare`), and its state stays on the device (`ring`). A batch is one graph launch
//! for `encode` and one for `compare`, captured per size (`graphs`): products by cuBLASLt (`product`),
//! all else by the kernels of kernels/ (`kernels`), which also do the layers of a few rows in one launch
//! each. Messages run on a second stream inside the graph (`vision`). Large batches pass the blocks in
//! parts whose rows stay in the L2 cache (`shape`).
//!
//! What is one launch and what is not:
//! - A product adds its bias (cuBLASLt's epilogue) and, where it ends a residual branch, what its output holds already
//!   (beta = 1): the sum costs no memory pass of its own. LayerNorm reads whole rows, which no product's tile
//!   holds, so it is a kernel between them.
//! - The message path is four products for few rows and one attention kernel, small launches in a captured graph, and
//!   not one cooperative kernel: that needs all its blocks on the device at once at every grid barrier, which cannot be
//!   relied on beside the main lane's products. What the gaps between the five cost has not been measured yet.
//!
//! f16 storage, f32 sums. What is folded at load: the queries' scale into their weights, block 0's constant
//! message into one key and value. Exact reuse between windows as on the CPU: block 0. Block 1's own
//! queries, keys and values are not kept: four times the memory per frame for 2 % of a window, and they
//! belong behind the seam that an engine replaces (`frame_block`).
//!
//! Source of the mathematics: `modeling_x_clip.py` of transformers; every stage is held against its golden
//! vectors (`tests/golden`).

mod arrivals;
mod backend;
mod block;
mod cards;
mod compare;
mod constant;
mod device;
mod driver;
mod error;
mod frame_block;
mod functions;
mod graphs;
mod head;
mod images;
mod kernels;
mod labels;
mod launcher;
mod library;
mod memory;
mod prepare;
mod product;
mod prompts;
mod reduce;
mod release;
mod ring;
mod roof;
mod runtime;
mod shape;
mod sys;
mod text;
mod trace;
mod vision;
mod weights;
mod work;

pub use self::backend::{CudaBackend, Placement};
pub use self::driver::{Gpu, count, look};
pub use self::error::CudaError;
pub use self::graphs::Times;
pub use self::library::{FOLDERS_VARIABLE, set_library_folder};
pub use self::reduce::{CudaReducer, ReduceTimes};
pub use self::roof::Roof;
pub use self::runtime::{Blas, blas, probe};
pub use super::source::Source;
