// A stand-in for NVIDIA's driver, for tests alone: the functions of libcuda that our programs call, on the CPU. Device
// memory is host memory with a page that faults behind each allocation, a launch runs the kernel of that name from the
// same sources as the loaded PTX. What goes to a stream is done when somebody waits for it, and no sooner (queue.h).
//
// What a driver would refuse is refused: a kernel that the PTX does not hold, another number of parameters than it
// declares, a launch beyond the device's limits, copies outside of allocations, work without a current context, and giving
// up memory that queued work names.
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <mutex>

#include "cuda_on_cpu.h"
#include "queue.h"

namespace {

using cuda_on_cpu::Address;
using cuda_on_cpu::Code;
using cuda_on_cpu::Event;
using cuda_on_cpu::Stream;
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
  not_ready = 600,
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
  long dry = 0;           // 1: nothing is computed or copied, and what comes back is zero
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
  if (name == "dry") s.dry = value;
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

int the_context;
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

// Memory of the host that is never paged out, so that copies from it may be late.
std::map<Address, size_t> pinned;

bool is_pinned(const void *at, size_t bytes) {
  std::lock_guard<std::mutex> lock(mutex);
  auto next = pinned.upper_bound(reinterpret_cast<Address>(at));
  if (next == pinned.begin()) return false;
  const auto &[first, size] = *--next;
  return reinterpret_cast<Address>(at) + bytes <= first + size;
}

// The allocations that a launch's arguments name, each by a pointer into it.
std::vector<std::pair<Address, size_t>> named_by(const std::vector<std::vector<uint64_t>> &arguments) {
  std::lock_guard<std::mutex> lock(mutex);
  std::vector<std::pair<Address, size_t>> all;
  for (const auto &argument : arguments) {
    for (uint64_t word : argument) {
      auto next = allocations.upper_bound(word);
      if (next == allocations.begin()) continue;
      const auto &[first, allocation] = *--next;
      if (word < first + allocation.bytes) all.emplace_back(first, allocation.bytes);
    }
  }
  return all;
}

// Memory is given up: nothing that is queued may name it.
Code give_up(Address first, size_t bytes) {
  const std::string what = cuda_on_cpu::waiting_for(first, bytes);
  if (what.empty()) return success;
  fprintf(stderr, "stand-in driver: memory is given up that a queued operation still names: %s\n", what.c_str());
  cuda_on_cpu::fail_those_that_name(first, bytes, illegal_address);
  return illegal_address;
}

// Writes a launch as a line of `DDPM_STAND_IN_RECORD`: name, blocks, threads, shared memory, arguments as words.
void note(const std::string &name, const unsigned (&sizes)[7], const std::vector<std::vector<uint64_t>> &arguments) {
  static FILE *file = [] {
    const char *path = getenv("DDPM_STAND_IN_RECORD");
    return path ? fopen(path, "w") : nullptr;
  }();
  if (!file) return;
  std::lock_guard<std::mutex> lock(mutex);
  fprintf(file, "%s", name.c_str());
  for (unsigned size : sizes) fprintf(file, " %u", size);
  for (const auto &argument : arguments) {
    fprintf(file, " ");
    for (uint64_t word : argument) fprintf(file, "%016llx", static_cast<unsigned long long>(word));
  }
  fprintf(file, "\n");
  fflush(file);
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
#define NEEDS_STREAM \
  if (!cuda_on_cpu::is_stream(stream)) return invalid_value

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
DRIVER cuCtxSynchronize() { return cuda_on_cpu::drain_all(settings().seed, from_a_program); }
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
  *stream = cuda_on_cpu::make_stream();
  return success;
}
DRIVER cuStreamDestroy_v2(Stream *stream) {
  NEEDS_STREAM;
  cuda_on_cpu::end_stream(stream);
  return success;
}
DRIVER cuStreamSynchronize(Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  return cuda_on_cpu::drain(stream);
}
DRIVER cuStreamWaitEvent(Stream *stream, Event *event, unsigned) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  cuda_on_cpu::wait(stream, event);
  return success;
}

DRIVER cuEventCreate(Event **event, unsigned) {
  NEEDS_CONTEXT;
  *event = cuda_on_cpu::make_event();
  return success;
}
DRIVER cuEventDestroy_v2(Event *event) {
  cuda_on_cpu::end_event(event);
  return success;
}
DRIVER cuEventRecord(Event *event, Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  cuda_on_cpu::record(event, stream);
  return success;
}
DRIVER cuEventSynchronize(Event *event) { return cuda_on_cpu::drain(event); }
DRIVER cuEventQuery(Event *event) { return cuda_on_cpu::has_happened(event) ? success : not_ready; }

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
  const int allowed = s.dry ? PROT_NONE : PROT_READ | PROT_WRITE;
  void *mapped = mmap(nullptr, pages + page, allowed, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return out_of_memory;
  char *memory = static_cast<char *>(mapped);
  mprotect(memory + pages, page, PROT_NONE);
  if (!s.dry) std::memset(memory, 0xff, pages);
  *address = reinterpret_cast<Address>(memory + pages - rounded);
  allocations[*address] = {memory, pages + page, bytes};
  held += bytes;
  return success;
}
DRIVER cuMemFree_v2(Address address) {
  size_t bytes;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = allocations.find(address);
    if (found == allocations.end()) return invalid_value;
    bytes = found->second.bytes;
  }
  if (const Code code = give_up(address, bytes)) return code;
  std::lock_guard<std::mutex> lock(mutex);
  const auto found = allocations.find(address);
  munmap(found->second.mapped, found->second.mapped_bytes);
  held -= found->second.bytes;
  allocations.erase(found);
  return success;
}
// Memory of the host whose copies are late: what a queued copy names of it must stay until then.
DRIVER cuMemHostAlloc(void **memory, size_t bytes, unsigned) {
  NEEDS_CONTEXT;
  *memory = bytes ? std::malloc(bytes) : nullptr;
  if (!*memory) return bytes ? out_of_memory : invalid_value;
  std::memset(*memory, 0xff, bytes);
  std::lock_guard<std::mutex> lock(mutex);
  pinned[reinterpret_cast<Address>(*memory)] = bytes;
  return success;
}
DRIVER cuMemFreeHost(void *memory) {
  size_t bytes;
  {
    std::lock_guard<std::mutex> lock(mutex);
    const auto found = pinned.find(reinterpret_cast<Address>(memory));
    if (found == pinned.end()) return invalid_value;
    bytes = found->second;
  }
  if (const Code code = give_up(reinterpret_cast<Address>(memory), bytes)) return code;
  std::lock_guard<std::mutex> lock(mutex);
  pinned.erase(reinterpret_cast<Address>(memory));
  std::free(memory);
  return success;
}

