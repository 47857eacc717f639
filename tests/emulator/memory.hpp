// The device's memory: a range of addresses of its own, of which only live allocations can be touched.
//
// Between allocations lies a page that faults; what is left of an allocation's own pages is filled with a
// pattern that is NaN to a kernel which reads it and is looked at after each launch. New memory has the same
// pattern. Addresses are never handed out twice, so that freed memory faults too.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

namespace emulated {

void set_memory_limit(size_t bytes);
size_t memory_limit();
size_t memory_used();

// Memory that the driver or a library takes for itself: counted, never touched. False: does not fit.
bool reserve(size_t bytes);
void give_back(size_t bytes);

// 0: does not fit.
uint64_t allocate(size_t bytes);
bool release(uint64_t address);
// Whether all of it lies in one live allocation.
bool is_device(const void* from, size_t bytes);
// Empty, or which allocation something was written beside.
std::string check_guards();

void* allocate_pinned(size_t bytes);
bool release_pinned(void* from);
bool is_pinned(const void* from, size_t bytes);

}  // namespace emulated
