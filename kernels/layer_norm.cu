// out = (x − mean)/√(variance + eps)·gain + bias over each row of `width`, biased variance.
//
// x [rows at x + r·x_stride, width] f16, out [rows, width] f16, gain and bias [width] f32; width and x_stride
// are multiples of 8, width at most 1280. x_stride > width reads class rows out of frames.
// Launch: one warp per row; any multiple of 32 threads per block (128 intended), blocks so that warps ≥ rows.
// Reference: src/backend/cpu/layer_norm.rs. Tolerance: half a unit of the last f16 place, and 2^-20 relative.
// Bound: memory; x is read once, 16 bytes a lane, and stays in registers for both passes.
#include "common.cuh"
#include "row.cuh"

extern "C" __global__ void layer_norm(const half* x, half* out, const float* gain, const float* bias,
                                      int rows, int width, int x_stride, float eps) {
    int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    if (row >= rows) return;
    int chunks = width / 8;
    Row values;
    read_row(values, x + (size_t)row * x_stride, chunks);
    normalise_row(values, chunks, gain, bias, eps);
    write_row(values, out + (size_t)row * width, chunks);
}
