#include "work.hpp"
#include "immortal.hpp"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>

namespace emulated {
namespace {

auto& streams = immortal<std::set<Stream*>>();
auto& captures = immortal<std::set<std::shared_ptr<Capture>>>();
Status final_status = SUCCESS;

double now() {
    auto since = std::chrono::steady_clock::now().time_since_epoch();
    return std::chrono::duration<double, std::milli>(since).count();
}

Status perform(const Act& act) {
    if (final_status == SUCCESS) {
        Status status = act();
        if (status != SUCCESS) lose(status);
    }
    return final_status;
}

// Until the queue is empty, or `until` has passed.
void work_through(Stream* stream, const Mark* until) {
    while (!stream->queue.empty() && !(until != nullptr && until->done)) {
        Stream::Entry entry = std::move(stream->queue.front());
        stream->queue.pop_front();
        if (entry.wait != nullptr) {
            if (!entry.wait->done) work_through(entry.wait->stream, entry.wait.get());
        } else if (entry.record != nullptr) {
            entry.record->done = true;
            entry.record->milliseconds = now();
        } else {
            perform(entry.act);
        }
    }
}

Status run_graph(const Nodes& nodes) {
    const char* order = getenv("XCLIP_EMULATED_ORDER");
    if (order == nullptr || strcmp(order, "reverse") != 0) {
        for (const Node& node : nodes) {
            if (perform(node.act) != SUCCESS) break;
        }
        return final_status;
    }
    std::vector<size_t> missing(nodes.size());
    std::vector<std::vector<size_t>> followers(nodes.size());
    std::set<size_t> ready;
    for (size_t i = 0; i < nodes.size(); i++) {
        missing[i] = nodes[i].after.size();
        for (size_t before : nodes[i].after) followers[before].push_back(i);
        if (missing[i] == 0) ready.insert(i);
    }
    while (!ready.empty()) {
        size_t last = *ready.rbegin();
        ready.erase(last);
        if (perform(nodes[last].act) != SUCCESS) break;
        for (size_t follower : followers[last]) {
            if (--missing[follower] == 0) ready.insert(follower);
        }
    }
    return final_status;
}

void add_tips(std::vector<size_t>& tips, const std::vector<size_t>& more) {
    for (size_t tip : more) {
        if (std::find(tips.begin(), tips.end(), tip) == tips.end()) tips.push_back(tip);
    }
}

void leave(const std::shared_ptr<Capture>& capture) {
    for (Stream* stream : capture->streams) {
        stream->capture = nullptr;
        stream->tips.clear();
    }
    captures.erase(capture);
}

}  // namespace

std::recursive_mutex& device_lock() {
    static std::recursive_mutex lock;
    return lock;
}

Status lost() { return final_status; }
void lose(Status status) {
    if (final_status == SUCCESS) final_status = status;
}

Stream* legacy_stream() {
    static Stream* stream = [] {
        auto* legacy = new Stream;
        legacy->legacy = true;
        return legacy;
    }();
    return stream;
}

Stream* create_stream(bool blocking) {
    auto* stream = new Stream;
    stream->blocking = blocking;
    streams.insert(stream);
    return stream;
}

bool is_stream(const Stream* stream) {
    return stream == legacy_stream() || streams.count(const_cast<Stream*>(stream)) != 0;
}

Status destroy_stream(Stream* stream) {
    if (stream->capture != nullptr) return CAPTURE_UNSUPPORTED;
    work_through(stream, nullptr);
    streams.erase(stream);
    // Its marks are all done, so nothing looks at it any more.
    delete stream;
    return final_status;
}

Status enqueue(Stream* stream, Act act) {
    if (stream->capture != nullptr) {
        stream->capture->nodes.push_back({std::move(act), stream->tips});
        stream->tips = {stream->capture->nodes.size() - 1};
        return SUCCESS;
    }
    stream->queue.push_back({std::move(act), nullptr, nullptr});
    // The legacy stream waits for all blocking ones, and they for it.
    if (stream->legacy) return synchronize(stream);
    return final_status;
}

Status synchronize(Stream* stream) {
    if (stream->capture != nullptr) {
        stream->capture->invalid = true;
        return CAPTURE_UNSUPPORTED;
    }
    if (stream->legacy) {
        for (Stream* other : streams) {
            if (other->blocking) work_through(other, nullptr);
        }
    }
    work_through(stream, nullptr);
    return final_status;
}

Status synchronize_all() {
    if (Status status = unsafe_while_capturing()) return status;
    work_through(legacy_stream(), nullptr);
    for (Stream* stream : streams) work_through(stream, nullptr);
    return final_status;
}

size_t pending() {
    size_t entries = 0;
    for (Stream* stream : streams) entries += stream->queue.size();
    return entries;
}

Status unsafe_while_capturing() {
    const int GLOBAL = 0, THREAD_LOCAL = 1;
    for (auto& capture : captures) {
        bool own = capture->thread == std::this_thread::get_id();
        if (capture->mode == GLOBAL || (capture->mode == THREAD_LOCAL && own)) {
            capture->invalid = true;
            return CAPTURE_UNSUPPORTED;
        }
    }
    return SUCCESS;
}

Status record(Event* event, Stream* stream) {
    if (stream->capture != nullptr) {
        event->capture = stream->capture;
        event->tips = stream->tips;
        event->mark = nullptr;
        return SUCCESS;
    }
    event->capture = nullptr;
    event->mark = std::make_shared<Mark>();
    event->mark->stream = stream;
    stream->queue.push_back({nullptr, event->mark, nullptr});
    if (stream->legacy) return synchronize(stream);
    return final_status;
}

Status wait(Stream* stream, Event* event) {
    if (event->capture != nullptr) {
        if (captures.count(event->capture) == 0) return CAPTURED_EVENT;
        if (stream->capture == nullptr) {
            if (stream->legacy) return CAPTURE_ISOLATION;
            stream->capture = event->capture;
            stream->capture->streams.insert(stream);
            stream->tips = event->tips;
        } else if (stream->capture != event->capture) {
            return CAPTURE_ISOLATION;
        } else {
            add_tips(stream->tips, event->tips);
        }
        return SUCCESS;
    }
    if (stream->capture != nullptr) {
        // A recording from outside of the capture has no node to wait for.
        if (event->mark == nullptr) return SUCCESS;
        stream->capture->invalid = true;
        return CAPTURE_ISOLATION;
    }
    if (event->mark != nullptr && event->mark->stream != stream) {
        stream->queue.push_back({nullptr, nullptr, event->mark});
    }
    return final_status;
}

Status synchronize(Event* event) {
    if (event->capture != nullptr) return CAPTURED_EVENT;
    if (event->mark != nullptr && !event->mark->done) work_through(event->mark->stream, event->mark.get());
    return final_status;
}

Status begin_capture(Stream* stream, int mode) {
    if (stream->legacy || stream->capture != nullptr) return CAPTURE_UNSUPPORTED;
    auto capture = std::make_shared<Capture>();
    capture->origin = stream;
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->streams.insert(stream);
    stream->capture = capture;
    stream->tips.clear();
    captures.insert(capture);
    return SUCCESS;
}

Status end_capture(Stream* stream, Nodes& nodes) {
    auto capture = stream->capture;
    if (capture == nullptr) return INVALID_VALUE;
    if (capture->origin != stream) return CAPTURE_UNMATCHED;
    const int RELAXED = 2;
    if (capture->mode != RELAXED && capture->thread != std::this_thread::get_id()) return CAPTURE_WRONG_THREAD;
    // All must lead to what the first stream waits for, or a branch would be cut off.
    std::vector<bool> reached(capture->nodes.size(), false);
    for (size_t tip : stream->tips) reached[tip] = true;
    for (size_t i = capture->nodes.size(); i-- > 0;) {
        if (!reached[i]) continue;
        for (size_t before : capture->nodes[i].after) reached[before] = true;
    }
    bool joined = std::all_of(reached.begin(), reached.end(), [](bool r) { return r; });
    bool invalid = capture->invalid;
    leave(capture);
    if (invalid) return CAPTURE_INVALIDATED;
    if (!joined) return CAPTURE_UNJOINED;
    nodes = std::move(capture->nodes);
    return SUCCESS;
}

Status launch(const std::shared_ptr<const Nodes>& nodes, Stream* stream) {
    return enqueue(stream, [nodes] { return run_graph(*nodes); });
}

}  // namespace emulated
