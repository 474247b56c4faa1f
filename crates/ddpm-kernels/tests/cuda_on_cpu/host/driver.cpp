// A stand-in for NVIDIA's driver, for tests alone: the functions of libcuda that our programs call, on the CPU. Device
// memory is host memory with a page that faults behind each allocation, a launch runs the kernel of that name from the
// same sources as the loaded PTX, and everything is done when the call returns.
//
// What a driver would refuse is refused: a kernel that the PTX does not hold, another number of parameters than it
// declares, a launch beyond the device's limits, copies outside of allocations, work without a current context.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <mutex>

#include "cuda_on_cpu.h"

namespace {

using Code = int;  // CUresult
using Address = uint64_t;
enum : Code {
  success = 0,
  invalid_value = 1,
  out_of_memory = 2,
  no_device = 100,
  invalid_device = 101,
  invalid_context = 201,
  invalid_ptx = 218,
  unsupported_ptx = 222,
  not_found = 500,
  illegal_address = 700,
  launch_failed = 719,
};

// What the tests ask of this thread's driver, or (as `DDPM_STAND_IN="driver=11070 memory=1000000"`) of a program's.
struct Settings {
  int devices = 1, driver = 12040, capability = 80, multiprocessors = 1;
  size_t memory = size_t(8) << 30;
  long allocations = -1;  // that succeed before one is refused; -1: all
  long launches = -1;     // likewise
  long ptx = 1;           // 0: its version is refused
  cuda_on_cpu::Schedule schedule = cuda_on_cpu::Schedule::forward;
  uint32_t seed = 0;
};

void set(Settings &s, const std::string &name, long value) {
  if (name == "devices") s.devices = int(value);
  if (name == "driver") s.driver = int(value);
  if (name == "capability") s.capability = int(value);
  if (name == "multiprocessors") s.multiprocessors = int(value);
  if (name == "memory") s.memory = size_t(value);
  if (name == "allocations") s.allocations = value;
  if (name == "launches") s.launches = value;
  if (name == "ptx") s.ptx = value;
  if (name == "schedule") s.schedule = cuda_on_cpu::Schedule(value);
  if (name == "seed") s.seed = uint32_t(value);
}

Settings from_environment() {
  Settings s;
  const char *text = getenv("DDPM_STAND_IN");
  std::string rest = text ? text : "";
  while (!rest.empty()) {
    const size_t end = rest.find(' ');
    const std::string word = rest.substr(0, end);
    rest = end == std::string::npos ? "" : rest.substr(end + 1);
    const size_t equals = word.find('=');
    if (equals != std::string::npos) set(s, word.substr(0, equals), atol(word.c_str() + equals + 1));
  }
  return s;
}

const bool from_a_program = getenv("DDPM_STAND_IN") != nullptr;
thread_local Settings own_settings = from_environment();
Settings program_settings = from_environment();
// A program has one driver, whatever thread calls; tests in one process have one for each of their threads.
Settings &settings() { return from_a_program ? program_settings : own_settings; }

struct Allocation {
  char *mapped;
  size_t mapped_bytes, bytes;
};
std::mutex mutex;
std::map<Address, Allocation> allocations;
size_t held = 0;

struct Module {
  std::string ptx;
};
struct Function {
  std::string name;
  const cuda_on_cpu::Kernel *kernel;
};
std::map<std::string, Function> functions;

int the_context, the_stream;
thread_local void *current_context = nullptr;
thread_local const char *running = nullptr;

constexpr size_t page = 4096;

// Whether `bytes` from `at` on lie in one allocation.
bool within(Address at, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = allocations.upper_bound(at);
  if (next == allocations.begin()) return false;
  const auto &[first, allocation] = *--next;
  return at + bytes <= first + allocation.bytes;
}

void say_where_it_faulted(int, siginfo_t *info, void *) {
  char text[256];
  const int length = snprintf(text, sizeof text, "\nstand-in driver: %s touches %p, where nothing is allocated\n",
                              running ? running : "the host", info->si_addr);
  if (write(2, text, size_t(length)) < 0) _exit(3);
  _exit(134);
}

void watch_for_faults() {
  static std::once_flag once;
  std::call_once(once, [] {
    struct sigaction action = {};
    action.sa_sigaction = say_where_it_faulted;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigaction(SIGSEGV, &action, nullptr);
    sigaction(SIGBUS, &action, nullptr);
  });
}

}  // namespace

