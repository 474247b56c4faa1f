// What the accesses of a warp cost, counted place by place.
//
// Threads run one after the other here, so a warp's request is put together afterwards: the n-th time that each of its
// lanes came by one place since the last barrier. Lanes that take loops in unlike numbers of turns are matched as if they had
// taken the same; the hot loops do.
#include <algorithm>
#include <map>
#include <tuple>

#include "accesses.h"

namespace cuda_on_cpu {
namespace checker {
namespace {

constexpr uint32_t lanes_of_warp = 32, sector_bytes = 32, banks = 32;

struct Record {
  uintptr_t address;
  uint8_t bytes;
  bool is_write;
  Space space;
  Place place;
};

// Lanes that access memory together: addresses in the lanes' order.
struct Request {
  uintptr_t addresses[lanes_of_warp];
  uint32_t lanes = 0, bytes = 0;  // each of so many bytes
};

// What a warp did at one place since the last barrier: the n-th request is everybody's n-th time.
struct Visits {
  Record kind = {};
  std::vector<Request> requests;
  size_t used = 0;   // of `requests`
  size_t times = 0;  // of the lane under way
};

struct Count {
  uint64_t requests = 0;
  uint64_t sectors = 0, ideal_sectors = 0;      // of global memory
  uint64_t wavefronts = 0, ideal_wavefronts = 0;  // of shared memory
  uint64_t worst = 0;                           // degree of a conflict
};

// Sectors that a request touches, and that its bytes would fill.
void count_sectors(Request &r, Count &c) {
  std::sort(r.addresses, r.addresses + r.lanes);
  uint64_t sectors = 0, bytes = 0;
  uintptr_t sectors_end = 0, bytes_end = 0;  // what is counted
  for (uint32_t i = 0; i < r.lanes; ++i) {
    const uintptr_t address = r.addresses[i], end = address + r.bytes;
    const uintptr_t first = std::max(address / sector_bytes, sectors_end), last = (end - 1) / sector_bytes + 1;
    if (last > first) sectors += last - first, sectors_end = last;
    const uintptr_t from = std::max(address, bytes_end);
    if (end > from) bytes += end - from, bytes_end = end;
  }
  c.sectors += sectors;
  c.ideal_sectors += (bytes + sector_bytes - 1) / sector_bytes;
}

// A warp's accesses of 16 bytes go in four quarters, of 8 in two halves. In each a bank gives one word at a time, to
// whatever lanes ask for that word.
void count_wavefronts(const Request &r, Count &c) {
  const uint32_t lanes = r.bytes >= 16 ? 8 : r.bytes == 8 ? 16 : 32;
  for (uint32_t first = 0; first < r.lanes; first += lanes) {
    uintptr_t words[lanes_of_warp * 4];
    size_t count = 0;
    for (uint32_t i = first; i < std::min(first + lanes, r.lanes); ++i)
      for (uintptr_t at = r.addresses[i] / 4; at <= (r.addresses[i] + r.bytes - 1) / 4; ++at) words[count++] = at;
    std::sort(words, words + count);
    uint64_t of_bank[banks] = {}, degree = 0;
    for (size_t i = 0; i < count; ++i)
      if (i == 0 || words[i] != words[i - 1]) degree = std::max(degree, ++of_bank[words[i] % banks]);
    c.wavefronts += degree;
    c.ideal_wavefronts += 1;
    c.worst = std::max(c.worst, degree);
  }
}

}  // namespace

struct Requests::Impl {
  std::string kernel;
  std::vector<std::vector<Record>> of_thread;
  std::vector<Visits> visits = std::vector<Visits>(65536);  // by place
  std::vector<Place> visited;                               // by the warp under way
  std::map<std::tuple<std::string, Space, bool, Place>, Count> counts;
};

Requests::Requests() : impl_(new Impl) {}
Requests::~Requests() { delete impl_; }

void Requests::launch_begins(const Launch &launch) {
  impl_->kernel = launch.name ? launch.name : "a kernel";
  impl_->of_thread.assign(launch.block.volume(), {});
}

void Requests::add(const Access &a, uint32_t thread) {
  impl_->of_thread[thread].push_back({a.address, uint8_t(a.bytes), a.is_write, a.space, a.place});
}

void Requests::flush() {
  auto &threads = impl_->of_thread;
  for (size_t first = 0; first < threads.size(); first += lanes_of_warp) {
    for (size_t thread = first; thread < std::min(first + lanes_of_warp, threads.size()); ++thread) {
      for (const Record &r : threads[thread]) {
        Visits &v = impl_->visits[r.place];
        if (v.used == 0) {
          impl_->visited.push_back(r.place);
          v.kind = r;
        }
        const size_t n = v.times++;
        if (v.requests.size() <= n) v.requests.resize(n + 1);
        v.used = std::max(v.used, n + 1);
        Request &request = v.requests[n];
        request.addresses[request.lanes++] = r.address;
        request.bytes = r.bytes;
      }
      threads[thread].clear();
      for (Place place : impl_->visited) impl_->visits[place].times = 0;
    }
    for (Place place : impl_->visited) {
      Visits &v = impl_->visits[place];
      Count &c = impl_->counts[{impl_->kernel, v.kind.space, v.kind.is_write, place}];
      for (size_t i = 0; i < v.used; ++i) {
        Request &r = v.requests[i];
        ++c.requests;
        if (v.kind.space == Space::global) count_sectors(r, c);
        else count_wavefronts(r, c);
        r.lanes = 0;
      }
      v.used = 0;
    }
    impl_->visited.clear();
  }
}

std::string Requests::counts() {
  std::vector<Place> places;
  for (const auto &[key, count] : impl_->counts) places.push_back(std::get<3>(key));
  const std::vector<std::string> where = describe(places);
  std::string all;
  size_t i = 0;
  for (const auto &[key, c] : impl_->counts) {
    const auto &[kernel, space, is_write, place] = key;
    const bool global = space == Space::global;
    all += kernel + "\t" + (global ? "global" : "shared") + "\t" + (is_write ? "store" : "load") + "\t" + where[i++];
    for (uint64_t n : {c.requests, global ? c.sectors : c.wavefronts, global ? c.ideal_sectors : c.ideal_wavefronts, c.worst})
      all += "\t" + std::to_string(n);
    all += "\n";
  }
  impl_->counts.clear();
  return all;
}

}  // namespace checker
}  // namespace cuda_on_cpu
