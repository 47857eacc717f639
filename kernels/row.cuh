// One row of up to 1280 values in the registers of a warp: lane l holds chunks l, l+32, … of 8 values.
//
// Every lane runs every function here, whatever its chunks: the sums are collective.
#pragma once
#include "common.cuh"

#define ROW_CHUNKS 5

struct Row {
    float values[ROW_CHUNKS][8];
};

// `from` is 16-byte aligned and has 8·chunks values. Chunks past the end are zero.
__device__ __forceinline__ void read_row(Row& row, const half* from, int chunks) {
    const uint4* vectors = reinterpret_cast<const uint4*>(from);
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        unpack_8(row.values[i], chunk < chunks ? vectors[chunk] : make_uint4(0, 0, 0, 0));
    }
}

__device__ __forceinline__ void read_row(Row& row, const float* from, int chunks) {
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        if (chunk < chunks) {
            load_8(row.values[i], from + 8 * chunk);
        } else {
            for (int j = 0; j < 8; j++) row.values[i][j] = 0.0f;
        }
    }
}

__device__ __forceinline__ void add_row(Row& row, const float* from, int chunks) {
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        if (chunk >= chunks) break;
        float summand[8];
        load_8(summand, from + 8 * chunk);
        for (int j = 0; j < 8; j++) row.values[i][j] += summand[j];
    }
}

__device__ __forceinline__ void write_row(const Row& row, half* to, int chunks) {
    uint4* vectors = reinterpret_cast<uint4*>(to);
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        if (chunk < chunks) vectors[chunk] = pack_8(row.values[i]);
    }
}

// The row's mean, and 1/√(variance + eps) with the biased variance of a second pass; leaves the row without its
// mean. The row's first value is taken off before the first pass, so that a mean far from zero costs no
// digits.
__device__ __forceinline__ void centre_row(Row& row, int chunks, float eps, float& mean, float& scale) {
    const int lane = threadIdx.x % WARP;
    const float pivot = __shfl_sync(EVERY_LANE, row.values[0][0], 0);
    const float share = 1.0f / (float)(8 * chunks);
    float sum = 0.0f, squares = 0.0f;
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        if (lane + i * WARP >= chunks) break;
        for (int j = 0; j < 8; j++) {
            row.values[i][j] -= pivot;
            sum += row.values[i][j];
        }
    }
    const float rest = warp_sum(sum) * share;
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        if (lane + i * WARP >= chunks) break;
        for (int j = 0; j < 8; j++) {
            row.values[i][j] -= rest;
            squares = fmaf(row.values[i][j], row.values[i][j], squares);
        }
    }
    mean = pivot + rest;
    scale = reciprocal_sqrt_approx(fmaf(warp_sum(squares), share, eps));
}

// LayerNorm.
__device__ __forceinline__ void normalise_row(Row& row, int chunks, const float* gain, const float* bias,
                                              float eps) {
    float mean, scale;
    centre_row(row, chunks, eps, mean, scale);
#pragma unroll
    for (int i = 0; i < ROW_CHUNKS; i++) {
        int chunk = threadIdx.x % WARP + i * WARP;
        if (chunk >= chunks) break;
        float g[8], b[8];
        load_8(g, gain + 8 * chunk);
        load_8(b, bias + 8 * chunk);
        for (int j = 0; j < 8; j++) row.values[i][j] = fmaf(row.values[i][j] * scale, g[j], b[j]);
    }
}
