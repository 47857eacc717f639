// A packed RGB picture to the model's input: preprocess.cuh with one plane of 3 or 4 bytes a pixel.
//
// pixels: plane in device memory, rows `stride` bytes apart, `step` bytes a pixel, of which bytes red, green
// and blue are used (RGB 0 1 2, BGRx 2 1 0 …); plan: see preprocess.cuh; levels [S, S, 3] u8 and rows [P,
// columns] f16, either may be null.
// Launch: grid (S/32, S/8), both rounded up, 256 threads.
// Reference: src/preprocess/reference.rs. Tolerance: 0.001 of a level before rounding.
// Bound: memory; the rows of a tile are read once or twice, through L2.
#include "common.cuh"
#include "preprocess.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
    preprocess_rgb(const uint8* pixels, int stride, int step, int red, int green, int blue, const int* plan,
                   uint8* levels, half* rows) {
    __shared__ float4 lines[TILE_HEIGHT][LINE_BYTES / 4];
    const int offsets[3] = {red, green, blue};
    Pixel pixel = own_pixel(plan);
    float sums[3];
    reduce_plane<3>(plan, pixel, pixels, stride, step, offsets, FULL_X, FULL_Y, lines, sums);
    write_pixel(plan, pixel, sums, levels, rows);
}
