// Work in the order that streams, events and graphs give it, done as late as CUDA allows.
//
// Nothing runs before something waits for it, and then only what that wait needs: work of another stream
// that no event ties to it stays where it is. A forgotten wait therefore reads what is not there yet.
// XCLIP_EMULATED_ORDER=reverse takes the ready nodes of a graph from the last to the first.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

namespace emulated {

// CUresult
enum Status {
    SUCCESS = 0,
    INVALID_VALUE = 1,
    OUT_OF_MEMORY = 2,
    NOT_INITIALIZED = 3,
    STUB_LIBRARY = 34,
    DEVICE_UNAVAILABLE = 46,
    NO_DEVICE = 100,
    INVALID_DEVICE = 101,
    INVALID_IMAGE = 200,
    INVALID_CONTEXT = 201,
    NO_BINARY_FOR_GPU = 209,
    ECC_UNCORRECTABLE = 214,
    INVALID_HANDLE = 400,
    NOT_FOUND = 500,
    NOT_READY = 600,
    ILLEGAL_ADDRESS = 700,
    LAUNCH_OUT_OF_RESOURCES = 701,
    CONTEXT_IS_DESTROYED = 709,
    MISALIGNED_ADDRESS = 716,
    LAUNCH_FAILED = 719,
    SYSTEM_NOT_READY = 802,
    SYSTEM_DRIVER_MISMATCH = 803,
    MPS_SERVER_NOT_READY = 807,
    CAPTURE_UNSUPPORTED = 900,
    CAPTURE_INVALIDATED = 901,
    CAPTURE_UNMATCHED = 903,
    CAPTURE_UNJOINED = 904,
    CAPTURE_ISOLATION = 905,
    CAPTURED_EVENT = 907,
    CAPTURE_WRONG_THREAD = 908,
    UNKNOWN = 999,
};

// Whatever is not SUCCESS is final: the context is lost.
using Act = std::function<Status()>;

struct Node {
    Act act;
    // Indices of earlier nodes.
    std::vector<size_t> after;
};
using Nodes = std::vector<Node>;

struct Stream;

struct Capture {
    Nodes nodes;
    Stream* origin;
    int mode;
    std::thread::id thread;
    std::set<Stream*> streams;
    bool invalid = false;
};

// One recording of an event.
struct Mark {
    Stream* stream;
    bool done = false;
    double milliseconds = 0;
};

struct Stream {
    bool legacy = false, blocking = false;
    struct Entry {
        Act act;
        std::shared_ptr<Mark> record, wait;
    };
    std::deque<Entry> queue;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> tips;
};

struct Event {
    bool timed;
    std::shared_ptr<Mark> mark;
    std::shared_ptr<Capture> capture;
    std::vector<size_t> tips;
};

// Guards everything here and the device's memory.
std::recursive_mutex& device_lock();

// The error that has lost the context, or SUCCESS.
Status lost();
void lose(Status status);

Stream* legacy_stream();
Stream* create_stream(bool blocking);
bool is_stream(const Stream* stream);
// After its work is done.
Status destroy_stream(Stream* stream);

Status enqueue(Stream* stream, Act act);
Status synchronize(Stream* stream);
Status synchronize_all();
// Entries of all streams' queues.
size_t pending();
// CAPTURE_UNSUPPORTED where this thread captures and the call would spoil it.
Status unsafe_while_capturing();

Status record(Event* event, Stream* stream);
Status wait(Stream* stream, Event* event);
Status synchronize(Event* event);

Status begin_capture(Stream* stream, int mode);
Status end_capture(Stream* stream, Nodes& nodes);
Status launch(const std::shared_ptr<const Nodes>& nodes, Stream* stream);

}  // namespace emulated
