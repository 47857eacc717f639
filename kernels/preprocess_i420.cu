// An I420 picture to the model's input: preprocess.cuh with planes Y, Cb and Cr.
//
// luma, cb, cr: planes in device memory, rows `…_stride` bytes apart; plan: see preprocess.cuh; levels [S, S,
// 3] u8 and rows [P, columns] f16, either may be null.
// Launch: grid (S/32, S/8), both rounded up, 256 threads.
// Reference: src/preprocess/reference.rs. Tolerance: 0.001 of a level before rounding.
// Bound: memory; the rows of a tile are read once or twice, through L2.
#include "common.cuh"
#include "preprocess.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
    preprocess_i420(const uint8* luma, const uint8* cb, const uint8* cr, int luma_stride, int cb_stride,
                    int cr_stride, const int* plan, uint8* levels, half* rows) {
    __shared__ float4 lines[TILE_HEIGHT][LINE_BYTES / 4];
    const int first[1] = {0};
    Pixel pixel = own_pixel(plan);
    float sums[3];
    reduce_plane<1>(plan, pixel, luma, luma_stride, 1, first, FULL_X, FULL_Y, lines, sums);
    reduce_plane<1>(plan, pixel, cb, cb_stride, 1, first, HALF_X, HALF_Y, lines, sums + 1);
    reduce_plane<1>(plan, pixel, cr, cr_stride, 1, first, HALF_X, HALF_Y, lines, sums + 2);
    write_pixel(plan, pixel, sums, levels, rows);
}