#define DRIVER extern "C" __attribute__((visibility("default"))) Code
#define NEEDS_CONTEXT \
  if (current_context != &the_context) return invalid_context

// For tests: a setting of this thread's driver.
extern "C" __attribute__((visibility("default"))) void cuda_on_cpu_set(const char *name, long value) {
  set(settings(), name, value);
}

// For tests: bytes that are allocated.
extern "C" __attribute__((visibility("default"))) size_t cuda_on_cpu_held() {
  std::lock_guard<std::mutex> lock(mutex);
  return held;
}

DRIVER cuInit(unsigned) {
  watch_for_faults();
  return success;
}
DRIVER cuDriverGetVersion(int *version) {
  *version = settings().driver;
  return success;
}
DRIVER cuDeviceGetCount(int *count) {
  *count = settings().devices;
  return success;
}
DRIVER cuDeviceGet(int *device, int index) {
  if (index < 0 || index >= settings().devices) return invalid_device;
  *device = index;
  return success;
}
DRIVER cuDeviceGetName(char *name, int size, int) {
  snprintf(name, size_t(size), "CPU in a GPU's place");
  return success;
}
DRIVER cuDeviceTotalMem_v2(size_t *bytes, int) {
  *bytes = settings().memory;
  return success;
}
DRIVER cuDeviceGetAttribute(int *value, int attribute, int) {
  switch (attribute) {
    case 16: *value = settings().multiprocessors; break;
    case 75: *value = settings().capability / 10; break;   // major
    case 76: *value = settings().capability % 10; break;   // minor
    case 115: *value = 1; break;                           // memory pools
    default: *value = 0;
  }
  return success;
}
DRIVER cuDevicePrimaryCtxRetain(void **context, int) {
  *context = &the_context;
  return success;
}
DRIVER cuDevicePrimaryCtxRelease_v2(int) { return success; }
DRIVER cuCtxSetCurrent(void *context) {
  current_context = context;
  return success;
}
DRIVER cuCtxGetCurrent(void **context) {
  *context = current_context;
  return success;
}
DRIVER cuCtxSynchronize() { return success; }
DRIVER cuGetErrorName(Code code, const char **name) {
  switch (code) {
    case success: *name = "CUDA_SUCCESS"; break;
    case invalid_value: *name = "CUDA_ERROR_INVALID_VALUE"; break;
    case out_of_memory: *name = "CUDA_ERROR_OUT_OF_MEMORY"; break;
    case invalid_device: *name = "CUDA_ERROR_INVALID_DEVICE"; break;
    case invalid_context: *name = "CUDA_ERROR_INVALID_CONTEXT"; break;
    case invalid_ptx: *name = "CUDA_ERROR_INVALID_PTX"; break;
    case unsupported_ptx: *name = "CUDA_ERROR_UNSUPPORTED_PTX_VERSION"; break;
    case not_found: *name = "CUDA_ERROR_NOT_FOUND"; break;
    case illegal_address: *name = "CUDA_ERROR_ILLEGAL_ADDRESS"; break;
    case launch_failed: *name = "CUDA_ERROR_LAUNCH_FAILED"; break;
    default: *name = "CUDA_ERROR_UNKNOWN";
  }
  return success;
}
DRIVER cuGetErrorString(Code code, const char **text) {
  *text = code == launch_failed ? "unspecified launch failure" : "as the stand-in driver says";
  return success;
}

DRIVER cuStreamCreate(void **stream, unsigned) {
  *stream = &the_stream;
  return success;
}
DRIVER cuStreamDestroy_v2(void *) { return success; }
DRIVER cuStreamSynchronize(void *) {
  NEEDS_CONTEXT;
  return success;
}

