#include "scheduler.h"

#define CUDA_ON_CPU_DEFINE_SWITCH
#include "checker.h"
#include "fiber.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace cuda_on_cpu {

thread_local Position position;

namespace {

constexpr int warp_size = 32;

enum class State { runnable, at_block_barrier, at_warp_operation, returned };

// A stack on which threads run, one after the other as long as none of them waits.
struct Fiber {
  struct alignas(stack_bytes) Stack {
    char bytes[stack_bytes];
  };
  Context context;
  std::unique_ptr<Stack> stack{new Stack};
};

struct Thread {
  Index index;
  State state = State::runnable;
  Fiber *fiber = nullptr;  // null: not begun yet
  Site site = {};
  // Of the warp operation it waits at; `value` is the result afterwards.
  WarpOperation operation = {};
  uint32_t mask = 0;
  uint64_t value = 0;
  int source = 0;
};

class Machine {
 public:
  const char *run(const Launch &launch, const std::function<void()> &kernel);
  void wait(State state);
  float *shared() { return shared_.data()->floats; }

  Thread *current = nullptr;
  std::vector<Thread> threads;
  std::string error;

 private:
  void run_block();
  void run_pass();
  bool open_block_barrier();
  bool open_warp_operations(size_t first);
  void finish(size_t first, size_t lanes, const Thread &like);
  std::string deadlock() const;
  void make_current(Thread *thread);
  Fiber *idle_fiber();
  void live_on(Fiber *self);
  static void fiber_entry();
  std::vector<uint32_t> order_of(size_t count);

