// A picture's planes to the model's input, as src/preprocess reduces them: crop, antialiased resize, centre
// crop, Y'CbCr to RGB, rounded once to 8 bits, then normalised. preprocess_nv12, _i420 and _rgb differ in
// where the samples lie.
//
// A block makes 32×8 pixels, one a thread. Per plane, the block's 8 lines are reduced vertically into shared
// memory, 512 bytes of a row at a time, and each thread adds its taps of them: all steps are linear, so they
// commute, and the colour matrix is applied to three sums. Any picture size works, with the same memory.
//
// `plan` is what one picture description, roi and rule come to (src/preprocess/device.rs makes it), 32-bit
// words: PLAN_… below, then four tables of output samples. An entry of a table has `stride` words: first
// source sample, count, weights (f32).
#pragma once
#include "common.cuh"

#define TILE_WIDTH 32
#define TILE_HEIGHT 8
#define LINE_BYTES 512
// Reads of a column that are on their way together: of 1080 lines to 224, a sum has 10 of luma, 6 of chroma.
#define ROWS_AT_ONCE 6

// Words of a plan. S; pixels and lines that the picture covers (the others are black).
#define PLAN_SIZE 0
#define PLAN_LEFT 1
#define PLAN_RIGHT 2
#define PLAN_TOP 3
#define PLAN_BOTTOM 4
// Pixels of a patch's side and columns of a patch row, as patch_rows.cu.
#define PLAN_PATCH 5
#define PLAN_COLUMNS 6
// (word of the first entry, stride) of the tables: x and y at full resolution, x and y at half.
#define PLAN_TABLES 8
#define FULL_X 0
#define FULL_Y 1
#define HALF_X 2
#define HALF_Y 3
// f32: red, green, blue per 8-bit code of (Y or R), (Cb or G), (Cr or B); summand of red, green, blue.
#define PLAN_COLOUR 16
#define PLAN_OFFSET 25
// f32: scale and shift of red, green, blue levels, as patch_rows.cu.
#define PLAN_SCALE 28
#define PLAN_SHIFT 31
#define PLAN_WORDS 34

__device__ __forceinline__ float plan_float(const int* plan, int word) {
    return __uint_as_float((uint32)plan[word]);
}

struct Line {
    int start, count;
    const int* weights;
};

__device__ __forceinline__ Line plan_entry(const int* plan, int table, int output) {
    const int* entry = plan + plan[PLAN_TABLES + 2 * table] + output * plan[PLAN_TABLES + 2 * table + 1];
    Line line;
    line.start = entry[0];
    line.count = entry[1];
    line.weights = entry + 2;
    return line;
}

// One pixel of the block's tile.
struct Pixel {
    int x, y;
    // From the first one that the picture covers.
    int column;
    bool covered;
};

__device__ __forceinline__ Pixel own_pixel(const int* plan) {
    Pixel pixel;
    pixel.x = blockIdx.x * TILE_WIDTH + threadIdx.x % TILE_WIDTH;
    pixel.y = blockIdx.y * TILE_HEIGHT + threadIdx.x / TILE_WIDTH;
    pixel.column = pixel.x - plan[PLAN_LEFT];
    pixel.covered = pixel.x >= plan[PLAN_LEFT] && pixel.x < plan[PLAN_RIGHT] && pixel.y >= plan[PLAN_TOP] &&
                    pixel.y < plan[PLAN_BOTTOM];
    return pixel;
}

// sum[j] += weight·byte j.
__device__ __forceinline__ void add_bytes(float sum[4], uint32 bytes, float weight) {
#pragma unroll
    for (int j = 0; j < 4; j++) sum[j] = fmaf((float)(bytes >> (8 * j) & 255), weight, sum[j]);
}

