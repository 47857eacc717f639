// x = LayerNorm(concat(class row, patch rows + positions)): the first rows of the residual stream.
//
// patches [F, P, D] f16; class_row [D] f32 = class embedding + position 0; positions [P, D] f32 = positions
// 1…P; gain, bias [D] f32; x [F, P+1, D] f16; D a multiple of 8, at most 1280.
// Launch: one warp per row of x, blocks so that warps ≥ F·(P+1).
// Reference: src/backend/cpu/embed.rs. Tolerance: half a unit of the last f16 place, and 2^-20 relative.
// Bound: memory.
#include "common.cuh"
#include "row.cuh"

extern "C" __global__ void embed(const half* patches, const float* class_row, const float* positions,
                                 const float* gain, const float* bias, half* x, int frames,
                                 int patches_per_frame, int width, float eps) {
    int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
    int tokens = patches_per_frame + 1;
    if (row >= frames * tokens) return;
    int frame = row / tokens, token = row % tokens, chunks = width / 8;
    Row values;
    if (token == 0) {
        read_row(values, class_row, chunks);
    } else {
        int patch = token - 1;
        read_row(values, patches + ((size_t)frame * patches_per_frame + patch) * width, chunks);
        add_row(values, positions + (size_t)patch * width, chunks);
    }
    normalise_row(values, chunks, gain, bias, eps);
    write_row(values, x + (size_t)row * width, chunks);
}
