#include "kernels.hpp"

#include "emulated.hpp"
#include "immortal.hpp"

// Written by build.sh: an #include of every kernels/*.cu, and KERNELS(X) with X(name, most threads) for each.
#include "kernels.inc"

namespace emulated {
namespace {

template <typename T>
void note(std::vector<const void*>& pointers, T* pointer) {
    if (pointer != nullptr) pointers.push_back(pointer);
}
template <typename T>
void note(std::vector<const void*>&, T) {}

template <typename... Parameters, size_t... I>
Bound take(void (*kernel)(Parameters...), void** parameters, std::index_sequence<I...>) {
    std::tuple<Parameters...> arguments(*static_cast<Parameters*>(parameters[I])...);
    Bound bound;
    (note(bound.pointers, std::get<I>(arguments)), ...);
    bound.call = [kernel, arguments] { std::apply(kernel, arguments); };
    return bound;
}

template <typename... Parameters>
Kernel entry(const char* name, unsigned most_threads, void (*kernel)(Parameters...)) {
    return {name, most_threads, [kernel](void** parameters) {
        return take(kernel, parameters, std::index_sequence_for<Parameters...>());
    }};
}

}  // namespace

const Kernel* find_kernel(const std::string& name) {
#define ENTRY(name, most_threads) entry(#name, most_threads, name),
    static const auto& kernels = immortal<std::vector<Kernel>>({KERNELS(ENTRY)});
#undef ENTRY
    for (const Kernel& kernel : kernels) {
        if (name == kernel.name) return &kernel;
    }
    return nullptr;
}

}  // namespace emulated
