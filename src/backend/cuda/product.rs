//! Products through cuBLASLt: y = x·Wᵀ (+ bias) (+ y), f16 in, sums in f32.
//!
//! Row-major here is column-major there with rows and columns swapped, so W is the first factor,
//! transposed, and the bias runs along its rows. The library's heuristic picks an algorithm once per shape; where
//! it splits a sum over the blocks, the parts come together in f32 too.

use std::collections::HashMap;
use std::ffi::{c_int, c_void};
use std::sync::Arc;

use half::f16;

use super::CudaError;
use super::device::Context;
use super::launcher::{Lane, Launcher};
use super::memory::{At, Buffer, Plain};
use super::sys::{self, BlasLt, Heuristic, Raw};

/// Working memory of each stream's products; what NVIDIA recommends for Hopper.
const WORKSPACE: usize = 32 << 20;
/// Alignments that algorithms ask for, at most.
const MOST_ALIGNED: u32 = 256;

/// W [outs, ins] and its bias, in device memory.
#[derive(Clone, Copy)]
pub(super) struct LayerAt {
    pub weight: At<f16>,
    pub bias: Option<At<f16>>,
    pub ins: usize,
    pub outs: usize,
}

/// What a product may be written as.
pub(super) trait Output: Plain {
    const TYPE: c_int;
}

impl Output for f16 {
    const TYPE: c_int = sys::TYPE_F16;
}

impl Output for f32 {
    const TYPE: c_int = sys::TYPE_F32;
}

/// What happens to what is in the output already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Into {
    Replace,
    AddTo,
}

/// What an algorithm depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Shape {
    rows: usize,
    ins: usize,
    outs: usize,
    stride: usize,
    output: c_int,
    /// Of W, x and y in bytes.
    aligned: [u32; 3],
    /// Of the bias, which the heuristic sees through the descriptor.
    bias_aligned: Option<u32>,
}

struct Plan {
    desc: Raw,
    weight: Raw,
    x: Raw,
    y: Raw,
    algorithm: sys::Algorithm,
}

pub(super) struct Products {
    handle: Raw,
    plans: HashMap<Shape, Plan>,
    workspaces: [Buffer<u8>; 2],
    context: Arc<Context>,
}

impl Products {
    pub fn new(context: &Arc<Context>) -> Result<Self, CudaError> {
        let workspace = || Buffer::new(context, "working memory of products", WORKSPACE);
        let workspaces = [workspace()?, workspace()?];
        let mut handle = Raw::NULL;
        // SAFETY: writes one handle; the context is current.
        check("cublasLtCreate", unsafe { (context.runtime.blas.create)(&mut handle) }, None)?;
        Ok(Self { handle, plans: HashMap::new(), workspaces, context: context.clone() })
    }

    fn blas(&self) -> &'static BlasLt {
        &self.context.runtime.blas
    }

    fn plan(&mut self, shape: Shape, bias: Option<At<f16>>) -> Result<(), CudaError> {
        if self.plans.contains_key(&shape) {
            return Ok(());
        }
        let mut plan = Plan {
            desc: Raw::NULL,
            weight: Raw::NULL,
            x: Raw::NULL,
            y: Raw::NULL,
            algorithm: sys::Algorithm::default(),
        };
        let made = make(self.blas(), self.handle, &shape, bias, &mut plan);
        if let Err(error) = made {
            release(self.blas(), &plan);
            return Err(error);
        }
        self.plans.insert(shape, plan);
        Ok(())
    }
}

fn check(call: &'static str, status: c_int, shape: Option<&Shape>) -> Result<(), CudaError> {
    match status {
        0 => return Ok(()),
        sys::BLAS_ALLOC_FAILED => return Err(CudaError::NoMemory { call }),
        _ => {}
    }
    let shape = shape.map_or(String::new(), |s| format!(" for {}×{} · {}×{}", s.rows, s.ins, s.ins, s.outs));
    Err(CudaError::Product { call, status, shape })
}

fn make(
    blas: &BlasLt,
    handle: Raw,
    shape: &Shape,
    bias: Option<At<f16>>,
    plan: &mut Plan,
) -> Result<(), CudaError> {
    let check = |call, status| check(call, status, Some(shape));
    // SAFETY: writes one handle.
    let status = unsafe { (blas.desc_create)(&mut plan.desc, sys::COMPUTE_F32, sys::TYPE_F32) };
    check("cublasLtMatmulDescCreate", status)?;
    let set = |attribute: c_int, value: c_int| {
        // SAFETY: a descriptor, and a value of the attribute's four bytes.
        let status =
            unsafe { (blas.desc_set)(plan.desc, attribute, (&raw const value).cast(), size_of::<c_int>()) };
        check("cublasLtMatmulDescSetAttribute", status)
    };
    set(sys::DESC_OP_A, sys::TRANSPOSED)?;
    set(sys::DESC_OP_B, sys::AS_IS)?;
    if let Some(bias) = bias {
        set(sys::DESC_EPILOGUE, sys::EPILOGUE_BIAS)?;
        set_bias(blas, plan.desc, bias, shape)?;
    }
    let layout = |to: &mut Raw, kind: c_int, rows: usize, columns: usize, stride: usize| {
        // SAFETY: writes one handle.
        let status = unsafe { (blas.layout_create)(to, kind, rows as u64, columns as u64, stride as i64) };
        check("cublasLtMatrixLayoutCreate", status)
    };
    layout(&mut plan.weight, sys::TYPE_F16, shape.ins, shape.outs, shape.ins)?;
    layout(&mut plan.x, sys::TYPE_F16, shape.ins, shape.rows, shape.stride)?;
    layout(&mut plan.y, shape.output, shape.outs, shape.rows, shape.outs)?;

    let mut preference = Raw::NULL;
    // SAFETY: writes one handle.
    check("cublasLtMatmulPreferenceCreate", unsafe { (blas.preference_create)(&mut preference) })?;
    let chosen = choose(blas, handle, shape, plan, preference);
    // SAFETY: created above.
    unsafe { (blas.preference_destroy)(preference) };
    plan.algorithm = chosen?;
    Ok(())
}

