// One load or store of a kernel, as the parts of the checker hand it on.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "scheduler.h"

namespace cuda_on_cpu {
namespace checker {

enum class Space : uint8_t { global, shared };

// Where in the program an access is: the number of an instruction, given as it is first seen.
using Place = uint16_t;

struct Access {
  uintptr_t address;
  uint32_t bytes;
  bool is_write;
  Space space;
  Place place;
};

// The number of the instruction behind a return address.
Place place_of(uintptr_t return_address);

// The functions and lines of places, the innermost first, as "vector_at tile.cuh:52 < multiply tile.cuh:73 < conv_f32 conv.cu:127".
std::vector<std::string> describe(const std::vector<Place> &places);

// Accesses that nothing orders: see races.cpp.
class Races {
 public:
  void launch_begins(const Launch &launch, uintptr_t dynamic_shared);
  void block_begins(uint64_t block);
  void block_barrier();
  void warp_barrier(size_t first_thread, uint32_t lanes);
  void check(const Access &access, uint32_t thread);
  // What was found since this was last asked, one finding a line.
  std::string reports();

  Races();
  ~Races();

 private:
  struct Impl;
  Impl *impl_;
};

// What the accesses of a warp cost: see requests.cpp.
class Requests {
 public:
  void launch_begins(const Launch &launch);
  void add(const Access &access, uint32_t thread);
  // At a barrier of the block, and at its end.
  void flush();
  // A line for each kernel, space, kind of access and place: what was counted since this was last asked.
  std::string counts();

  Requests();
  ~Requests();

 private:
  struct Impl;
  Impl *impl_;
};

}  // namespace checker
}  // namespace cuda_on_cpu
