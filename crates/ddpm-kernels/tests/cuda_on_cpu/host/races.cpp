// Accesses to one byte by two threads, one of them a store, that no barrier orders; loads of shared bytes that the block
// never wrote.
//
// Each byte has its last store and two loads (FastTrack, Flanagan and Freund 2009, with a fixed number of loads). Time goes
// in epochs: a new one begins with every block and at every barrier of one, and blocks run one after the other, so the
// epoch of an access says whether it is of this launch, of this block, and from before the last barrier. Within an epoch
// the lanes of a warp have vector clocks, which __syncwarp joins.
//
// With more than two loads at once those of different blocks, then of different warps, are kept: a store that nothing orders
// behind them all is found, unless __syncwarp of a part of a warp ordered it behind just those two of that warp.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <set>
#include <tuple>
#include <unordered_map>

#include "accesses.h"

namespace cuda_on_cpu {
namespace checker {
namespace {

constexpr uint32_t lanes_of_warp = 32;
constexpr uintptr_t page_bytes = 4096;
constexpr size_t most_pages = 4096;
constexpr size_t most_reports = 64;

// The time and place of an access; epoch 0: there was none.
struct Event {
  uint32_t epoch = 0, clock = 0;
  uint16_t thread = 0;
  Place place = 0;
};

struct Cell {
  Event write, reads[2];
};

// Four bytes, as one until they are accessed apart.
struct Word {
  Cell whole;
  std::unique_ptr<Cell[]> bytes;

  Cell *apart() {
    if (!bytes) {
      bytes.reset(new Cell[4]);
      for (int i = 0; i < 4; ++i) bytes[i] = whole;
    }
    return bytes.get();
  }
};

// What is remembered of memory, page by page.
class Shadow {
 public:
  Word &at(uintptr_t address) {
    const uintptr_t page = address / page_bytes;
    if (page != last_page_) {
      auto &words = pages_[page];
      if (!words) words.reset(new Word[page_bytes / 4]);
      last_page_ = page;
      last_ = words.get();
    }
    return last_[address % page_bytes / 4];
  }
  void forget_much() {
    if (pages_.size() <= most_pages) return;
    pages_.clear();
    last_page_ = ~uintptr_t(0);
  }

 private:
  std::unordered_map<uintptr_t, std::unique_ptr<Word[]>> pages_;
  uintptr_t last_page_ = ~uintptr_t(0);
  Word *last_ = nullptr;
};

enum class Kind : int { read_of_write, write_of_read, write_of_write, read_of_unwritten };

struct Finding {
  Kind kind;
  Space space;
  std::string kernel;
  Index block, thread, other_block, other_thread;
  Place place, other_place;
};

std::string text(Index i) {
  return "(" + std::to_string(i.x) + ", " + std::to_string(i.y) + ", " + std::to_string(i.z) + ")";
}

Index unravel(uint64_t i, Index size) {
  return {uint32_t(i % size.x), uint32_t(i / size.x % size.y), uint32_t(i / size.x / size.y)};
}

}  // namespace

struct Races::Impl {
  Shadow shadow;
  Launch launch = {};
  uint32_t epoch = 0, launch_epoch = 0, block_epoch = 0;
  std::vector<std::pair<uint32_t, uint64_t>> blocks;  // of this launch: the epoch each began with, and its number
  uint32_t thread = 0;
  // Of each thread: its own clock, and what it knows of those of its warp's lanes.
  std::vector<uint32_t> clock;
  std::vector<uint32_t> knows;
  std::set<std::tuple<int, std::string, Place, Place>> known;
  std::vector<Finding> findings;

  void begin_epoch() {
    if (++epoch == 0) {
      fprintf(stderr, "stand-in driver: the checker ran out of epochs\n");
      abort();
    }
    std::fill(clock.begin(), clock.end(), 1);
    std::fill(knows.begin(), knows.end(), 0);
  }

  // Whether the present access comes behind `e` in the order that barriers make; `since` is the first epoch that counts.
  bool is_before(const Event &e, uint32_t since) const {
    if (e.epoch < since) return true;
    if (e.epoch < block_epoch) return false;  // another block of this launch
    if (e.epoch < epoch || e.thread == thread) return true;
    if (e.thread / lanes_of_warp != thread / lanes_of_warp) return false;
    return knows[thread * lanes_of_warp + e.thread % lanes_of_warp] >= e.clock;
  }

  // Of two loads that are not of this thread: whether they are of different blocks or warps.
  bool is_apart(const Event &a, const Event &b) const {
    return (a.epoch < block_epoch) != (b.epoch < block_epoch) || a.thread / lanes_of_warp != b.thread / lanes_of_warp;
  }

  uint64_t block_of(const Event &e) const {
    auto next = std::upper_bound(blocks.begin(), blocks.end(), std::make_pair(e.epoch, ~uint64_t(0)));
    return std::prev(next)->second;
  }

