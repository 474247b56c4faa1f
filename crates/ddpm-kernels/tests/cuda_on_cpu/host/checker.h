// What the checked build sees of a kernel that the plain one does not: every load and store, by the compiler's
// instrumentation for threads (-fsanitize=thread), whose callbacks (callbacks.cpp) are ours instead of a library's.
//
// The scheduler tells it what orders threads. races.cpp finds accesses to one byte that nothing orders; since it asks what
// order the barriers promise, and not which order was taken, one run of any schedule finds them. requests.cpp counts what a
// warp's accesses cost: sectors of memory and conflicts of banks. sites.cpp says where in the source an access is.
#pragma once

#include <string>
#include <vector>

#include "scheduler.h"

namespace cuda_on_cpu {
namespace checker {

#if defined(CUDA_ON_CPU_CHECKED)

// From the scheduler, of the launch under way on this OS thread.
void launch_begins(const Launch &launch, const void *dynamic_shared);
void block_begins(uint64_t block);
void thread_runs(size_t thread);
void block_barrier(Site site);
void warp_barrier(Site site, size_t first_thread, uint32_t lanes);
void block_ends();
void launch_ends();

// From the wrapper of a kernel: its code begins, and ends. What lies outside is ours.
void kernel_begins();
void kernel_ends();

// From what stands for an instruction that the compiler does not see: the thread under way loads or stores so many bytes, in
// the kernel's line that called (`__builtin_return_address(0)` of a function that is UNCHECKED).
void loads(const void *from, size_t bytes, void *caller);
void stores(const void *to, size_t bytes, void *caller);

// Copies a vector, a load and a store of `bytes` in one.
void move(void *to, const void *from, size_t bytes);

// Of a function whose own accesses are not a kernel's.
#define CUDA_ON_CPU_UNCHECKED __attribute__((no_sanitize_thread))

// Members of a vector type: a copy of one is a single access, as wide as the type.
#define CUDA_ON_CPU_VECTOR(Type)                                                                                       \
  Type() = default;                                                                                                    \
  template <class First, class Second, class... More>                                                                  \
  Type(First first, Second second, More... more) {                                                                     \
    const decltype(x) all[] = {first, second, more...};                                                                \
    static_assert(sizeof all == sizeof(Type));                                                                         \
    std::memcpy(static_cast<void *>(this), all, sizeof all);                                                           \
  }                                                                                                                    \
  __attribute__((always_inline)) Type(const Type &from) { cuda_on_cpu::checker::move(this, &from, sizeof(Type)); }     \
  __attribute__((always_inline)) Type &operator=(const Type &from) {                                                   \
    cuda_on_cpu::checker::move(this, &from, sizeof(Type));                                                             \
    return *this;                                                                                                      \
  }

#else

inline void launch_begins(const Launch &, const void *) {}
inline void block_begins(uint64_t) {}
inline void thread_runs(size_t) {}
inline void block_barrier(Site) {}
inline void warp_barrier(Site, size_t, uint32_t) {}
inline void block_ends() {}
inline void launch_ends() {}
inline void kernel_begins() {}
inline void kernel_ends() {}
inline void loads(const void *, size_t, void *) {}
inline void stores(const void *, size_t, void *) {}
#define CUDA_ON_CPU_VECTOR(Type)
#define CUDA_ON_CPU_UNCHECKED

#endif

}  // namespace checker
}  // namespace cuda_on_cpu
