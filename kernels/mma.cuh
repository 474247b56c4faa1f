// Tensor cores (capability 8.0 and later): the instructions by which a warp multiplies tiles of bf16, copies into shared
// memory that run while other work is done, and numbers as sums of two of bf16. Layouts: PTX ISA, "Matrix fragments for
// mma.m16n8k16" and "ldmatrix". The tests have twins of these functions in plain C++ (host/mma.hpp).
#pragma once

#include "philox.cuh"

#ifndef __CUDACC__
#include "mma.hpp"
#else

__device__ __forceinline__ u32 shared_address(const void *p) { return (u32)__cvta_generic_to_shared(p); }

// COUNT 8x8 matrices of 16-bit numbers: lane 8 i + r names row r of matrix i, 16 bytes; lane l gets numbers 2 (l % 4) and
// 2 (l % 4) + 1 of row l / 4 of each matrix, or, TURNED, of column l / 4. All lanes of a warp together.
template <int COUNT, bool TURNED>
__device__ __forceinline__ void load_matrices(u32 (&to)[COUNT], const void *row) {
  const u32 at = shared_address(row);
  if constexpr (COUNT == 4 && !TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  else if constexpr (COUNT == 4)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                 : "r"(at)
                 : "memory");
  else if constexpr (COUNT == 2 && !TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];" : "=r"(to[0]), "=r"(to[1]) : "r"(at) : "memory");
  else if constexpr (COUNT == 2)
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(to[0]), "=r"(to[1])
                 : "r"(at)
                 : "memory");
  else if constexpr (!TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(at) : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%0}, [%1];" : "=r"(to[0]) : "r"(at) : "memory");
}

// sums[j] += A B[j], products of bf16 summed in f32: A is 16x16, B[j] 16x8. With g = lane / 4 and t = lane % 4 the lane has
// of A rows g (a[0], a[2]) and g + 8, columns 2 t, 2 t + 1 (a[0], a[1]) and 8 more; of B column g, rows 2 t, 2 t + 1 (b[0])
// and 8 more; of the sums rows g (0, 1) and g + 8, columns 2 t, 2 t + 1. All lanes of a warp together.
template <int TILES>
__device__ __forceinline__ void multiply_add(float (&sums)[TILES][4], const u32 (&a)[4], const u32 (&b)[TILES][2]) {
#pragma unroll
  for (int j = 0; j < TILES; ++j)
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sums[j][0]), "+f"(sums[j][1]), "+f"(sums[j][2]), "+f"(sums[j][3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[j][0]), "r"(b[j][1]));
}

// Begins to copy 16 bytes from global to shared memory, both at multiples of 16.
__device__ __forceinline__ void copy_async(void *to, const void *from) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(to)), "l"(from) : "memory");
}
// The copies that this thread began since the last call are a group.
__device__ __forceinline__ void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
// Waits until of this thread's groups at most the last LEFT are under way.
template <int LEFT>
__device__ __forceinline__ void wait_for_copies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

// Two numbers rounded to bf16, ties to even; the first is the low half.
__device__ __forceinline__ u32 rounded_pair(float first, float second) {
  u32 pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(second), "f"(first));
  return pair;
}
#endif

__device__ __forceinline__ float first_of(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float second_of(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// What rounding leaves of two numbers, rounded: x = high + low up to 2^-17 of it.
__device__ __forceinline__ u32 low_pair(float first, float second, u32 high) {
  return rounded_pair(first - first_of(high), second - second_of(high));
}
