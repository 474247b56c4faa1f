// Stacks to run threads on, and switching between them. On x86-64 a switch saves the callee's registers alone, which is
// some twenty times as fast as swapcontext (that asks the system for the signal mask); elsewhere swapcontext does it.
#pragma once

#include <cstddef>
#include <cstdint>

#if defined(__x86_64__)

namespace cuda_on_cpu {
struct Context {
  void *stack_pointer = nullptr;
};
}  // namespace cuda_on_cpu

extern "C" void cuda_on_cpu_switch(void **from, void *to);

#if defined(CUDA_ON_CPU_DEFINE_SWITCH)
asm(R"(
.text
.hidden cuda_on_cpu_switch
.globl cuda_on_cpu_switch
.type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
#endif

namespace cuda_on_cpu {
// The first switch to `context` enters `entry`, which never returns.
inline void prepare(Context &context, char *stack, size_t bytes, void (*entry)()) {
  uintptr_t top = (reinterpret_cast<uintptr_t>(stack) + bytes) & ~uintptr_t(15);
  void **slot = reinterpret_cast<void **>(top);
  *--slot = nullptr;                            // where `entry` would return to; keeps its stack aligned
  *--slot = reinterpret_cast<void *>(entry);    // where the switch returns to
  for (int i = 0; i < 6; ++i) *--slot = nullptr;  // the registers that it restores
  context.stack_pointer = slot;
}
inline void switch_to(Context &from, Context &to) { cuda_on_cpu_switch(&from.stack_pointer, to.stack_pointer); }
}  // namespace cuda_on_cpu

#else

#include <ucontext.h>

namespace cuda_on_cpu {
struct Context {
  ucontext_t context;
};
inline void prepare(Context &c, char *stack, size_t bytes, void (*entry)()) {
  getcontext(&c.context);
  c.context.uc_stack.ss_sp = stack;
  c.context.uc_stack.ss_size = bytes;
  c.context.uc_link = nullptr;
  makecontext(&c.context, entry, 0);
}
inline void switch_to(Context &from, Context &to) { swapcontext(&from.context, &to.context); }
}  // namespace cuda_on_cpu

#endif
