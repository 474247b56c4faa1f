// What the compiler calls at each load and store of a kernel that is compiled with -fsanitize=thread, in place of the
// library that usually is there.
#include <link.h>

#include <algorithm>
#include <cstring>
#include <iterator>
#include <set>
#include <string>

#include "accesses.h"
#include "checker.h"

namespace cuda_on_cpu {
namespace checker {
namespace {

struct Range {
  uintptr_t first = 0;
  size_t bytes = 0;
  bool holds(uintptr_t address) const { return address - first < bytes; }
};

// Of an OS thread.
struct Checker {
  bool active = false;  // the code under way is a kernel's
  bool counting = false;
  uint32_t thread = 0;
  std::vector<char> inside;  // of each thread: it is in its kernel
  Range statics, dynamic;    // shared memory
  Range builtins;            // threadIdx and its like
  std::string ignored;       // the barrier that counts for nothing: "file:line"
  std::set<std::string> barriers;
  struct Recent {
    uintptr_t code = 0;
    Place place = 0;
  };
  Recent recent[4096];  // places that were looked up
  Races races;
  Requests requests;
};

thread_local Checker *checker = nullptr;
struct Owner {
  ~Owner() {
    delete checker;
    checker = nullptr;
  }
};
thread_local Owner owner;

Checker &own() {
  if (!checker) {
    (void)&owner;
    checker = new Checker;
    checker->builtins = {reinterpret_cast<uintptr_t>(&position), sizeof position};
    // `__shared__` is this library's storage of the OS thread
    dl_iterate_phdr(
        [](dl_phdr_info *info, size_t, void *) {
          for (int i = 0; i < info->dlpi_phnum; ++i) {
            const auto &segment = info->dlpi_phdr[i];
            const Range range = {reinterpret_cast<uintptr_t>(info->dlpi_tls_data), size_t(segment.p_memsz)};
            if (segment.p_type == PT_TLS && range.holds(checker->builtins.first)) checker->statics = range;
          }
          return 0;
        },
        nullptr);
  }
  return *checker;
}

std::string name_of(Site site) {
  const std::string file = site.file;
  return file.substr(file.find_last_of('/') + 1) + ":" + std::to_string(site.line);
}

// Whether a barrier orders anything.
bool counts(Checker &c, Site site) {
  const std::string name = name_of(site);
  c.barriers.insert(name + " " + site.operation);
  return name != c.ignored;
}

__attribute__((noinline)) void accessed_memory(uintptr_t address, size_t bytes, bool is_write, uintptr_t code) {
  Checker *c = checker;
  if (!c || !c->active) return;
  const bool is_static = c->statics.holds(address);
  if (is_static && c->builtins.holds(address)) return;
  const Space space = is_static || c->dynamic.holds(address) ? Space::shared : Space::global;
  Checker::Recent &recent = c->recent[code % std::size(c->recent)];
  if (recent.code != code) recent = {code, place_of(code)};
  const Access access = {address, uint32_t(bytes), is_write, space, recent.place};
  if (c->counting) c->requests.add(access, c->thread);
  else c->races.check(access, c->thread);
}

// Most accesses are to the thread's own stack, which stands for its registers.
inline __attribute__((always_inline)) void accessed(const void *p, size_t bytes, bool is_write, void *return_address) {
  const uintptr_t address = reinterpret_cast<uintptr_t>(p);
  uintptr_t here = 0;
#if defined(__x86_64__)
  asm("mov %%rsp, %0" : "=r"(here));
#else
  here = reinterpret_cast<uintptr_t>(__builtin_frame_address(0));
#endif
  if ((address ^ here) < stack_bytes) return;
  accessed_memory(address, bytes, is_write, reinterpret_cast<uintptr_t>(return_address));
}

}  // namespace

void launch_begins(const Launch &launch, const void *dynamic_shared) {
  Checker &c = own();
  c.dynamic = {reinterpret_cast<uintptr_t>(dynamic_shared), launch.shared_bytes};
  c.races.launch_begins(launch, c.dynamic.first);
  if (c.counting) c.requests.launch_begins(launch);
  c.inside.assign(launch.block.volume(), 0);
}
void block_begins(uint64_t block) {
  checker->races.block_begins(block);
  std::fill(checker->inside.begin(), checker->inside.end(), 0);
}
void thread_runs(size_t thread) {
  checker->thread = uint32_t(thread);
  checker->active = checker->inside[thread];
}
static void is_inside(bool inside) {
  checker->inside[checker->thread] = inside;
  checker->active = inside;
}
void kernel_begins() { is_inside(true); }
void kernel_ends() { is_inside(false); }
void block_barrier(Site site) {
  if (counts(*checker, site)) checker->races.block_barrier();
  if (checker->counting) checker->requests.flush();
}
void warp_barrier(Site site, size_t first_thread, uint32_t lanes) {
  // what else the lanes of a warp do together orders no memory
  if (strcmp(site.operation, "__syncwarp") == 0 && counts(*checker, site)) checker->races.warp_barrier(first_thread, lanes);
}
void block_ends() {
  if (checker->counting) checker->requests.flush();
}
void launch_ends() { checker->active = false; }

void loads(const void *from, size_t bytes, void *caller) { accessed(from, bytes, false, caller); }
void stores(const void *to, size_t bytes, void *caller) { accessed(to, bytes, true, caller); }

void move(void *to, const void *from, size_t bytes) {
  accessed(from, bytes, false, __builtin_return_address(0));
  accessed(to, bytes, true, __builtin_return_address(0));
  if (bytes == 16) std::memcpy(to, from, 16);
  else std::memcpy(to, from, bytes);
}

}  // namespace checker
}  // namespace cuda_on_cpu

