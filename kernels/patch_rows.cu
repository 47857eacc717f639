// rows[f, patch, (channel, y, x)] = u8·scale + shift: frames to the left side of the patch embedding's
// product.
//
// frames [F, S, S, 3] u8; rows [F, P, columns] f16, P = (S/p)², patches row by row, columns = 3·p² rounded up
// to a multiple of 8, the surplus zero. Per channel scale = 1/(255·std), shift = −mean/std. Column order as
// the convolution weight [D, 3, p, p].
// Launch: one thread per 8 columns, blocks so that threads ≥ F·P·columns/8.
// Reference: src/backend/cpu/embed.rs (pixel_values). Tolerance: half a unit of the last f16 place.
// Bound: memory; 16-byte stores, byte loads that neighbouring threads share through L1.
#include "common.cuh"

extern "C" __global__ void patch_rows(const uint8* frames, half* rows, float sr, float sg, float sb, float hr,
                                      float hg, float hb, int frame_count, int size, int patch, int columns) {
    int per_row = columns / 8, side = size / patch, area = patch * patch;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    int row = (int)(index / per_row), first = (int)(index % per_row) * 8;
    if (row >= frame_count * side * side) return;
    int frame = row / (side * side), place = row % (side * side);
    const uint8* corner =
        frames +
        ((size_t)frame * size * size + (size_t)(place / side * patch) * size + place % side * patch) * 3;
    float values[8];
#pragma unroll
    for (int i = 0; i < 8; i++) {
        int column = first + i, channel = column / area, within = column % area;
        float scale = channel == 0 ? sr : channel == 1 ? sg : sb;
        float shift = channel == 0 ? hr : channel == 1 ? hg : hb;
        int at = (within / patch * size + within % patch) * 3 + channel;
        values[i] = 0.0f;
        if (channel < 3) values[i] = fmaf((float)corner[at], scale, shift);
    }
    reinterpret_cast<uint4*>(rows)[index] = pack_8(values);
}