// sums[c] = weighted samples of channel c of a plane, whose sample i of a row is byte step·i + offsets[c].
// All threads of the block take part, whether their pixel is covered or not.
template <int CHANNELS>
__device__ __forceinline__ void reduce_plane(const int* plan, const Pixel& pixel, const uint8* plane,
                                             int stride, int step, const int offsets[CHANNELS], int table_x,
                                             int table_y, float4 lines[TILE_HEIGHT][LINE_BYTES / 4],
                                             float sums[CHANNELS]) {
    for (int c = 0; c < CHANNELS; c++) sums[c] = 0.0f;
    // The columns of the tile that are covered; starts and ends of their taps rise with the column.
    int left = max((int)blockIdx.x * TILE_WIDTH, plan[PLAN_LEFT]) - plan[PLAN_LEFT];
    int right = min((int)(blockIdx.x + 1) * TILE_WIDTH, plan[PLAN_RIGHT]) - plan[PLAN_LEFT];
    if (left >= right) return;
    Line last = plan_entry(plan, table_x, right - 1);
    int begin = step * plan_entry(plan, table_x, left).start, end = step * (last.start + last.count);
    bool words = (((size_t)plane | (size_t)stride) & 3) == 0;
    if (words) begin -= begin % 4;
    int covered_lines = plan[PLAN_BOTTOM] - plan[PLAN_TOP];
    int first_line = (int)blockIdx.y * TILE_HEIGHT - plan[PLAN_TOP];
    Line taps;
    taps.start = taps.count = 0;
    if (pixel.covered) taps = plan_entry(plan, table_x, pixel.column);

    for (int chunk = begin; chunk < end; chunk += LINE_BYTES) {
        int quads = (min(end - chunk, LINE_BYTES) + 3) / 4;
        for (int i = threadIdx.x; i < quads * TILE_HEIGHT; i += blockDim.x) {
            int line = i / quads, at = i % quads * 4;
            float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f};
            if (first_line + line >= 0 && first_line + line < covered_lines) {
                Line rows = plan_entry(plan, table_y, first_line + line);
                const uint8* row = plane + (size_t)rows.start * stride + chunk + at;
                if (words && chunk + at + 4 <= end) {
                    for (int first = 0; first < rows.count; first += ROWS_AT_ONCE) {
                        uint32 bytes[ROWS_AT_ONCE];
                        float weights[ROWS_AT_ONCE];
#pragma unroll
                        for (int k = 0; k < ROWS_AT_ONCE; k++, row += stride) {
                            bool some = first + k < rows.count;
                            bytes[k] = some ? *reinterpret_cast<const uint32*>(row) : 0;
                            weights[k] = some ? plan_float(rows.weights, first + k) : 0.0f;
                        }
#pragma unroll
                        for (int k = 0; k < ROWS_AT_ONCE; k++) add_bytes(sum, bytes[k], weights[k]);
                    }
                } else {
                    int count = min(4, end - chunk - at);
                    for (int k = 0; k < rows.count; k++, row += stride) {
                        uint32 bytes = 0;
                        for (int j = 0; j < count; j++) bytes |= (uint32)row[j] << (8 * j);
                        add_bytes(sum, bytes, plan_float(rows.weights, k));
                    }
                }
            }
            lines[line][at / 4] = make_float4(sum[0], sum[1], sum[2], sum[3]);
        }
        __syncthreads();
        const float* line = reinterpret_cast<const float*>(lines[threadIdx.x / TILE_WIDTH]);
#pragma unroll
        for (int c = 0; c < CHANNELS; c++) {
            // Taps whose byte lies in this chunk.
            int first = step * taps.start + offsets[c] - chunk;
            int from = first < 0 ? (-first + step - 1) / step : 0;
            int to = first < LINE_BYTES ? min(taps.count, (LINE_BYTES - first + step - 1) / step) : 0;
#pragma unroll 2
            for (int k = from; k < to; k++) {
                sums[c] = fmaf(line[first + step * k], plan_float(taps.weights, k), sums[c]);
            }
        }
        __syncthreads();
    }
}

// The three sums to a level per colour, and where they go: levels [S, S, 3] u8, rows as patch_rows.cu; either
// may be null.
__device__ __forceinline__ void write_pixel(const int* plan, const Pixel& pixel, const float sums[3],
                                            uint8* levels, half* rows) {
    int size = plan[PLAN_SIZE], patch = plan[PLAN_PATCH], columns = plan[PLAN_COLUMNS];
    if (pixel.x >= size || pixel.y >= size) return;
    int row = pixel.y / patch * (size / patch) + pixel.x / patch;
    int within = pixel.y % patch * patch + pixel.x % patch, area = patch * patch;
    for (int colour = 0; colour < 3; colour++) {
        float value = plan_float(plan, PLAN_OFFSET + colour);
        for (int c = 0; c < 3; c++)
            value = fmaf(sums[c], plan_float(plan, PLAN_COLOUR + 3 * c + colour), value);
        // 2^23 + x has no fraction bits: its low byte is x to the nearest.
        value = fminf(fmaxf(value, 0.0f), 255.0f) + 8388608.0f;
        uint32 level = pixel.covered ? __float_as_uint(value) & 255 : 0;
        if (levels != nullptr) levels[((size_t)pixel.y * size + pixel.x) * 3 + colour] = (uint8)level;
        if (rows != nullptr) {
            float scale = plan_float(plan, PLAN_SCALE + colour),
                  shift = plan_float(plan, PLAN_SHIFT + colour);
            rows[(size_t)row * columns + colour * area + within] =
                __float2half(fmaf((float)level, scale, shift));
        }
    }
    if (rows != nullptr && within == 0) {
        for (int i = 3 * area; i < columns; i++) rows[(size_t)row * columns + i] = __float2half(0.0f);
    }
}