DRIVER cuMemsetD8Async(Address to, unsigned char value, size_t bytes, Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  if (!within(to, bytes)) return illegal_address;
  if (settings().dry) return success;
  cuda_on_cpu::enqueue(stream, {"setting memory", {{to, bytes}}, [=] {
                                  std::memset(reinterpret_cast<void *>(to), value, bytes);
                                  return success;
                                }});
  return success;
}
DRIVER cuMemcpyHtoDAsync_v2(Address to, const void *from, size_t bytes, Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  if (!within(to, bytes)) return illegal_address;
  if (settings().dry) return success;
  if (is_pinned(from, bytes)) {
    const auto host = std::make_pair(reinterpret_cast<Address>(from), bytes);
    cuda_on_cpu::enqueue(stream, {"a copy to the device", {{to, bytes}, host}, [=] {
                                    std::memcpy(reinterpret_cast<void *>(to), from, bytes);
                                    return success;
                                  }});
    return success;
  }
  // other memory has been read when the call returns
  const char *first = static_cast<const char *>(from);
  auto copy = std::make_shared<std::vector<char>>(first, first + bytes);
  cuda_on_cpu::enqueue(stream, {"a copy to the device", {{to, bytes}}, [=] {
                                  std::memcpy(reinterpret_cast<void *>(to), copy->data(), bytes);
                                  return success;
                                }});
  return success;
}
DRIVER cuMemcpyDtoHAsync_v2(void *to, Address from, size_t bytes, Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  if (!within(from, bytes)) return illegal_address;
  if (settings().dry) {
    std::memset(to, 0, bytes);
    return success;
  }
  const auto host = std::make_pair(reinterpret_cast<Address>(to), bytes);
  cuda_on_cpu::enqueue(stream, {"a copy from the device", {{from, bytes}, host}, [=] {
                                  std::memcpy(to, reinterpret_cast<void *>(from), bytes);
                                  return success;
                                }});
  return success;
}
DRIVER cuMemcpyDtoDAsync_v2(Address to, Address from, size_t bytes, Stream *stream) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  if (!within(to, bytes) || !within(from, bytes)) return illegal_address;
  if (settings().dry) return success;
  cuda_on_cpu::enqueue(stream, {"a copy on the device", {{to, bytes}, {from, bytes}}, [=] {
                                  std::memmove(reinterpret_cast<void *>(to), reinterpret_cast<void *>(from), bytes);
                                  return success;
                                }});
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
                      unsigned block_y, unsigned block_z, unsigned shared_bytes, Stream *stream, void **arguments,
                      void **) {
  NEEDS_CONTEXT;
  NEEDS_STREAM;
  Settings &s = settings();
  if (s.launches == 0) return launch_failed;
  if (s.launches > 0) --s.launches;
  const Function &f = *static_cast<Function *>(function);
  const cuda_on_cpu::Launch launch = {
      {grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, s.schedule, s.seed, shared_bytes, f.name.c_str()};
  if (const char *refused = cuda_on_cpu::refusal(launch)) {
    fprintf(stderr, "stand-in driver: %s: %s\n", launch.name, refused);
    return invalid_value;
  }
  // the driver reads the arguments at once
  std::vector<std::vector<uint64_t>> values;
  for (size_t i = 0; i < f.kernel->argument_sizes.size(); ++i) {
    values.emplace_back((f.kernel->argument_sizes[i] + 7) / 8);
    std::memcpy(values[i].data(), arguments[i], f.kernel->argument_sizes[i]);
  }
  note(f.name, {grid_x, grid_y, grid_z, block_x, block_y, block_z, shared_bytes}, values);
  if (s.dry) return success;
  auto memory = named_by(values);
  const auto run = [launch, &f, values = std::move(values)]() -> Code {
    std::vector<const void *> pointers;
    for (const auto &value : values) pointers.push_back(value.data());
    running = launch.name;
    const char *wrong = cuda_on_cpu::run(launch, [&] { f.kernel->call(pointers.data()); });
    running = nullptr;
    if (!wrong) return success;
    fprintf(stderr, "stand-in driver: %s: %s\n", launch.name, wrong);
    return launch_failed;
  };
  cuda_on_cpu::enqueue(stream, {f.name, std::move(memory), run});
  return success;
}
