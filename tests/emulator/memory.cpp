#include "memory.hpp"
#include "immortal.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sys/mman.h>
#include <unistd.h>

namespace emulated {
namespace {

constexpr size_t ADDRESSES = (size_t)1 << 40, ALIGNMENT = 256;
constexpr unsigned char PATTERN = 0xff;

struct Allocation {
    size_t bytes;
    char *pages, *pages_end;
};

auto& live = immortal<std::map<char*, Allocation>>();
auto& pinned = immortal<std::map<char*, size_t>>();
char *next_page, *addresses_end;
size_t limit = (size_t)6 << 30, used;

size_t round_up(size_t value, size_t to) { return (value + to - 1) / to * to; }

bool holds(const char* from, size_t bytes, const std::map<char*, size_t>& ranges) {
    auto after = ranges.upper_bound(const_cast<char*>(from));
    if (after == ranges.begin()) return false;
    --after;
    return from + bytes <= after->first + after->second;
}

bool is_pattern(const char* from, const char* to) {
    for (; from < to; from++) {
        if ((unsigned char)*from != PATTERN) return false;
    }
    return true;
}

}  // namespace

void set_memory_limit(size_t bytes) { limit = bytes; }
size_t memory_limit() { return limit; }
size_t memory_used() { return used; }

bool reserve(size_t bytes) {
    if (used + bytes > limit) return false;
    used += bytes;
    return true;
}
void give_back(size_t bytes) { used -= bytes; }

uint64_t allocate(size_t bytes) {
    const size_t page = (size_t)sysconf(_SC_PAGESIZE), rounded = round_up(bytes, ALIGNMENT);
    if (bytes == 0 || used + rounded > limit) return 0;
    if (next_page == nullptr) {
        void* range = mmap(nullptr, ADDRESSES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (range == MAP_FAILED) return 0;
        next_page = static_cast<char*>(range) + page;
        addresses_end = static_cast<char*>(range) + ADDRESSES;
    }
    size_t pages = round_up(rounded, page);
    if (next_page + pages + page > addresses_end) return 0;
    char *begin = next_page, *end = begin + pages, *data = end - rounded;
    if (mprotect(begin, pages, PROT_READ | PROT_WRITE) != 0) return 0;
    next_page = end + page;
    memset(begin, PATTERN, pages);
    live[data] = {bytes, begin, end};
    used += rounded;
    return (uint64_t)data;
}

bool release(uint64_t address) {
    auto found = live.find((char*)address);
    if (found == live.end()) return false;
    const Allocation& gone = found->second;
    used -= round_up(gone.bytes, ALIGNMENT);
    madvise(gone.pages, gone.pages_end - gone.pages, MADV_DONTNEED);
    mprotect(gone.pages, gone.pages_end - gone.pages, PROT_NONE);
    live.erase(found);
    return true;
}

bool is_device(const void* from, size_t bytes) {
    auto after = live.upper_bound((char*)from);
    if (after == live.begin()) return false;
    --after;
    return (const char*)from + bytes <= after->first + after->second.bytes;
}

std::string check_guards() {
    for (auto& [data, allocation] : live) {
        bool before = is_pattern(allocation.pages, data);
        if (before && is_pattern(data + allocation.bytes, allocation.pages_end)) continue;
        char text[120];
        snprintf(text, sizeof text, "wrote %s an allocation of %zu bytes at %p", before ? "past the end of" : "before",
                 allocation.bytes, (void*)data);
        memset(allocation.pages, PATTERN, data - allocation.pages);
        memset(data + allocation.bytes, PATTERN, allocation.pages_end - data - allocation.bytes);
        return text;
    }
    return "";
}

void* allocate_pinned(size_t bytes) {
    void* memory = nullptr;
    if (bytes == 0 || posix_memalign(&memory, 4096, bytes) != 0) return nullptr;
    memset(memory, PATTERN, bytes);
    pinned[static_cast<char*>(memory)] = bytes;
    return memory;
}

bool release_pinned(void* from) {
    if (pinned.erase(static_cast<char*>(from)) == 0) return false;
    free(from);
    return true;
}

bool is_pinned(const void* from, size_t bytes) { return holds(static_cast<const char*>(from), bytes, pinned); }

}  // namespace emulated
