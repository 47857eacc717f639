// The functions of the CUDA driver API that the backend loads (src/backend/cuda/sys.rs), and a few more that
// make a library of it. Behaviour follows the driver API's documentation; where it leaves a choice, the
// strictest one is taken.
//
// Environment, read by cuInit:
//   XCLIP_EMULATED_MEMORY      MiB of device memory, default 6144
//   XCLIP_EMULATED_CAPABILITY  compute capability of each device, by commas; default 9.0, which is one. Devices
//                              share the memory
//   XCLIP_EMULATED_ORDER       reverse: see block.cpp and work.hpp
//   XCLIP_EMULATED_FAULT       one of: no-device; old-driver (speaks CUDA 11.4);
//                              lost:N (the N-th kernel that runs meets an uncorrectable ECC error);
//                              no-image (modules do not load), no-cubin (only PTX does); init:N (cuInit returns N);
//                              retain:N (the first device's context cannot be had: N)
#include "emulated.hpp"
#include "images.hpp"
#include "immortal.hpp"
#include "kernels.hpp"
#include "memory.hpp"
#include "work.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <sstream>

#define EXPORT extern "C" __attribute__((visibility("default")))

using namespace emulated;

namespace {

struct Module {
    std::string image;
};

struct Function {
    const Kernel* kernel;
    unsigned most_shared = 48 << 10;
};

struct Graph {
    std::shared_ptr<const Nodes> nodes;
    // Of the device, for an executable one.
    size_t bytes = 0;
};

constexpr unsigned OPT_IN_SHARED = 99 << 10;

// A device's primary context: made by the first who retains it, destroyed when the last one releases it.
struct Context {
    int device;
    unsigned users = 0;
};
auto& contexts_made = immortal<std::vector<std::unique_ptr<Context>>>();
Context* primary(int device) {
    for (auto made = contexts_made.rbegin(); made != contexts_made.rend(); made++) {
        if ((*made)->device == device && (*made)->users > 0) return made->get();
    }
    return nullptr;
}
bool is_alive(const void* context) {
    return context != nullptr && context == primary(static_cast<const Context*>(context)->device);
}

bool initialized;
auto& capabilities = immortal<std::vector<int>>();
bool is_ordinal(int device) { return device >= 0 && (size_t)device < capabilities.size(); }
// Launches that pass before some fail, and how many do.
long long launches_until_fault, faulty_launches;
auto& fault_asked = immortal<std::string>();
long long kernels_until_lost = -1;
// Of this thread, the current one last.
thread_local std::vector<void*> contexts;
auto& functions = immortal<std::map<Function*, std::unique_ptr<Function>>>();
auto& runs = immortal<std::map<std::string, long long>>();

// The lock, and what every call but a few begins with.
struct Call {
    std::lock_guard<std::recursive_mutex> guard{device_lock()};
    Status status = initialized ? lost() : NOT_INITIALIZED;
    Call() {
        if (status == SUCCESS && contexts.empty()) status = INVALID_CONTEXT;
        if (status == SUCCESS && !is_alive(contexts.back())) status = CONTEXT_IS_DESTROYED;
    }
};
#define BEGIN               \
    Call call;              \
    if (call.status != SUCCESS) return call.status

// OUT_OF_MEMORY where a test asked for it.
Status launch_fault() {
    if (faulty_launches == 0 || launches_until_fault-- > 0) return SUCCESS;
    faulty_launches--;
    return OUT_OF_MEMORY;
}

Stream* stream_of(void* handle) { return handle == nullptr ? legacy_stream() : static_cast<Stream*>(handle); }
#define STREAM(name, handle)           \
    Stream* name = stream_of(handle);  \
    if (!is_stream(name)) return INVALID_HANDLE

Status say(Status status, const char* what, const char* why) {
    fprintf(stderr, "emulated device: %s: %s\n", what, why);
    return status;
}

Status run_kernel(const Kernel& kernel, const Launch& launch, const Bound& bound) {
    if (kernels_until_lost >= 0 && kernels_until_lost-- == 0) return ECC_UNCORRECTABLE;
    runs[kernel.name]++;
    for (const void* pointer : bound.pointers) {
        if (!is_device(pointer, 1)) {
            char why[96];
            snprintf(why, sizeof why, "argument %p is not a live device address", pointer);
            return say(ILLEGAL_ADDRESS, kernel.name, why);
        }
    }
    auto call = [](void* context) { static_cast<const Bound*>(context)->call(); };
    const char* wrong = run(launch, call, const_cast<Bound*>(&bound));
    if (*wrong != 0) {
        Status status = strncmp(wrong, "access", 6) == 0       ? ILLEGAL_ADDRESS
                        : strncmp(wrong, "misaligned", 10) == 0 ? MISALIGNED_ADDRESS
                                                               : LAUNCH_FAILED;
        return say(status, kernel.name, wrong);
    }
    std::string beside = check_guards();
    return beside.empty() ? SUCCESS : say(ILLEGAL_ADDRESS, kernel.name, beside.c_str());
}

Status copy(void* to, const void* from, size_t bytes, bool device_to, bool device_from) {
    if ((device_to && !is_device(to, bytes)) || (device_from && !is_device(from, bytes))) {
        return say(ILLEGAL_ADDRESS, "copy", "outside of every allocation");
    }
    memmove(to, from, bytes);
    return SUCCESS;
}

}  // namespace

