// out[rows[r]] = x[r], rows of −1 left out: prepared frames to their places in the ring.
//
// x [count, width] f16; rows [count], all different, each inside out or −1; out [any, width] f16; width a
// multiple of 8, of any size; count·width at most 2^34.
// Launch: one thread per 8 values of x, blocks so that threads ≥ count·width/8.
// Reference: none (a copy). Exact.
// Bound: memory; 16 bytes in and out a thread.
#include "common.cuh"

extern "C" __global__ void scatter_rows(const half* x, const int* rows, half* out, int count, int width) {
    const uint32 per_row = width / 8, at = blockIdx.x * blockDim.x + threadIdx.x, row = at / per_row;
    if (row >= (uint32)count || rows[row] < 0) return;
    reinterpret_cast<uint4*>(out)[(size_t)rows[row] * per_row + at % per_row] =
        reinterpret_cast<const uint4*>(x)[at];
}
