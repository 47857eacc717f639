// Code as a program hands it to the driver: cubins and PTX.
#pragma once
#include <string>

#include "work.hpp"

namespace emulated {

// Whether the driver would find code for a device of this capability in it. A cubin's flags name its chip; PTX is
// compiled.
Status fits(const std::string& image, int capability);
// The bytes of an ELF file by its section headers, of PTX by its end.
std::string image_at(const void* data);
bool has_kernel(const std::string& image, const std::string& name);

}  // namespace emulated