using cuda_on_cpu::checker::accessed;
using cuda_on_cpu::checker::own;

// ---- For tests, each of this OS thread -----------------------------------------------------------------------------

#define FOR_TESTS extern "C" __attribute__((visibility("default")))

static const char *kept(std::string text) {
  static thread_local std::string last;
  last = std::move(text);
  return last.c_str();
}

// What races there were since this was last asked, one a line.
FOR_TESTS const char *cuda_on_cpu_races() { return kept(own().races.reports()); }

// What each place's accesses cost since this was last asked, one a line.
FOR_TESTS const char *cuda_on_cpu_counts() { return kept(own().requests.counts()); }

// Whether accesses are counted, instead of checked for races.
FOR_TESTS void cuda_on_cpu_count(int on) { own().counting = on != 0; }

// A barrier, "file:line", that is waited at but counts for nothing, as if it had been left out; "" for none.
FOR_TESTS void cuda_on_cpu_ignore(const char *barrier) { own().ignored = barrier; }

// The barriers that were passed, one a line: "file:line operation".
FOR_TESTS const char *cuda_on_cpu_barriers() {
  std::string all;
  for (const std::string &barrier : own().barriers) all += barrier + "\n";
  return kept(all);
}

// ---- For the compiler ----------------------------------------------------------------------------------------------

#define CALLBACK extern "C" void
#define SIZED(bytes)                                                                                                   \
  CALLBACK __tsan_read##bytes(void *p) { accessed(p, bytes, false, __builtin_return_address(0)); }                    \
  CALLBACK __tsan_write##bytes(void *p) { accessed(p, bytes, true, __builtin_return_address(0)); }                    \
  CALLBACK __tsan_unaligned_read##bytes(void *p) { accessed(p, bytes, false, __builtin_return_address(0)); }          \
  CALLBACK __tsan_unaligned_write##bytes(void *p) { accessed(p, bytes, true, __builtin_return_address(0)); }
SIZED(1)
SIZED(2)
SIZED(4)
SIZED(8)
SIZED(16)
CALLBACK __tsan_read_range(void *p, size_t bytes) { accessed(p, bytes, false, __builtin_return_address(0)); }
CALLBACK __tsan_write_range(void *p, size_t bytes) { accessed(p, bytes, true, __builtin_return_address(0)); }
CALLBACK __tsan_init() {}
CALLBACK __tsan_func_entry(void *) {}
CALLBACK __tsan_func_exit() {}
CALLBACK __tsan_vptr_update(void **, void *) {}
CALLBACK __tsan_vptr_read(void **) {}
