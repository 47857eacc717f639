// What the lanes of a warp do together: shuffles and the matrix instructions (layouts: kernels/common.cuh).
#include "emulated.hpp"

#include <cstring>

namespace emulated {
namespace {

template <typename T>
T& lane(void* arguments[32], int i) {
    return *static_cast<T*>(arguments[i]);
}

void load(void* arguments[32], bool transposed) {
    for (int matrix = 0; matrix < 4; matrix++) {
        uint16_t values[8][8];
        for (int row = 0; row < 8; row++) {
            const void* from = lane<Ldmatrix>(arguments, matrix * 8 + row).row;
            if ((uintptr_t)from % 16 != 0) fault("ldmatrix with a row that is not 16-byte aligned");
            memcpy(values[row], from, 16);
        }
        for (int i = 0; i < 32; i++) {
            int row = i / 4, column = i % 4 * 2;
            uint32_t low = transposed ? values[column][row] : values[row][column];
            uint32_t high = transposed ? values[column + 1][row] : values[row][column + 1];
            lane<Ldmatrix>(arguments, i).to[matrix] = low | high << 16;
        }
    }
}

}  // namespace

void nothing(void*[32]) {}

void shuffle_xor(void* arguments[32]) {
    for (int i = 0; i < 32; i++) {
        if (arguments[i] == nullptr) continue;
        Shuffle& own = lane<Shuffle>(arguments, i);
        int other = i ^ own.lanes;
        if (other < 0 || other > 31 || arguments[other] == nullptr) fault("a shuffle from a lane that takes no part");
        own.result = lane<Shuffle>(arguments, other).value;
    }
}

void shuffle_from(void* arguments[32]) {
    for (int i = 0; i < 32; i++) {
        if (arguments[i] == nullptr) continue;
        Shuffle& own = lane<Shuffle>(arguments, i);
        int other = own.lanes & 31;
        if (arguments[other] == nullptr) fault("a shuffle from a lane that takes no part");
        own.result = lane<Shuffle>(arguments, other).value;
    }
}

void ldmatrix(void* arguments[32]) { load(arguments, false); }
void ldmatrix_trans(void* arguments[32]) { load(arguments, true); }

void mma(void* arguments[32]) {
    if (arguments[31] == nullptr) fault("mma by less than a whole warp");
    // b transposed, so that both products run along memory.
    float a[16][16], b[16][8];
    auto put = [](float* to, int step, uint32_t pair) {
        to[0] = half_to_float((uint16_t)pair);
        to[step] = half_to_float((uint16_t)(pair >> 16));
    };
    for (int i = 0; i < 32; i++) {
        const Mma& own = lane<Mma>(arguments, i);
        int g = i / 4, t = i % 4 * 2;
        put(&a[g][t], 1, own.a[0]);
        put(&a[g + 8][t], 1, own.a[1]);
        put(&a[g][t + 8], 1, own.a[2]);
        put(&a[g + 8][t + 8], 1, own.a[3]);
        put(&b[t][g], 8, own.b[0]);
        put(&b[t + 8][g], 8, own.b[1]);
    }
    for (int row = 0; row < 16; row++) {
        float sum[8] = {0, 0, 0, 0, 0, 0, 0, 0};
        for (int k = 0; k < 16; k++) {
            for (int column = 0; column < 8; column++) sum[column] += a[row][k] * b[k][column];
        }
        for (int column = 0; column < 8; column++) {
            lane<Mma>(arguments, row % 8 * 4 + column / 2).d[row / 8 * 2 + column % 2] += sum[column];
        }
    }
}

}  // namespace emulated
