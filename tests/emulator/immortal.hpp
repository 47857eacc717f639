// What outlives every thread: a program may end while the backend's own thread still frees its memory.
#pragma once
#include <utility>

namespace emulated {

template <class T>
T& immortal(T value = {}) {
    return *new T(std::move(value));
}

}  // namespace emulated
