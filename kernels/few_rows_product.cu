// y = act(LayerNorm(x)·Wᵀ + b) (+ y) for a few rows, in one launch: LayerNorm, activation, sum optional.
//
// x [rows at x + r·x_stride, ins] f16; gain, shift [ins] f32 of the LayerNorm, null for none; weight [outs, ins]
// f16; bias [outs] f16, null for none; y [rows, outs] f16, added to where `add`; quick_gelu where `gelu`. rows
// at most 32; ins, outs, x_stride multiples of 8; ins at most 1280 where gain is given. y overlaps no input.
// Launch: grid outs/8, 256 threads.
// Reference: layer_norm.cu, quick_gelu.cu and a product. Tolerance: 2^-10 of Σ|x·w| (x is rounded to f16).
// Bound: latency, then reading W once. A block makes 8 columns; its 8 warps share out ins and are summed in
// shared memory. It replaces up to three launches of a few microseconds each, whose work is less than that.
//
// A lane reads 16 bytes of its row of W and of x at a time, 8 neighbours of 32 along ins. Which of them
// meet in which step of the product does not matter to the sum, as long as both sides agree: the first
// step takes neighbours 0 to 3 of every lane, the second 4 to 7.
#include "common.cuh"
#include "row.cuh"

#define PRODUCT_WARPS 8
#define PRODUCT_ROWS 32
// 16-byte reads of W on their way at a time.
#define PRODUCT_DEPTH 4

extern "C" __global__ void __launch_bounds__(256)
    few_rows_product(const half* x, int x_stride, const float* gain, const float* shift, const half* weight,
                     const half* bias, half* y, int rows, int ins, int outs, int gelu, int add, float eps) {
    __shared__ float statistics[PRODUCT_ROWS][2];
    __shared__ float partial[PRODUCT_WARPS][PRODUCT_ROWS][8];
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP, group = lane / 4, part = lane % 4 * 8;
    const int columns = blockIdx.x * 8, steps = (ins + 31) / 32;
    const half* own_weight = weight + (size_t)(columns + group) * ins + part;
    const uint4 zero = make_uint4(0, 0, 0, 0);

    uint4 weights[PRODUCT_DEPTH];
    auto load_weights = [&](int first) {
#pragma unroll
        for (int i = 0; i < PRODUCT_DEPTH; i++) {
            int at = 32 * ((first + i) * PRODUCT_WARPS + warp);
            weights[i] = zero;
            if (at + part < ins) weights[i] = *reinterpret_cast<const uint4*>(own_weight + at);
        }
    };
    load_weights(0);

    if (gain != nullptr) {
        for (int row = warp; row < rows; row += PRODUCT_WARPS) {
            Row values;
            read_row(values, x + (size_t)row * x_stride, ins / 8);
            float mean, scale;
            centre_row(values, ins / 8, eps, mean, scale);
            if (lane == 0) {
                statistics[row][0] = mean;
                statistics[row][1] = scale;
            }
        }
        __syncthreads();
    }

    float sums[PRODUCT_ROWS / 16][4];
#pragma unroll
    for (int tile = 0; tile < PRODUCT_ROWS / 16; tile++) {
        for (int i = 0; i < 4; i++) sums[tile][i] = 0.0f;
    }
    for (int first = 0; first * PRODUCT_WARPS < steps; first += PRODUCT_DEPTH) {
        if (first > 0) load_weights(first);
#pragma unroll
        for (int i = 0; i < PRODUCT_DEPTH; i++) {
            const int step = (first + i) * PRODUCT_WARPS + warp, at = 32 * step + part;
            if (step >= steps) break;
            float g[8], s[8];
            if (gain != nullptr && at < ins) {
                load_8(g, gain + at);
                load_8(s, shift + at);
            }
#pragma unroll
            for (int tile = 0; tile < PRODUCT_ROWS / 16; tile++) {
                if (16 * tile >= rows) break;
                uint4 pair[2];
#pragma unroll
                for (int half_tile = 0; half_tile < 2; half_tile++) {
                    int row = 16 * tile + 8 * half_tile + group;
                    pair[half_tile] = zero;
                    if (row >= rows || at >= ins) continue;
                    pair[half_tile] = *reinterpret_cast<const uint4*>(x + (size_t)row * x_stride + at);
                    if (gain == nullptr) continue;
                    float values[8], mean = statistics[row][0], scale = statistics[row][1];
                    unpack_8(values, pair[half_tile]);
#pragma unroll
                    for (int j = 0; j < 8; j++) values[j] = fmaf((values[j] - mean) * scale, g[j], s[j]);
                    pair[half_tile] = pack_8(values);
                }
                // The lanes of rows and columns that are none come together with the others.
                __syncwarp();
                const uint32 low[4] = {pair[0].x, pair[1].x, pair[0].y, pair[1].y};
                const uint32 high[4] = {pair[0].z, pair[1].z, pair[0].w, pair[1].w};
                const uint32 low_weights[2] = {weights[i].x, weights[i].y};
                const uint32 high_weights[2] = {weights[i].z, weights[i].w};
                mma_16816(sums[tile], low, low_weights);
                mma_16816(sums[tile], high, high_weights);
            }
        }
    }
#pragma unroll
    for (int tile = 0; tile < PRODUCT_ROWS / 16; tile++) {
        for (int i = 0; i < 4; i++) {
            partial[warp][16 * tile + group + i / 2 * 8][lane % 4 * 2 + i % 2] = sums[tile][i];
        }
    }
    __syncthreads();
    const int row = threadIdx.x / 8, column = threadIdx.x % 8;
    if (row >= rows) return;
    float value = bias != nullptr ? __half2float(bias[columns + column]) : 0.0f;
#pragma unroll
    for (int other = 0; other < PRODUCT_WARPS; other++) value += partial[other][row][column];
    if (gelu) value = quick_gelu_of(value);
    half* to = y + (size_t)row * outs + columns + column;
    if (add) value += __half2float(*to);
    *to = __float2half(value);
}
