// Streams: queues of what was asked for, run no sooner than somebody waits for it.
//
// A GPU may do what is queued at any time until then. Here it is done at the last moment, and in an order between streams
// that a seed chooses, so that a program that forgets to wait, or gives up memory too soon, is not lucky.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace cuda_on_cpu {

using Code = int;  // CUresult; 0 is success
using Address = uint64_t;

struct Stream;
struct Event;

struct Operation {
  std::string what;                                // for reports
  std::vector<std::pair<Address, size_t>> memory;  // of the device, and of the host where it is read late, that it names
  std::function<Code()> run;
};

Stream *make_stream();
bool is_stream(const Stream *stream);
// Does what is left in it, and ends it.
void end_stream(Stream *stream);

void enqueue(Stream *stream, Operation operation);

// Does all that is queued in a stream, and what that waits for in others; the first failure, which stays the stream's.
Code drain(Stream *stream);
// Does all that is queued in any stream (of those that this OS thread made, unless `everyone`), in an order between them
// that the seed chooses.
Code drain_all(uint32_t seed, bool everyone);

Event *make_event();
void end_event(Event *event);
// The event is what is queued so far.
void record(Event *event, Stream *stream);
// What is queued from now on in the stream comes behind the event.
void wait(Stream *stream, Event *event);
bool has_happened(const Event *event);
// Does what the event is.
Code drain(Event *event);

// A queued operation that names any of these bytes, or "".
std::string waiting_for(Address first, size_t bytes);
// Fails every stream in which an operation names any of these bytes.
void fail_those_that_name(Address first, size_t bytes, Code code);

}  // namespace cuda_on_cpu