  void report(Kind kind, const Access &a, const Event &other) {
    if (findings.size() >= most_reports) return;
    const std::string kernel = launch.name ? launch.name : "a kernel";
    if (!known.insert({int(kind), kernel, a.place, other.place}).second) return;
    Finding f = {kind, a.space, kernel, unravel(blocks.back().second, launch.grid), unravel(thread, launch.block),
                 {},   {},      a.place, other.place};
    if (kind != Kind::read_of_unwritten) {
      f.other_block = unravel(block_of(other), launch.grid);
      f.other_thread = unravel(other.thread, launch.block);
    }
    findings.push_back(f);
  }

  void check(Cell &c, const Access &a) {
    const uint32_t since = a.space == Space::shared ? block_epoch : launch_epoch;
    const Event now = {epoch, clock[thread], uint16_t(thread), a.place};
    if (a.is_write) {
      if (!is_before(c.write, since)) report(Kind::write_of_write, a, c.write);
      for (const Event &read : c.reads)
        if (!is_before(read, since)) report(Kind::write_of_read, a, read);
      c = {now, {}};
      return;
    }
    if (a.space == Space::shared && c.write.epoch < block_epoch) report(Kind::read_of_unwritten, a, {});
    if (!is_before(c.write, since)) report(Kind::read_of_write, a, c.write);
    for (Event &read : c.reads) {
      if (read.epoch == epoch && read.thread == thread) {
        read = now;
        return;
      }
    }
    if (is_before(c.reads[0], since)) c.reads[0] = now;
    else if (is_before(c.reads[1], since)) c.reads[1] = now;
    else if (!is_apart(c.reads[0], c.reads[1]) && is_apart(now, c.reads[0])) c.reads[1] = now;
  }
};

Races::Races() : impl_(new Impl) {}
Races::~Races() { delete impl_; }

void Races::launch_begins(const Launch &launch, uintptr_t) {
  Impl &s = *impl_;
  s.launch = launch;
  s.shadow.forget_much();
  s.blocks.clear();
  s.clock.assign(launch.block.volume(), 1);
  s.knows.assign(launch.block.volume() * lanes_of_warp, 0);
  s.launch_epoch = s.epoch + 1;
}

void Races::block_begins(uint64_t block) {
  impl_->begin_epoch();
  impl_->block_epoch = impl_->epoch;
  impl_->blocks.emplace_back(impl_->epoch, block);
}

void Races::block_barrier() { impl_->begin_epoch(); }

void Races::warp_barrier(size_t first_thread, uint32_t lanes) {
  Impl &s = *impl_;
  uint32_t joined[lanes_of_warp] = {};
  for (uint32_t lane = 0; lane < lanes_of_warp; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    const uint32_t *knows = &s.knows[(first_thread + lane) * lanes_of_warp];
    for (uint32_t other = 0; other < lanes_of_warp; ++other) joined[other] = std::max(joined[other], knows[other]);
    joined[lane] = std::max(joined[lane], s.clock[first_thread + lane]);
  }
  for (uint32_t lane = 0; lane < lanes_of_warp; ++lane) {
    if (!(lanes >> lane & 1)) continue;
    std::memcpy(&s.knows[(first_thread + lane) * lanes_of_warp], joined, sizeof joined);
    ++s.clock[first_thread + lane];
  }
}

void Races::check(const Access &a, uint32_t thread) {
  Impl &s = *impl_;
  s.thread = thread;
  for (uintptr_t at = a.address; at < a.address + a.bytes;) {
    Word &word = s.shadow.at(at);
    const uintptr_t next = (at | 3) + 1, end = std::min(next, a.address + a.bytes);
    if (end - at == 4 && !word.bytes) {
      s.check(word.whole, a);
      at = next;
      continue;
    }
    Cell *bytes = word.apart();
    for (; at < end; ++at) s.check(bytes[at % 4], a);
  }
}

std::string Races::reports() {
  Impl &s = *impl_;
  std::vector<Place> places;
  for (const Finding &f : s.findings) {
    places.push_back(f.place);
    places.push_back(f.other_place);
  }
  const std::vector<std::string> where = describe(places);
  std::string all;
  for (size_t i = 0; i < s.findings.size(); ++i) {
    const Finding &f = s.findings[i];
    const bool writes = f.kind == Kind::write_of_read || f.kind == Kind::write_of_write;
    all += f.kernel + ": thread " + text(f.thread) + " of block " + text(f.block) + (writes ? " writes " : " reads ") +
           (f.space == Space::shared ? "shared" : "global") + " memory at " + where[2 * i];
    if (f.kind == Kind::read_of_unwritten) {
      all += ", which its block never wrote\n";
      continue;
    }
    all += std::string(f.kind == Kind::write_of_read ? ", which was read" : ", which was written") + " by thread " +
           text(f.other_thread) + " of block " + text(f.other_block) + " at " + where[2 * i + 1] +
           ", and no barrier is between\n";
  }
  s.findings.clear();
  s.known.clear();
  return all;
}

}  // namespace checker
}  // namespace cuda_on_cpu
