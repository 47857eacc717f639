// binary16 as a GPU converts it, in integer arithmetic: no instruction set is assumed.
#pragma once
#include <cstdint>
#include <cstring>

namespace emulated {

inline float bits_to_float(uint32_t bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline uint32_t float_to_bits(float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits;
}

// Exact. A subnormal is scaled into place by a product with 2^112.
inline float half_to_float(uint16_t half) {
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
    if (rest >= 0x0f800000) return bits_to_float(sign | rest | 0x70000000);
    return bits_to_float(sign | float_to_bits(bits_to_float(rest) * 0x1p112f));
}

// To nearest, ties to even; infinity from 65520 on.
inline uint16_t float_to_half(float value) {
    uint32_t bits = float_to_bits(value), sign = bits >> 16 & 0x8000, rest = bits & 0x7fffffff;
    if (rest > 0x7f800000) return 0x7fff;
    if (rest >= 0x477ff000) return (uint16_t)(sign | 0x7c00);
    if (rest < 0x38800000) {
        // Below 2^-14 the spacing is 2^-24, that of floats in [0.5, 1).
        uint32_t sum = float_to_bits(bits_to_float(rest) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000));
    }
    rest += 0xfff + (rest >> 13 & 1);
    return (uint16_t)(sign | (rest - 0x38000000) >> 13);
}

}  // namespace emulated