// For libcublasLt.so.12.
EXPORT int emulated_enqueue(void* stream, Act act) {
    BEGIN;
    STREAM(to, stream);
    return enqueue(to, std::move(act));
}
EXPORT bool emulated_is_device(const void* from, size_t bytes) { return is_device(from, bytes); }
EXPORT int emulated_check_guards(const char* what) {
    std::string beside = check_guards();
    return beside.empty() ? SUCCESS : say(ILLEGAL_ADDRESS, what, beside.c_str());
}

// Whether a context was destroyed since the program began.
EXPORT bool emulated_lost_a_context() {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    for (auto& made : contexts_made) {
        if (made->users == 0) return true;
    }
    return false;
}
// Device memory for a library's own needs.
EXPORT bool emulated_reserve(size_t bytes) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    return reserve(bytes);
}
EXPORT size_t emulated_memory() { return memory_limit(); }
EXPORT void emulated_note(const char* what) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    runs[what]++;
}

// For tests: how often a kernel ran, or what was noted happened.
EXPORT long long emulated_runs(const char* kernel) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    auto found = runs.find(kernel);
    return found == runs.end() ? 0 : found->second;
}

// For tests: after `passing` launches of kernels and graphs the next `failing` find no memory.
EXPORT void emulated_fail_launches(long long passing, long long failing) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    launches_until_fault = passing;
    faulty_launches = failing;
}
// For tests: what streams have been given and is not done yet.
EXPORT long long emulated_pending() {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    return (long long)pending();
}

EXPORT int cuInit(unsigned flags) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    if (flags != 0) return INVALID_VALUE;
    auto variable = [](const char* name) { return std::string(getenv(name) != nullptr ? getenv(name) : ""); };
    fault_asked = variable("XCLIP_EMULATED_FAULT");
    if (fault_asked == "no-device") return NO_DEVICE;
    if (fault_asked.compare(0, 5, "init:") == 0) return atoi(fault_asked.c_str() + 5);
    if (!initialized) {
        std::string memory = variable("XCLIP_EMULATED_MEMORY"), chip = variable("XCLIP_EMULATED_CAPABILITY");
        if (!memory.empty()) set_memory_limit((size_t)atoll(memory.c_str()) << 20);
        std::istringstream chips(chip.empty() ? "9.0" : chip);
        for (std::string each; std::getline(chips, each, ',');) {
            capabilities.push_back((int)(atof(each.c_str()) * 10 + 0.5));
        }
        if (fault_asked.compare(0, 5, "lost:") == 0) kernels_until_lost = atoll(fault_asked.c_str() + 5);
    }
    initialized = true;
    return SUCCESS;
}

EXPORT int cuDriverGetVersion(int* version) {
    std::string fault = getenv("XCLIP_EMULATED_FAULT") != nullptr ? getenv("XCLIP_EMULATED_FAULT") : "";
    *version = fault == "old-driver" ? 11040 : 12000;
    return SUCCESS;
}

EXPORT int cuDeviceGetCount(int* count) {
    if (!initialized) return NOT_INITIALIZED;
    *count = (int)capabilities.size();
    return SUCCESS;
}

EXPORT int cuDeviceGet(int* device, int ordinal) {
    if (!initialized) return NOT_INITIALIZED;
    if (!is_ordinal(ordinal)) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}