fn choose(
    blas: &BlasLt,
    handle: Raw,
    shape: &Shape,
    plan: &Plan,
    preference: Raw,
) -> Result<sys::Algorithm, CudaError> {
    let check = |call, status| check(call, status, Some(shape));
    let set = |attribute: c_int, value: *const c_void, bytes: usize| {
        // SAFETY: a preference, and a value of `bytes` bytes.
        check("cublasLtMatmulPreferenceSetAttribute", unsafe {
            (blas.preference_set)(preference, attribute, value, bytes)
        })
    };
    let workspace = WORKSPACE as u64;
    set(sys::PREFERENCE_WORKSPACE, (&raw const workspace).cast(), size_of::<u64>())?;
    // Otherwise parts of an f16 row may be summed as f16.
    let reduction = sys::REDUCE_IN_COMPUTE_TYPE;
    set(sys::PREFERENCE_REDUCTION, (&raw const reduction).cast(), size_of::<u32>())?;
    let [weight, x, y] = shape.aligned;
    for (i, bytes) in [weight, x, y, y].into_iter().enumerate() {
        let attribute = sys::PREFERENCE_ALIGNMENT_A + i as c_int;
        set(attribute, (&raw const bytes).cast(), size_of::<u32>())?;
    }
    let (mut best, mut found) = (Heuristic::default(), 0);
    // SAFETY: live descriptors; writes at most one result and one number.
    let status = unsafe {
        (blas.heuristic)(
            handle,
            plan.desc,
            plan.weight,
            plan.x,
            plan.y,
            plan.y,
            preference,
            1,
            &mut best,
            &mut found,
        )
    };
    check("cublasLtMatmulAlgoGetHeuristic", status)?;
    if found == 0 || best.state != 0 {
        check("cublasLtMatmulAlgoGetHeuristic (no algorithm)", best.state.max(1))?;
    }
    Ok(best.algorithm)
}

fn set_bias(blas: &BlasLt, desc: Raw, bias: At<f16>, shape: &Shape) -> Result<(), CudaError> {
    // SAFETY: a descriptor, and a device address of the attribute's eight bytes.
    let status =
        unsafe { (blas.desc_set)(desc, sys::DESC_BIAS, (&raw const bias.0).cast(), size_of::<u64>()) };
    check("cublasLtMatmulDescSetAttribute", status, Some(shape))
}

fn release(blas: &BlasLt, plan: &Plan) {
    for layout in [plan.weight, plan.x, plan.y] {
        if layout != Raw::NULL {
            // SAFETY: created once, destroyed once.
            unsafe { (blas.layout_destroy)(layout) };
        }
    }
    if plan.desc != Raw::NULL {
        // SAFETY: as above.
        unsafe { (blas.desc_destroy)(plan.desc) };
    }
}

impl Drop for Products {
    fn drop(&mut self) {
        let _visit = self.context.visit();
        self.plans.values().for_each(|plan| release(self.blas(), plan));
        // SAFETY: created once, destroyed once; the launcher has finished its work.
        unsafe { (self.blas().destroy)(self.handle) };
    }
}

fn alignment(address: sys::Address) -> u32 {
    (1u32 << address.trailing_zeros().min(31)).min(MOST_ALIGNED)
}

impl Launcher {
    /// `rows` rows of x, `stride` values apart → rows of `layer.outs` values, contiguous.
    #[allow(clippy::too_many_arguments)]
    pub fn product<O: Output>(
        &self,
        lane: Lane,
        x: At<f16>,
        stride: usize,
        rows: usize,
        layer: LayerAt,
        out: At<O>,
        into: Into,
    ) -> Result<(), CudaError> {
        let shape = Shape {
            rows,
            ins: layer.ins,
            outs: layer.outs,
            stride,
            output: O::TYPE,
            aligned: [layer.weight.0, x.0, out.0].map(alignment),
            bias_aligned: layer.bias.map(|bias| alignment(bias.0)),
        };
        let mut products = self.products.borrow_mut();
        products.plan(shape, layer.bias)?;
        let (blas, plan) = (products.blas(), &products.plans[&shape]);
        if let Some(bias) = layer.bias {
            set_bias(blas, plan.desc, bias, &shape)?;
        }
        let (one, beta) = (1f32, if into == Into::AddTo { 1f32 } else { 0.0 });
        let workspace = &products.workspaces[lane as usize];
        self.count_launch();
        // SAFETY: the factors are numbers on the host; the addresses hold what the layouts say, and each
        // stream has its own working memory.
        let status = unsafe {
            (blas.matmul)(
                products.handle,
                plan.desc,
                (&raw const one).cast(),
                layer.weight.0,
                plan.weight,
                x.0,
                plan.x,
                (&raw const beta).cast(),
                out.0,
                plan.y,
                out.0,
                plan.y,
                &plan.algorithm,
                workspace.at().0,
                WORKSPACE,
                self.stream(lane).raw,
            )
        };
        if status != 0 && !self.is_capturing() {
            // Where the device is lost, the driver says so; cuBLASLt only that it failed.
            self.settle()?;
        }
        check("cublasLtMatmul", status, Some(&shape))
    }
}
