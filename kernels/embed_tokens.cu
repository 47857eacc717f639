// x[r] = tokens[ids[r]] + positions[positions_of[r]]: the text tower's input, prompts of any length end to
// end.
//
// ids, positions_of [rows]; tokens [vocabulary, W] f16; positions [context, W] f32; x [rows, W] f16; W a
// multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ rows·W/8.
// Reference: src/backend/cpu/text.rs. Tolerance: half a unit of the last f16 place.
// Bound: memory.
#include "common.cuh"

extern "C" __global__ void embed_tokens(const int* ids, const int* positions_of, const half* tokens,
                                        const float* positions, half* x, int rows, int width) {
    int per_row = width / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= rows * per_row) return;
    int row = at / per_row, chunk = at % per_row;
    float values[8], summand[8];
    unpack_8(values, reinterpret_cast<const uint4*>(tokens)[(size_t)ids[row] * per_row + chunk]);
    load_8(summand, positions + (size_t)positions_of[row] * width + 8 * chunk);
#pragma unroll
    for (int i = 0; i < 8; i++) values[i] += summand[i];
    reinterpret_cast<uint4*>(x)[at] = pack_8(values);
}
