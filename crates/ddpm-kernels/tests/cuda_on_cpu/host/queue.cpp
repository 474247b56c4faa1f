#include "queue.h"

#include <algorithm>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>

namespace cuda_on_cpu {

struct Event {
  Stream *stream = nullptr;  // null: never recorded
  uint64_t after = 0;        // so many operations of it
};

struct Stream {
  struct Entry {
    Operation operation;
    Event event;  // to be waited for first
  };
  std::deque<Entry> entries;
  uint64_t queued = 0, done = 0;
  Code failure = 0;
  std::thread::id owner = std::this_thread::get_id();
};

namespace {

std::mutex mutex;
std::vector<std::unique_ptr<Stream>> streams;

bool is_known(const Stream *stream) {
  return std::any_of(streams.begin(), streams.end(), [=](const auto &s) { return s.get() == stream; });
}

bool meets(const Operation &operation, Address first, size_t bytes) {
  return std::any_of(operation.memory.begin(), operation.memory.end(),
                     [=](const auto &m) { return m.first < first + bytes && first < m.first + m.second; });
}

// Does the first operation of a stream, and what it waits for.
void advance(Stream *stream);

void advance_until(Stream *stream, uint64_t count) {
  for (;;) {
    {
      std::lock_guard<std::mutex> lock(mutex);
      if (!is_known(stream) || stream->done >= count) return;
    }
    advance(stream);
  }
}

void advance(Stream *stream) {
  Stream::Entry entry;
  Code failure;
  {
    std::lock_guard<std::mutex> lock(mutex);
    entry = std::move(stream->entries.front());
    stream->entries.pop_front();
    failure = stream->failure;
  }
  if (entry.event.stream) advance_until(entry.event.stream, entry.event.after);
  const Code code = failure || !entry.operation.run ? 0 : entry.operation.run();
  std::lock_guard<std::mutex> lock(mutex);
  ++stream->done;
  if (code && !stream->failure) stream->failure = code;
}

}  // namespace

Stream *make_stream() {
  std::lock_guard<std::mutex> lock(mutex);
  streams.push_back(std::make_unique<Stream>());
  return streams.back().get();
}

bool is_stream(const Stream *stream) {
  std::lock_guard<std::mutex> lock(mutex);
  return is_known(stream);
}

void end_stream(Stream *stream) {
  drain(stream);
  std::lock_guard<std::mutex> lock(mutex);
  streams.erase(std::remove_if(streams.begin(), streams.end(), [=](const auto &s) { return s.get() == stream; }),
                streams.end());
}

void enqueue(Stream *stream, Operation operation) {
  std::lock_guard<std::mutex> lock(mutex);
  stream->entries.push_back({std::move(operation), {}});
  ++stream->queued;
}

Code drain(Stream *stream) {
  uint64_t count;
  {
    std::lock_guard<std::mutex> lock(mutex);
    count = stream->queued;
  }
  advance_until(stream, count);
  std::lock_guard<std::mutex> lock(mutex);
  return stream->failure;
}

Code drain_all(uint32_t seed, bool everyone) {
  uint32_t random = seed * 2u + 1u;
  for (;;) {
    std::vector<Stream *> busy;
    Code failure = 0;
    {
      std::lock_guard<std::mutex> lock(mutex);
      for (const auto &stream : streams) {
        if (!everyone && stream->owner != std::this_thread::get_id()) continue;
        if (!stream->entries.empty()) busy.push_back(stream.get());
        if (!failure) failure = stream->failure;
      }
    }
    if (busy.empty()) return failure;
    random ^= random << 13;
    random ^= random >> 17;
    random ^= random << 5;
    advance(busy[random % busy.size()]);
  }
}

Event *make_event() { return new Event; }
void end_event(Event *event) { delete event; }

void record(Event *event, Stream *stream) {
  std::lock_guard<std::mutex> lock(mutex);
  *event = {stream, stream->queued};
}

void wait(Stream *stream, Event *event) {
  std::lock_guard<std::mutex> lock(mutex);
  if (!event->stream || event->stream == stream) return;
  stream->entries.push_back({{"a wait for an event", {}, {}}, *event});
  ++stream->queued;
}

bool has_happened(const Event *event) {
  std::lock_guard<std::mutex> lock(mutex);
  return !event->stream || !is_known(event->stream) || event->stream->done >= event->after;
}

Code drain(Event *event) {
  if (!event->stream) return 0;
  advance_until(event->stream, event->after);
  std::lock_guard<std::mutex> lock(mutex);
  return is_known(event->stream) ? event->stream->failure : 0;
}

std::string waiting_for(Address first, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  for (const auto &stream : streams)
    for (const auto &entry : stream->entries)
      if (meets(entry.operation, first, bytes)) return entry.operation.what;
  return "";
}

void fail_those_that_name(Address first, size_t bytes, Code code) {
  std::lock_guard<std::mutex> lock(mutex);
  for (const auto &stream : streams)
    for (const auto &entry : stream->entries)
      if (meets(entry.operation, first, bytes) && !stream->failure) stream->failure = code;
}

}  // namespace cuda_on_cpu