  const std::function<void()> *kernel_ = nullptr;
  Launch launch_ = {};
  uint32_t random_ = 1;
  std::vector<uint32_t> order_;  // of the pass under way
  size_t next_ = 0;              // position in it
  Context scheduler_;
  struct alignas(16) Vector {
    float floats[4];
  };
  std::vector<Vector> shared_;  // dynamic shared memory of the block under way
  std::vector<std::unique_ptr<Fiber>> fibers_;
  std::vector<Fiber *> idle_;
};

thread_local std::unique_ptr<Machine> machine;

std::string describe(Index i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

std::string describe(Site s) {
  return std::string(s.operation) + " in " + s.file + ":" + std::to_string(s.line);
}

bool same(Site a, Site b) { return a.line == b.line && std::string(a.file) == b.file; }

Index unravel(uint64_t i, Index size) {
  return {uint32_t(i % size.x), uint32_t(i / size.x % size.y), uint32_t(i / size.x / size.y)};
}

std::vector<uint32_t> Machine::order_of(size_t count) {
  std::vector<uint32_t> order(count);
  for (size_t i = 0; i < count; ++i) order[i] = uint32_t(launch_.schedule == Schedule::reverse ? count - 1 - i : i);
  if (launch_.schedule == Schedule::shuffled) {
    for (size_t i = count; i > 1; --i) {  // Fisher and Yates, with Marsaglia's xorshift32
      random_ ^= random_ << 13;
      random_ ^= random_ >> 17;
      random_ ^= random_ << 5;
      std::swap(order[i - 1], order[random_ % i]);
    }
  }
  return order;
}

const char *Machine::run(const Launch &launch, const std::function<void()> &kernel) {
  launch_ = launch;
  kernel_ = &kernel;
  random_ = launch.seed * 2u + 1u;  // xorshift32 must not start at zero
  const char *refused = refusal(launch);
  error = refused ? refused : "";
  shared_.assign((launch.shared_bytes + 15) / 16, Vector{});
  if (error.empty()) {
    checker::launch_begins(launch, shared_.data());
    for (uint32_t block : order_of(launch.grid.volume())) {
      position = {{}, unravel(block, launch.grid), launch.block, launch.grid};
      checker::block_begins(block);
      run_block();
      checker::block_ends();
      if (!error.empty()) {
        error = "block " + describe(position.block) + ": " + error;
        break;
      }
    }
    checker::launch_ends();
  }
  return error.empty() ? nullptr : error.c_str();
}

void Machine::run_block() {
  threads.assign(launch_.block.volume(), Thread{});
  // what no thread of this block has written is NaN in every float
  if (!shared_.empty()) std::memset(shared_.data(), 0xff, shared_.size() * sizeof shared_[0]);
  for (size_t i = 0; i < threads.size(); ++i) threads[i].index = unravel(i, launch_.block);
  while (error.empty()) {
    run_pass();
    bool opened = open_block_barrier();
    for (size_t first = 0; first < threads.size(); first += warp_size) opened |= open_warp_operations(first);
    if (opened || !error.empty()) continue;
    for (const Thread &t : threads) {
      if (t.state != State::returned) {
        error = deadlock();
        return;
      }
    }
    return;
  }
}

void Machine::run_pass() {
  order_ = order_of(threads.size());
  next_ = 0;
  while (next_ < order_.size()) {
    Thread *thread = &threads[order_[next_++]];
    if (thread->state != State::runnable) continue;
    if (!thread->fiber) thread->fiber = idle_fiber();
    make_current(thread);
    switch_to(scheduler_, thread->fiber->context);
  }
}

void Machine::make_current(Thread *thread) {
  current = thread;
  position.thread = thread->index;
  checker::thread_runs(size_t(thread - threads.data()));
}

Fiber *Machine::idle_fiber() {
  if (!idle_.empty()) {
    Fiber *fiber = idle_.back();
    idle_.pop_back();
    return fiber;
  }
  fibers_.push_back(std::make_unique<Fiber>());
  Fiber *fiber = fibers_.back().get();
  prepare(fiber->context, fiber->stack->bytes, stack_bytes, &Machine::fiber_entry);
  return fiber;
}

void Machine::fiber_entry() { machine->live_on(machine->current->fiber); }

// A fiber's whole life: run a thread to its end, then the next one of the pass if that has not begun yet (which saves
// two switches), else rest until the scheduler gives it another.
void Machine::live_on(Fiber *self) {
  for (;;) {
    (*kernel_)();
    current->state = State::returned;
    current->fiber = nullptr;
    if (next_ < order_.size()) {
      Thread *thread = &threads[order_[next_]];
      if (thread->state == State::runnable && !thread->fiber) {
        ++next_;
        thread->fiber = self;
        make_current(thread);
        continue;
      }
    }
    idle_.push_back(self);
    switch_to(self->context, scheduler_);
  }
}

void Machine::wait(State state) {
  Thread *self = current;
  self->state = state;
  switch_to(self->fiber->context, scheduler_);
}

bool Machine::open_block_barrier() {
  const Thread *first = nullptr;
  for (const Thread &t : threads) {
    if (t.state == State::returned) continue;
    if (t.state != State::at_block_barrier) return false;
    if (!first) first = &t;
    if (!same(t.site, first->site)) {
      error = "threads of a block wait at different barriers: " + describe(first->site) + " and " + describe(t.site);
      return false;
    }
  }
  if (!first) return false;
  checker::block_barrier(first->site);
  for (Thread &t : threads)
    if (t.state == State::at_block_barrier) t.state = State::runnable;
  return true;
}

bool Machine::open_warp_operations(size_t first) {
  const size_t lanes = std::min<size_t>(warp_size, threads.size() - first);
  bool opened = false;
  for (size_t i = 0; i < lanes; ++i) {
    const Thread like = threads[first + i];
    if (like.state != State::at_warp_operation) continue;
    bool complete = true;
    for (size_t k = 0; k < lanes; ++k) {
      const Thread &t = threads[first + k];
      if (!(like.mask >> k & 1) || t.state == State::returned) continue;
      complete &= t.state == State::at_warp_operation && t.mask == like.mask && same(t.site, like.site);
    }
    if (!complete) continue;
    finish(first, lanes, like);
    opened = true;
  }
  return opened;
}

// Gives every lane that takes part its result.
void Machine::finish(size_t first, size_t lanes, const Thread &like) {
  uint64_t ballot = 0, results[warp_size] = {};
  uint32_t present = 0;
  for (size_t k = 0; k < lanes; ++k) {
    const Thread &t = threads[first + k];
    if (!(like.mask >> k & 1) || t.state != State::at_warp_operation) continue;
    present |= 1u << k;
    if (t.value != 0) ballot |= uint64_t(1) << k;
  }
  if (like.operation == WarpOperation::synchronise) checker::warp_barrier(like.site, first, present);
  for (size_t k = 0; k < lanes; ++k) {
    const Thread &t = threads[first + k];
    if (!(present >> k & 1)) continue;
    if (like.operation == WarpOperation::exchange) {
      if (!(present >> t.source & 1)) error = describe(t.site) + " reads a lane that takes no part";
      else results[k] = threads[first + t.source].value;
    } else {
      results[k] = ballot;
    }
  }
  for (size_t k = 0; k < lanes; ++k) {
    if (!(present >> k & 1)) continue;
    threads[first + k].value = results[k];
    threads[first + k].state = State::runnable;
  }
}

std::string Machine::deadlock() const {
  struct Group {
    Site site;
    size_t count;
    Index first;
  };
  std::vector<Group> groups;
  size_t returned = 0;
  for (const Thread &t : threads) {
    if (t.state == State::returned) {
      ++returned;
      continue;
    }
    bool known = false;
    for (Group &g : groups)
      if (same(g.site, t.site)) known = true, ++g.count;
    if (!known) groups.push_back({t.site, 1, t.index});
  }
  std::string text = "deadlock: ";
  for (const Group &g : groups)
    text += std::to_string(g.count) + " threads wait at " + describe(g.site) + ", the first is thread " +
            describe(g.first) + "; ";
  return text + std::to_string(returned) + " have returned";
}

}  // namespace

const char *refusal(const Launch &launch) {
  if (launch.grid.volume() == 0 || launch.block.volume() == 0) return "a grid or a block without threads";
  if (launch.block.volume() > 1024) return "a block of more than 1024 threads";
  if (launch.shared_bytes > 48 * 1024) return "more than 48 KiB of dynamic shared memory";
  if (launch.grid.y > 65535 || launch.grid.z > 65535) return "a grid of more than 65535 in y or z";
  return nullptr;
}

const char *run(const Launch &launch, const std::function<void()> &kernel) {
  // A launch that went wrong leaves threads in the middle of things: begin with a new machine then.
  if (!machine || !machine->error.empty()) machine = std::make_unique<Machine>();
  return machine->run(launch, kernel);
}

float *dynamic_shared() { return machine->shared(); }

int lane() { return int((machine->current - machine->threads.data()) % warp_size); }

void wait_for_block(Site site) {
  machine->current->site = site;
  machine->wait(State::at_block_barrier);
}

uint64_t wait_for_warp(Site site, WarpOperation operation, uint32_t mask, uint64_t value, int source) {
  Thread &self = *machine->current;
  if (!(mask >> lane() & 1)) machine->error = describe(site) + " is called by a lane that its mask leaves out";
  self.site = site;
  self.operation = operation;
  self.mask = mask;
  self.value = value;
  self.source = source;
  machine->wait(State::at_warp_operation);
  return self.value;
}

}  // namespace cuda_on_cpu
