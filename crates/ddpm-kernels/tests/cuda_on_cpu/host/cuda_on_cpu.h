// CUDA's language, as far as our kernels use it, in plain C++17: enough to compile an unmodified .cu file with the
// system's compiler and run it on the CPU. Scheduling is in scheduler.{h,cpp}.
//
// Arithmetic is exact to the bit where CUDA's is IEEE 754: compile with -ffp-contract=off and without -ffast-math.
// Not here: textures, tensor cores, approximate functions. A kernel that uses one does not
// compile, which is the moment to add it.
#pragma once

#include <cmath>
#include <cstring>
#include <map>
#include <string>
#include <type_traits>
#include <vector>

#include "checker.h"
#include "scheduler.h"

// ---- Qualifiers ----------------------------------------------------------------------------------------------------

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
// One block runs at a time on an OS thread, so its shared memory may be a static of that thread.
#define __shared__ static thread_local
#define DYNAMIC_SHARED(name) float *const name = cuda_on_cpu::dynamic_shared()

// ---- Built-in variables and vector types ---------------------------------------------------------------------------

#define threadIdx (cuda_on_cpu::position.thread)
#define blockIdx (cuda_on_cpu::position.block)
#define blockDim (cuda_on_cpu::position.block_size)
#define gridDim (cuda_on_cpu::position.grid_size)
static constexpr int warpSize = 32;

struct alignas(8) float2 {
  float x, y;
  CUDA_ON_CPU_VECTOR(float2)
};
struct alignas(16) float4 {
  float x, y, z, w;
  CUDA_ON_CPU_VECTOR(float4)
};
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// ---- Arithmetic ----------------------------------------------------------------------------------------------------

template <class A, class B>
constexpr std::common_type_t<A, B> min(A a, B b) {
  return b < a ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
template <class A, class B>
constexpr std::common_type_t<A, B> max(A a, B b) {
  return a < b ? std::common_type_t<A, B>(b) : std::common_type_t<A, B>(a);
}
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }

template <class To, class From>
inline To cuda_on_cpu_bits(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof to);
  return to;
}
inline int __float_as_int(float x) { return cuda_on_cpu_bits<int>(x); }
inline float __int_as_float(int x) { return cuda_on_cpu_bits<float>(x); }
inline unsigned __float_as_uint(float x) { return cuda_on_cpu_bits<unsigned>(x); }
inline float __uint_as_float(unsigned x) { return cuda_on_cpu_bits<float>(x); }

// ---- Barriers and warps --------------------------------------------------------------------------------------------

// The default arguments are evaluated where the kernel calls: that is how a report knows the line.
#define CUDA_ON_CPU_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(CUDA_ON_CPU_SITE) { cuda_on_cpu::wait_for_block({"__syncthreads", file, line}); }

inline void __syncwarp(unsigned mask = ~0u, CUDA_ON_CPU_SITE) {
  cuda_on_cpu::wait_for_warp({"__syncwarp", file, line}, cuda_on_cpu::WarpOperation::synchronise, mask, 0, 0);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, CUDA_ON_CPU_SITE) {
  return unsigned(cuda_on_cpu::wait_for_warp({"__ballot_sync", file, line}, cuda_on_cpu::WarpOperation::ballot, mask,
                                             predicate != 0, 0));
}

template <class T>
inline T cuda_on_cpu_exchange(cuda_on_cpu::Site site, unsigned mask, T value, int source) {
  static_assert(sizeof(T) <= sizeof(uint64_t));
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = cuda_on_cpu::wait_for_warp(site, cuda_on_cpu::WarpOperation::exchange, mask, bits, source);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

// As CUDA has it: a source outside the segment of `width` lanes is the calling lane itself.
template <class T>
inline T __shfl_sync(unsigned mask, T value, int source, int width = 32, CUDA_ON_CPU_SITE) {
  const int segment = cuda_on_cpu::lane() & ~(width - 1);
  return cuda_on_cpu_exchange({"__shfl_sync", file, line}, mask, value, segment + (source & (width - 1)));
}
template <class T>
inline T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, CUDA_ON_CPU_SITE) {
  const int self = cuda_on_cpu::lane(), end = (self & ~(width - 1)) + width, source = self ^ lanes;
  return cuda_on_cpu_exchange({"__shfl_xor_sync", file, line}, mask, value, source < end ? source : self);
}
template <class T>
inline T __shfl_down_sync(unsigned mask, T value, unsigned lanes, int width = 32, CUDA_ON_CPU_SITE) {
  const int self = cuda_on_cpu::lane(), end = (self & ~(width - 1)) + width, source = self + int(lanes);
  return cuda_on_cpu_exchange({"__shfl_down_sync", file, line}, mask, value, source < end ? source : self);
}

// ---- Launching by name ---------------------------------------------------------------------------------------------

namespace cuda_on_cpu {

// A kernel whose arguments come as pointers, as they come to `cuLaunchKernel`.
struct Kernel {
  std::vector<size_t> argument_sizes;
  std::function<void(const void *const *)> call;
};

CUDA_ON_CPU_UNCHECKED inline std::map<std::string, Kernel> &kernels() {
  static std::map<std::string, Kernel> all;
  return all;
}

template <class... A, size_t... I>
Kernel wrap(void (*kernel)(A...), std::index_sequence<I...>) {
  const auto call = [=](const void *const *arguments) CUDA_ON_CPU_UNCHECKED {
    checker::kernel_begins();
    kernel(*static_cast<const A *>(arguments[I])...);
    checker::kernel_ends();
  };
  return {{sizeof(A)...}, call};
}

struct Registration {
  template <class... A>
  Registration(const char *name, void (*kernel)(A...)) {
    kernels()[name] = wrap(kernel, std::index_sequence_for<A...>{});
  }
};

}  // namespace cuda_on_cpu

// Makes a kernel known under its name; stands after the #include of its .cu file.
#define CUDA_ON_CPU_EXPORT(kernel) static cuda_on_cpu::Registration register_##kernel(#kernel, kernel);
