// The part of the machine that a kernel does not see: threads, blocks, barriers and warps on one CPU core.
//
// Every CUDA thread runs in a fiber and keeps the core until it waits at a barrier or a warp operation, or returns.
// A *pass* lets every thread that can run do so, once, in an order that the schedule sets; between two passes the
// barriers that are complete open. So whatever a kernel does between two barriers happens one thread after the other,
// and a result that depends on their order (a missing barrier, a race on memory) differs between schedules.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>

namespace cuda_on_cpu {

struct Index {
  uint32_t x, y, z;
  uint64_t volume() const { return uint64_t(x) * y * z; }
};

// The order in which threads take their turns within a pass, and blocks within a launch.
enum class Schedule : int { forward, reverse, shuffled /* anew for every pass */ };

// Of a thread; its address is a multiple of its size, so that the stack pointer tells what lies in it.
constexpr size_t stack_bytes = 256 * 1024;

struct Launch {
  Index grid, block;
  Schedule schedule;
  uint32_t seed;          // of `shuffled`
  uint32_t shared_bytes;  // dynamic shared memory
  const char *name;       // of the kernel, for reports
};

// Where in its source a kernel waits, for reports.
struct Site {
  const char *operation;
  const char *file;
  int line;
};

// What the lanes of a warp do together.
enum class WarpOperation { synchronise, ballot, exchange };

// What of its sizes a device refuses, or null.
const char *refusal(const Launch &launch);

// Runs `kernel` once for each thread of the launch. Null, or what was wrong (valid until the thread's next launch).
const char *run(const Launch &launch, const std::function<void()> &kernel);

// Called from within a kernel:

// Waits until every thread of the block that has not returned waits at the same site.
void wait_for_block(Site site);

// Waits until every lane in `mask` that has not returned does the same; gives the mask of lanes whose `value` is not
// zero (`ballot`), or lane `source`'s value (`exchange`).
uint64_t wait_for_warp(Site site, WarpOperation operation, uint32_t mask, uint64_t value, int source);

// The block's dynamic shared memory, aligned to 16 bytes.
float *dynamic_shared();

// The calling thread's lane in its warp.
int lane();

// What `threadIdx`, `blockIdx`, `blockDim`, `gridDim` read.
struct Position {
  Index thread, block, block_size, grid_size;
};
extern thread_local Position position;

}  // namespace cuda_on_cpu