EXPORT int cuDeviceGetName(char* name, int bytes, int device) {
    if (!is_ordinal(device)) return INVALID_DEVICE;
    snprintf(name, (size_t)bytes, "emulated device");
    return SUCCESS;
}

EXPORT int cuDeviceTotalMem_v2(size_t* bytes, int device) {
    if (!is_ordinal(device)) return INVALID_DEVICE;
    *bytes = memory_limit();
    return SUCCESS;
}

EXPORT int cuDeviceGetAttribute(int* value, int attribute, int device) {
    if (!is_ordinal(device)) return INVALID_DEVICE;
    switch (attribute) {
    case 1: *value = 1024; break;             // threads of a block
    case 2: case 3: *value = 1024; break;     // … along x, y
    case 4: *value = 64; break;               // … along z
    case 5: *value = 0x7fffffff; break;       // blocks along x
    case 6: case 7: *value = 65535; break;    // … along y, z
    case 8: *value = 48 << 10; break;         // shared memory of a block
    case 10: *value = 32; break;              // lanes of a warp
    case 16: *value = 132; break;             // multiprocessors
    case 38: *value = 50 << 20; break;        // bytes of L2
    case 39: *value = 2048; break;            // threads of a multiprocessor
    case 75: *value = capabilities[(size_t)device] / 10; break;
    case 76: *value = capabilities[(size_t)device] % 10; break;
    case 97: *value = OPT_IN_SHARED; break;
    case 115: *value = 0; break;              // memory pools
    default: return INVALID_VALUE;
    }
    return SUCCESS;
}

EXPORT int cuDevicePrimaryCtxRetain(void** context, int device) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    if (!initialized) return NOT_INITIALIZED;
    if (!is_ordinal(device)) return INVALID_DEVICE;
    if (device == 0 && fault_asked.compare(0, 7, "retain:") == 0) return atoi(fault_asked.c_str() + 7);
    if (lost() != SUCCESS) return lost();
    if (primary(device) == nullptr) contexts_made.push_back(std::make_unique<Context>(Context{device, 1}));
    else primary(device)->users++;
    *context = primary(device);
    return SUCCESS;
}
EXPORT int cuDevicePrimaryCtxRelease_v2(int device) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    if (!is_ordinal(device)) return INVALID_DEVICE;
    if (primary(device) == nullptr) return INVALID_CONTEXT;
    primary(device)->users--;
    return SUCCESS;
}
EXPORT int cuCtxSetCurrent(void* context) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    if (context != nullptr && !is_alive(context)) return CONTEXT_IS_DESTROYED;
    if (!contexts.empty()) contexts.pop_back();
    if (context != nullptr) contexts.push_back(context);
    return lost();
}
EXPORT int cuCtxPushCurrent_v2(void* context) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    if (context == nullptr) return INVALID_CONTEXT;
    if (!is_alive(context)) return CONTEXT_IS_DESTROYED;
    contexts.push_back(context);
    return SUCCESS;
}
EXPORT int cuCtxPopCurrent_v2(void** context) {
    if (contexts.empty()) return INVALID_CONTEXT;
    *context = contexts.back();
    contexts.pop_back();
    return SUCCESS;
}
EXPORT int cuCtxGetCurrent(void** context) {
    *context = contexts.empty() ? nullptr : contexts.back();
    return SUCCESS;
}
EXPORT int cuCtxSynchronize() {
    BEGIN;
    return synchronize_all();
}

EXPORT int cuMemGetInfo_v2(size_t* free, size_t* total) {
    BEGIN;
    *total = memory_limit();
    *free = *total - memory_used();
    return SUCCESS;
}

