// out[r] = x[rows[r]]: the end token's row of each prompt.
//
// x [any, width] f16; rows [count]; out [count, width] f16; width a multiple of 8.
// Launch: one thread per 8 values, blocks so that threads ≥ count·width/8.
// Reference: none (a copy). Exact. Bound: memory.
#include "common.cuh"

extern "C" __global__ void gather_rows(const half* x, const int* rows, half* out, int count, int width) {
    int per_row = width / 8, at = blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= count * per_row) return;
    reinterpret_cast<uint4*>(out)[at] =
        reinterpret_cast<const uint4*>(x)[(size_t)rows[at / per_row] * per_row + at % per_row];
}