DRIVER cuMemGetInfo_v2(size_t *free_bytes, size_t *total) {
  std::lock_guard<std::mutex> lock(mutex);
  *total = settings().memory;
  *free_bytes = held < *total ? *total - held : 0;
  return success;
}
DRIVER cuMemAlloc_v2(Address *address, size_t bytes) {
  NEEDS_CONTEXT;
  if (bytes == 0) return invalid_value;
  Settings &s = settings();
  std::lock_guard<std::mutex> lock(mutex);
  if (s.allocations == 0 || held + bytes > s.memory) return out_of_memory;
  if (s.allocations > 0) --s.allocations;
  // it ends (but for its alignment) where a page begins that faults, and holds NaN in every float
  const size_t rounded = (bytes + 15) & ~size_t(15), pages = (rounded + page - 1) / page * page;
  void *mapped = mmap(nullptr, pages + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) return out_of_memory;
  char *memory = static_cast<char *>(mapped);
  mprotect(memory + pages, page, PROT_NONE);
  std::memset(memory, 0xff, pages);
  *address = reinterpret_cast<Address>(memory + pages - rounded);
  allocations[*address] = {memory, pages + page, bytes};
  held += bytes;
  return success;
}
DRIVER cuMemFree_v2(Address address) {
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = allocations.find(address);
  if (found == allocations.end()) return invalid_value;
  munmap(found->second.mapped, found->second.mapped_bytes);
  held -= found->second.bytes;
  allocations.erase(found);
  return success;
}
DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t bytes, void *) {
  NEEDS_CONTEXT;
  if (!within(to, bytes)) return illegal_address;
  std::memset(reinterpret_cast<void *>(to), value, bytes);
  return success;
}
DRIVER cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, void *) {
  NEEDS_CONTEXT;
  if (!within(to, bytes)) return illegal_address;
  std::memcpy(reinterpret_cast<void *>(to), from, bytes);
  return success;
}
DRIVER cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, void *) {
  NEEDS_CONTEXT;
  if (!within(from, bytes)) return illegal_address;
  std::memcpy(to, reinterpret_cast<void *>(from), bytes);
  return success;
}
DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, void *) {
  NEEDS_CONTEXT;
  if (!within(to, bytes) || !within(from, bytes)) return illegal_address;
  std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
  return success;
}

DRIVER cuModuleLoadData(void **module, const void *image) {
  NEEDS_CONTEXT;
  const char *text = static_cast<const char *>(image);
  if (settings().ptx == 0 || !strstr(text, ".version 7.8")) return unsupported_ptx;
  const char *target = strstr(text, ".target sm_");
  if (!target || atoi(target + strlen(".target sm_")) > settings().capability) return invalid_ptx;
  *module = new Module{text};
  return success;
}
DRIVER cuModuleUnload(void *module) {
  delete static_cast<Module *>(module);
  return success;
}
DRIVER cuModuleGetFunction(void **function, void *module, const char *name) {
  const std::string &ptx = static_cast<Module *>(module)->ptx;
  const size_t entry = ptx.find(std::string(".entry ") + name + "(");
  const auto kernel = cuda_on_cpu::kernels().find(name);
  if (entry == std::string::npos || kernel == cuda_on_cpu::kernels().end()) return not_found;
  size_t parameters = 0, end = ptx.find(')', entry);
  for (size_t at = entry; (at = ptx.find(".param", at)) < end; ++at) ++parameters;
  if (parameters != kernel->second.argument_sizes.size()) return not_found;
  std::lock_guard<std::mutex> lock(mutex);
  functions.emplace(name, Function{name, &kernel->second});
  *function = &functions[name];
  return success;
}
DRIVER cuLaunchKernel(void *function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, void *stream, void **arguments, void **) {
  NEEDS_CONTEXT;
  Settings &s = settings();
  if (stream != &the_stream) return invalid_value;
  if (s.launches == 0) return launch_failed;
  if (s.launches > 0) --s.launches;
  const Function &f = *static_cast<Function *>(function);
  running = f.name.c_str();
  const cuda_on_cpu::Launch launch = {
      {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, s.schedule, s.seed, shared_bytes};
  const char *wrong = cuda_on_cpu::run(launch, [&] { f.kernel->call(arguments); });
  running = nullptr;
  if (!wrong) return success;
  fprintf(stderr, "stand-in driver: %s: %s\n", f.name.c_str(), wrong);
  return launch_failed;
}