EXPORT int cuMemAlloc_v2(uint64_t* address, size_t bytes) {
    BEGIN;
    if (Status status = unsafe_while_capturing()) return status;
    if (bytes == 0) return INVALID_VALUE;
    *address = allocate(bytes);
    return *address != 0 ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemFree_v2(uint64_t address) {
    BEGIN;
    // It waits for the device.
    if (Status status = synchronize_all()) return status;
    return release(address) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuMemHostAlloc(void** memory, size_t bytes, unsigned) {
    BEGIN;
    if (Status status = unsafe_while_capturing()) return status;
    *memory = allocate_pinned(bytes);
    return *memory != nullptr ? SUCCESS : OUT_OF_MEMORY;
}

EXPORT int cuMemFreeHost(void* memory) {
    BEGIN;
    if (Status status = synchronize_all()) return status;
    return release_pinned(memory) ? SUCCESS : INVALID_VALUE;
}

EXPORT int cuMemcpyHtoDAsync_v2(uint64_t to, const void* from, size_t bytes, void* stream) {
    BEGIN;
    STREAM(in, stream);
    void* target = (void*)to;
    if (!is_device(target, bytes)) return INVALID_VALUE;
    // Also memory that may be paged out is read when its turn comes: the call may return before, says cuda.h.
    return enqueue(in, [=] { return copy(target, from, bytes, true, false); });
}

EXPORT int cuMemcpyDtoHAsync_v2(void* to, uint64_t from, size_t bytes, void* stream) {
    BEGIN;
    STREAM(in, stream);
    const void* source = (const void*)from;
    if (!is_device(source, bytes)) return INVALID_VALUE;
    Status status = enqueue(in, [=] { return copy(to, source, bytes, false, true); });
    // Into memory that may be paged out it returns when it is done.
    if (status == SUCCESS && in->capture == nullptr && !is_pinned(to, bytes)) return synchronize(in);
    return status;
}

EXPORT int cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void* stream) {
    BEGIN;
    STREAM(in, stream);
    if (!is_device((void*)to, bytes) || !is_device((void*)from, bytes)) return INVALID_VALUE;
    return enqueue(in, [=] { return copy((void*)to, (void*)from, bytes, true, true); });
}

EXPORT int cuMemsetD8Async(uint64_t to, unsigned char value, size_t bytes, void* stream) {
    BEGIN;
    STREAM(in, stream);
    if (!is_device((void*)to, bytes)) return INVALID_VALUE;
    return enqueue(in, [=]() -> Status {
        if (!is_device((void*)to, bytes)) return ILLEGAL_ADDRESS;
        memset((void*)to, value, bytes);
        return SUCCESS;
    });
}

EXPORT int cuStreamCreate(void** stream, unsigned flags) {
    BEGIN;
    if (flags > 1) return INVALID_VALUE;
    *stream = create_stream(flags == 0);
    return SUCCESS;
}

EXPORT int cuStreamDestroy_v2(void* stream) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    Stream* gone = stream_of(stream);
    if (stream == nullptr || !is_stream(gone)) return INVALID_HANDLE;
    return destroy_stream(gone);
}

EXPORT int cuStreamSynchronize(void* stream) {
    BEGIN;
    STREAM(in, stream);
    return synchronize(in);
}

EXPORT int cuStreamWaitEvent(void* stream, void* event, unsigned) {
    BEGIN;
    STREAM(in, stream);
    runs["cuStreamWaitEvent"]++;
    return wait(in, static_cast<Event*>(event));
}

EXPORT int cuStreamBeginCapture_v2(void* stream, int mode) {
    BEGIN;
    STREAM(in, stream);
    return begin_capture(in, mode);
}

EXPORT int cuStreamEndCapture(void* stream, void** graph) {
    BEGIN;
    STREAM(in, stream);
    *graph = nullptr;
    auto nodes = std::make_shared<Nodes>();
    if (Status status = end_capture(in, *nodes)) return status;
    *graph = new Graph{nodes, 0};
    return SUCCESS;
}

EXPORT int cuStreamIsCapturing(void* stream, int* status) {
    BEGIN;
    STREAM(in, stream);
    *status = in->capture == nullptr ? 0 : in->capture->invalid ? 2 : 1;
    return SUCCESS;
}

EXPORT int cuEventCreate(void** event, unsigned flags) {
    BEGIN;
    const unsigned DISABLE_TIMING = 2;
    *event = new Event{(flags & DISABLE_TIMING) == 0, nullptr, nullptr, {}};
    return SUCCESS;
}
EXPORT int cuEventDestroy_v2(void* event) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    delete static_cast<Event*>(event);
    return SUCCESS;
}
EXPORT int cuEventRecord(void* event, void* stream) {
    BEGIN;
    STREAM(in, stream);
    runs["cuEventRecord"]++;
    return record(static_cast<Event*>(event), in);
}
EXPORT int cuEventSynchronize(void* event) {
    BEGIN;
    return synchronize(static_cast<Event*>(event));
}
EXPORT int cuEventElapsedTime(float* milliseconds, void* from, void* to) {
    BEGIN;
    auto *begin = static_cast<Event*>(from), *end = static_cast<Event*>(to);
    if (!begin->timed || !end->timed || begin->mark == nullptr || end->mark == nullptr) return INVALID_HANDLE;
    if (!begin->mark->done || !end->mark->done) return NOT_READY;
    *milliseconds = (float)(end->mark->milliseconds - begin->mark->milliseconds);
    return SUCCESS;
}

