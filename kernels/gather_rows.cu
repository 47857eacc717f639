// out[r] = x[rows[r]]: end tokens out of prompts, frame states out of the ring.
//
// x [any, width] f16; rows [count], each inside x; out [count, width] f16; width a multiple of 8, of any
// size; count·width at most 2^34.
// Launch: one thread per 8 values of out, blocks so that threads ≥ count·width/8.
// Reference: none (a copy). Exact.
// Bound: memory; 16 bytes in and out a thread.
#include "common.cuh"

extern "C" __global__ void gather_rows(const half* x, const int* rows, half* out, int count, int width) {
    const uint32 per_row = width / 8, at = blockIdx.x * blockDim.x + threadIdx.x, row = at / per_row;
    if (row >= (uint32)count) return;
    reinterpret_cast<uint4*>(out)[at] =
        reinterpret_cast<const uint4*>(x)[(size_t)rows[row] * per_row + at % per_row];
}
