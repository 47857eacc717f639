// An NV12 picture to the model's input: preprocess.cuh with a Y plane and a plane of Cb, Cr pairs.
//
// luma, chroma: planes in device memory, rows `…_stride` bytes apart; plan: see preprocess.cuh; levels [S, S,
// 3] u8 and rows [P, columns] f16, either may be null.
// Launch: grid (S/32, S/8), both rounded up, 256 threads.
// Reference: src/preprocess/reference.rs. Tolerance: 0.001 of a level before rounding.
// Bound: memory; the rows of a tile are read once or twice, through L2.
#include "common.cuh"
#include "preprocess.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
    preprocess_nv12(const uint8* luma, const uint8* chroma, int luma_stride, int chroma_stride,
                    const int* plan, uint8* levels, half* rows) {
    __shared__ float4 lines[TILE_HEIGHT][LINE_BYTES / 4];
    const int first[1] = {0}, pairs[2] = {0, 1};
    Pixel pixel = own_pixel(plan);
    float sums[3], y[1], c[2];
    reduce_plane<1>(plan, pixel, luma, luma_stride, 1, first, FULL_X, FULL_Y, lines, y);
    reduce_plane<2>(plan, pixel, chroma, chroma_stride, 2, pairs, HALF_X, HALF_Y, lines, c);
    sums[0] = y[0], sums[1] = c[0], sums[2] = c[1];
    write_pixel(plan, pixel, sums, levels, rows);
}
