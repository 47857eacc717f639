// The kernels of kernels/ by name, with their arguments as cuLaunchKernel takes them.
#pragma once
#include <functional>
#include <string>
#include <vector>

namespace emulated {

struct Bound {
    std::function<void()> call;
    // Those of the arguments that are addresses.
    std::vector<const void*> pointers;
};

struct Kernel {
    const char* name;
    unsigned most_threads;
    // Copies the arguments out of `parameters`, one address each.
    std::function<Bound(void** parameters)> bind;
};

// Null: there is none of this name.
const Kernel* find_kernel(const std::string& name);

}  // namespace emulated