EXPORT int cuModuleLoadData(void** module, const void* data) {
    BEGIN;
    if (Status status = unsafe_while_capturing()) return status;
    if (fault_asked == "no-image") return NO_BINARY_FOR_GPU;
    std::string image = image_at(data);
    if (fault_asked == "no-cubin" && image.compare(0, 4, "\x7f" "ELF") == 0) return NO_BINARY_FOR_GPU;
    int device = static_cast<Context*>(contexts.back())->device;
    if (Status status = fits(image, capabilities[(size_t)device])) return status;
    *module = new Module{std::move(image)};
    return SUCCESS;
}
EXPORT int cuModuleUnload(void* module) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    delete static_cast<Module*>(module);
    return SUCCESS;
}
EXPORT int cuModuleGetFunction(void** function, void* module, const char* name) {
    BEGIN;
    const Kernel* kernel = find_kernel(name);
    if (kernel == nullptr || !has_kernel(static_cast<Module*>(module)->image, name)) return NOT_FOUND;
    auto made = std::make_unique<Function>();
    made->kernel = kernel;
    *function = made.get();
    functions[made.get()] = std::move(made);
    return SUCCESS;
}
EXPORT int cuFuncSetAttribute(void* function, int attribute, int value) {
    BEGIN;
    const int MAX_DYNAMIC_SHARED = 8;
    if (functions.count(static_cast<Function*>(function)) == 0) return INVALID_HANDLE;
    if (attribute != MAX_DYNAMIC_SHARED || value < 0 || (unsigned)value > OPT_IN_SHARED) return INVALID_VALUE;
    static_cast<Function*>(function)->most_shared = (unsigned)value;
    return SUCCESS;
}

EXPORT int cuLaunchKernel(void* function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                          unsigned block_y, unsigned block_z, unsigned shared, void* stream, void** parameters,
                          void** extra) {
    BEGIN;
    STREAM(in, stream);
    auto* what = static_cast<Function*>(function);
    if (functions.count(what) == 0) return INVALID_HANDLE;
    const Kernel& kernel = *what->kernel;
    if (extra != nullptr || grid_x == 0 || grid_y == 0 || grid_z == 0 || grid_x > 0x7fffffff || grid_y > 65535 ||
        grid_z > 65535 || block_x == 0 || block_y == 0 || block_z == 0 || block_x > 1024 || block_y > 1024 ||
        block_z > 64 || (unsigned long long)block_x * block_y * block_z > 1024 || shared > what->most_shared) {
        return say(INVALID_VALUE, kernel.name, "launch geometry beyond the device's limits");
    }
    if (block_x * block_y * block_z > kernel.most_threads) {
        return say(LAUNCH_OUT_OF_RESOURCES, kernel.name, "more threads than its __launch_bounds__");
    }
    if (Status status = launch_fault()) return status;
    Launch launch{{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared};
    Bound bound = kernel.bind(parameters);
    return enqueue(in, [&kernel, launch, bound] { return run_kernel(kernel, launch, bound); });
}

EXPORT int cuGraphInstantiateWithFlags(void** executable, void* graph, unsigned long long) {
    BEGIN;
    const size_t bytes = memory_limit() / 1024;
    if (!reserve(bytes)) return OUT_OF_MEMORY;
    *executable = new Graph{static_cast<Graph*>(graph)->nodes, bytes};
    return SUCCESS;
}
EXPORT int cuGraphLaunch(void* executable, void* stream) {
    BEGIN;
    STREAM(in, stream);
    if (Status status = launch_fault()) return status;
    return launch(static_cast<Graph*>(executable)->nodes, in);
}
EXPORT int cuGraphDestroy(void* graph) {
    std::lock_guard<std::recursive_mutex> guard(device_lock());
    auto* gone = static_cast<Graph*>(graph);
    give_back(gone->bytes);
    delete gone;
    return SUCCESS;
}
EXPORT int cuGraphExecDestroy(void* executable) { return cuGraphDestroy(executable); }
