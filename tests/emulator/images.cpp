#include "images.hpp"

#include <cstdint>
#include <cstring>

namespace emulated {

Status fits(const std::string& image, int capability) {
    if (image.compare(0, 4, "\x7f" "ELF") != 0) {
        return image.find(".version") != std::string::npos ? SUCCESS : INVALID_IMAGE;
    }
    uint32_t flags;
    memcpy(&flags, image.data() + 48, sizeof flags);
    // Up to ELF ABI 7 the low byte, from 8 on the one above.
    int chip = (unsigned char)image[8] >= 8 ? flags >> 8 & 0xff : flags & 0xff;
    return chip / 10 == capability / 10 && chip <= capability ? SUCCESS : NO_BINARY_FOR_GPU;
}

std::string image_at(const void* data) {
    const char* from = static_cast<const char*>(data);
    if (memcmp(from, "\x7f" "ELF", 4) != 0) return from;
    uint64_t headers, end = 64;
    uint16_t size, count;
    memcpy(&headers, from + 40, 8);
    memcpy(&size, from + 58, 2);
    memcpy(&count, from + 60, 2);
    end = headers + (uint64_t)size * count;
    for (unsigned i = 0; i < count; i++) {
        const char* header = from + headers + (uint64_t)i * size;
        uint32_t type;
        uint64_t offset, bytes;
        memcpy(&type, header + 4, 4);
        memcpy(&offset, header + 24, 8);
        memcpy(&bytes, header + 32, 8);
        if (type != 8 && offset + bytes > end) end = offset + bytes;
    }
    return std::string(from, end);
}

bool has_kernel(const std::string& image, const std::string& name) {
    if (image.compare(0, 4, "\x7f" "ELF") != 0) return image.find(".entry " + name + "(") != std::string::npos;
    std::string symbol(1, '\0');
    symbol += name;
    symbol += '\0';
    return image.find(symbol) != std::string::npos;
}

}  // namespace emulated
