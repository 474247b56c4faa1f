// The one function that the tests call: shaped like cuLaunchKernel, but it checks the name and the arguments.
#include "cuda_on_cpu.h"

extern "C" __attribute__((visibility("default"))) const char *cuda_on_cpu_launch(
    const char *name, const uint32_t *grid, const uint32_t *block, const void *const *arguments, const size_t *sizes,
    size_t count, int schedule, uint32_t seed) {
  using namespace cuda_on_cpu;
  static thread_local std::string wrong;
  const auto found = kernels().find(name);
  if (found == kernels().end()) {
    wrong = std::string("no kernel is called ") + name;
    return wrong.c_str();
  }
  const Kernel &kernel = found->second;
  if (kernel.argument_sizes != std::vector<size_t>(sizes, sizes + count)) {
    wrong = std::string(name) + " takes arguments of these sizes:";
    for (size_t size : kernel.argument_sizes) wrong += " " + std::to_string(size);
    wrong += "; given were:";
    for (size_t i = 0; i < count; ++i) wrong += " " + std::to_string(sizes[i]);
    return wrong.c_str();
  }
  const Launch launch = {{grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, Schedule(schedule), seed, 0, name};
  return run(launch, [&] { kernel.call(arguments); });
}
