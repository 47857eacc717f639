// Blocks, warps and fibers: how a kernel's threads run (see emulated.hpp).
//
// Thread order is a choice of the device, so XCLIP_EMULATED_ORDER=reverse turns it round: blocks, warps and
// lanes then run from the last to the first, and a result that depended on the order differs.
#include "emulated.hpp"
#include "immortal.hpp"

#include <array>
#include <csetjmp>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

extern "C" {
// Bounds of the static shared memory; absent where no kernel has any.
extern char __start_emulated_shared[] __attribute__((weak));
extern char __stop_emulated_shared[] __attribute__((weak));
}

namespace emulated {
namespace {

constexpr unsigned WARP = 32, MOST_THREADS = 1024;
constexpr size_t STACK = 64 << 10, MOST_SHARED = 256 << 10;
const size_t PAGE = (size_t)sysconf(_SC_PAGESIZE);

#if defined(__x86_64__)
// Saves the registers that calls preserve on the stack that runs and takes up another where it left off.
extern "C" void emulated_switch(void** save, void* to);
asm(R"(
.text
.hidden emulated_switch
.globl emulated_switch
.type emulated_switch, @function
emulated_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
.size emulated_switch, .-emulated_switch
)");
struct Context {
    void* stack = nullptr;
    void start(char* bottom, size_t size, void (*entry)()) {
        void** top = reinterpret_cast<void**>(bottom + size);
        *--top = nullptr;
        *--top = reinterpret_cast<void*>(entry);
        for (int i = 0; i < 6; i++) *--top = nullptr;
        stack = top;
    }
};
inline void switch_to(Context& from, Context& to) { emulated_switch(&from.stack, to.stack); }
#else
struct Context {
    ucontext_t state;
    void start(char* bottom, size_t size, void (*entry)()) {
        getcontext(&state);
        state.uc_stack.ss_sp = bottom;
        state.uc_stack.ss_size = size;
        state.uc_link = nullptr;
        makecontext(&state, entry, 0);
    }
};
inline void switch_to(Context& from, Context& to) { swapcontext(&from.state, &to.state); }
#endif

struct Copy {
    void* to;
    const void* from;
    bool valid;
    unsigned group;
};

enum class State { Fresh, Ready, Waiting, Barrier, Done };

struct Fiber {
    Context context;
    State state;
    char* stack;
    std::vector<Copy> copies;
    unsigned groups;
};

struct Warp {
    void* arguments[WARP];
    Collective act;
    uint32_t mask, arrived;
};

auto& fibers = immortal<std::array<Fiber, MOST_THREADS>>();
Warp warps[MOST_THREADS / WARP];
Context scheduler;
Fiber* current;
unsigned threads, current_thread;
bool reverse;
char *stacks, *shared_end;
size_t shared_bytes;
void (*entry_kernel)(void*);
void* entry_context;
sigjmp_buf escape;
volatile sig_atomic_t running;
auto& message = immortal<std::string>();

void entry() {
    for (;;) {
        entry_kernel(entry_context);
        current->state = State::Done;
        switch_to(current->context, scheduler);
    }
}

void place(unsigned thread) {
    threadIdx.x = thread % blockDim.x;
    threadIdx.y = thread / blockDim.x % blockDim.y;
    threadIdx.z = thread / blockDim.x / blockDim.y;
    current_thread = thread;
    current = &fibers[thread];
}

void wait_as(State state) {
    current->state = state;
    switch_to(current->context, scheduler);
}

void describe(const char* what) {
    char text[512];
    snprintf(text, sizeof text, "%s (block %u,%u,%u thread %u,%u,%u of grid %u,%u,%u block %u,%u,%u)", what, blockIdx.x,
             blockIdx.y, blockIdx.z, threadIdx.x, threadIdx.y, threadIdx.z, gridDim.x, gridDim.y, gridDim.z,
             blockDim.x, blockDim.y, blockDim.z);
    message = text;
}

struct sigaction before_segv, before_bus, before_ill;

// An access outside what the device has mapped, or a trap the compiler set for a misaligned one. Elsewhere
// than in a kernel it is none of ours.
void on_signal(int number, siginfo_t* info, void* context) {
    if (running) {
        char text[160];
        if (number == SIGILL) {
            snprintf(text, sizeof text, "misaligned access, or an index outside of a local array");
        } else if (number == SIGSEGV && info->si_code == SI_KERNEL) {
            snprintf(text, sizeof text, "misaligned access");
        } else {
            snprintf(text, sizeof text, "access to %p, which is outside of every allocation", info->si_addr);
        }
        running = 0;
        describe(text);
        siglongjmp(escape, 1);
    }
    const struct sigaction& before = number == SIGILL ? before_ill : number == SIGBUS ? before_bus : before_segv;
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(number, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(number);
    } else {
        signal(number, SIG_DFL);
        raise(number);
    }
}

void catch_signals() {
    struct sigaction action = {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    sigaction(SIGSEGV, &action, &before_segv);
    sigaction(SIGBUS, &action, &before_bus);
    sigaction(SIGILL, &action, &before_ill);
}

// A stack that has run over needs another one for the handler.
void need_signal_stack() {
    stack_t have = {};
    sigaltstack(nullptr, &have);
    if (!(have.ss_flags & SS_DISABLE)) return;
    static thread_local char memory[32 << 10];
    stack_t own = {};
    own.ss_sp = memory;
    own.ss_size = sizeof memory;
    sigaltstack(&own, nullptr);
}

void* map(size_t bytes) {
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) {
        perror("emulated device: mmap");
        abort();
    }
    return memory;
}

void prepare() {
    if (stacks != nullptr) return;
    stacks = static_cast<char*>(map(MOST_THREADS * (STACK + PAGE)));
    for (unsigned i = 0; i < MOST_THREADS; i++) {
        char* guard = stacks + i * (STACK + PAGE);
        mprotect(guard, PAGE, PROT_NONE);
        fibers[i].stack = guard + PAGE;
    }
    char* shared = static_cast<char*>(map(MOST_SHARED + PAGE));
    shared_end = shared + MOST_SHARED;
    mprotect(shared_end, PAGE, PROT_NONE);
    const char* order = getenv("XCLIP_EMULATED_ORDER");
    reverse = order != nullptr && strcmp(order, "reverse") == 0;
    catch_signals();
}

// Goes on until every live lane of the warp waits for other warps; whether any lane ran.
bool run_warp(unsigned first, unsigned end) {
    bool ran = false;
    for (bool again = true; again;) {
        again = false;
        for (unsigned i = first; i < end; i++) {
            unsigned thread = reverse ? first + end - 1 - i : i;
            Fiber& fiber = fibers[thread];
            if (fiber.state != State::Fresh && fiber.state != State::Ready) continue;
            if (fiber.state == State::Fresh) fiber.context.start(fiber.stack, STACK, entry);
            place(thread);
            fiber.state = State::Ready;
            switch_to(scheduler, fiber.context);
            ran = again = true;
        }
    }
    return ran;
}

void run_block() {
    for (unsigned i = 0; i < threads; i++) {
        fibers[i].state = State::Fresh;
        fibers[i].copies.clear();
        fibers[i].groups = 0;
    }
    unsigned count = (threads + WARP - 1) / WARP;
    for (unsigned i = 0; i < count; i++) warps[i].arrived = 0;
    memset(shared_end - shared_bytes, 0xff, shared_bytes);
    if (__start_emulated_shared != nullptr) {
        memset(__start_emulated_shared, 0xff, __stop_emulated_shared - __start_emulated_shared);
    }
    for (;;) {
        bool ran = false;
        for (unsigned i = 0; i < count; i++) {
            unsigned warp = reverse ? count - 1 - i : i;
            unsigned end = std::min(threads, (warp + 1) * WARP);
            ran |= run_warp(warp * WARP, end);
        }
        unsigned done = 0, at_barrier = 0;
        for (unsigned i = 0; i < threads; i++) {
            done += fibers[i].state == State::Done;
            at_barrier += fibers[i].state == State::Barrier;
        }
        if (done == threads) return;
        if (at_barrier > 0 && done + at_barrier == threads) {
            // Threads that have ended are not waited for, as since Volta.
            for (unsigned i = 0; i < threads; i++) {
                if (fibers[i].state == State::Barrier) fibers[i].state = State::Ready;
            }
        } else if (!ran) {
            for (unsigned i = 0; i < threads; i++) {
                if (fibers[i].state == State::Waiting) {
                    place(i);
                    break;
                }
            }
            fault("a warp collective waits for lanes that never arrive");
        }
    }
}

}  // namespace

void fault(const char* what) {
    running = 0;
    describe(what);
    siglongjmp(escape, 1);
}

void* dynamic_shared() { return shared_end - shared_bytes; }

void barrier() { wait_as(State::Barrier); }

void collective(Collective act, void* arguments, uint32_t mask) {
    unsigned warp_number = current_thread / WARP, lane = current_thread % WARP;
    Warp& warp = warps[warp_number];
    if (threads - warp_number * WARP < WARP) mask &= (1u << threads % WARP) - 1;
    if (!(mask >> lane & 1)) fault("a warp collective whose mask leaves out the caller");
    if (warp.arrived == 0) {
        warp.act = act;
        warp.mask = mask;
        memset(warp.arguments, 0, sizeof warp.arguments);
    } else if (warp.act != act || warp.mask != mask) {
        fault("lanes of a warp meet in different collectives");
    }
    warp.arguments[lane] = arguments;
    warp.arrived |= 1u << lane;
    if (warp.arrived != mask) {
        wait_as(State::Waiting);
        return;
    }
    act(warp.arguments);
    warp.arrived = 0;
    for (unsigned i = 0; i < WARP; i++) {
        if ((mask >> i & 1) && i != lane) fibers[warp_number * WARP + i].state = State::Ready;
    }
}

void copy_async(void* shared, const void* global, bool valid) {
    if ((uintptr_t)shared % 16 != 0 || (valid && (uintptr_t)global % 16 != 0)) {
        fault("copy_async_16 with a misaligned address");
    }
    const char* at = static_cast<char*>(shared);
    if (at < shared_end - shared_bytes || at + 16 > shared_end) {
        if (__start_emulated_shared == nullptr || at < __start_emulated_shared || at + 16 > __stop_emulated_shared) {
            fault("copy_async_16 to an address that is not in shared memory");
        }
    }
    current->copies.push_back({shared, global, valid, current->groups});
}

void copy_async_commit() { current->groups++; }

void copy_async_wait(int latest) {
    auto& copies = current->copies;
    // Copies of a group that is not closed are nobody's to wait for.
    size_t kept = 0;
    for (const Copy& copy : copies) {
        if (copy.group + (unsigned)latest >= current->groups) {
            copies[kept++] = copy;
        } else if (copy.valid) {
            memcpy(copy.to, copy.from, 16);
        } else {
            memset(copy.to, 0, 16);
        }
    }
    copies.resize(kept);
}

const char* run(const Launch& launch, void (*kernel)(void*), void* context) {
    prepare();
    need_signal_stack();
    message.clear();
    gridDim = launch.grid;
    blockDim = launch.block;
    threads = launch.block.x * launch.block.y * launch.block.z;
    shared_bytes = (launch.dynamic_shared + 15) / 16 * 16;
    if (threads == 0 || threads > MOST_THREADS || shared_bytes > MOST_SHARED) return "launch beyond the limits";
    entry_kernel = kernel;
    entry_context = context;
    if (sigsetjmp(escape, 1) == 0) {
        running = 1;
        unsigned long long blocks = (unsigned long long)gridDim.x * gridDim.y * gridDim.z;
        for (unsigned long long i = 0; i < blocks; i++) {
            unsigned long long block = reverse ? blocks - 1 - i : i;
            blockIdx.x = (unsigned)(block % gridDim.x);
            blockIdx.y = (unsigned)(block / gridDim.x % gridDim.y);
            blockIdx.z = (unsigned)(block / gridDim.x / gridDim.y);
            run_block();
        }
    }
    running = 0;
    return message.c_str();
}

}  // namespace emulated
