// Where in the source an instruction is, from the debugging information of this library, by binutils' addr2line.
#include <dlfcn.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <unordered_map>

#include "accesses.h"

namespace cuda_on_cpu {
namespace checker {
namespace {

std::mutex mutex;
std::vector<uintptr_t> addresses;                   // of places
std::unordered_map<uintptr_t, Place> places;        // of addresses
std::unordered_map<uintptr_t, std::string> texts;  // that were asked for

// A function's name without return type, arguments and spaces of names.
std::string short_name(const std::string &name) {
  int depth = 0;
  size_t first = 0, end = name.size();
  for (size_t i = 0; i < name.size(); ++i) {
    const char c = name[i];
    if (c == '<') ++depth;
    if (c == '>') --depth;
    if (depth > 0) continue;
    if (c == '(') {
      end = i;
      break;
    }
    if (c == ' ') first = i + 1;
    if (c == ':') first = i + 1;
  }
  return end > first ? name.substr(first, end - first) : name;
}

std::string file_name(const std::string &path) {
  std::string name = path.substr(path.find_last_of('/') + 1);
  return name.substr(0, name.find(' '));  // without a discriminator
}

void ask(const std::vector<uintptr_t> &wanted) {
  Dl_info info = {};
  dladdr(reinterpret_cast<void *>(&ask), &info);
  const uintptr_t base = reinterpret_cast<uintptr_t>(info.dli_fbase);
  constexpr size_t at_once = 400;
  for (size_t first = 0; first < wanted.size(); first += at_once) {
    std::string command = std::string("addr2line -a -f -i -C -e '") + info.dli_fname + "'";
    for (size_t i = first; i < std::min(first + at_once, wanted.size()); ++i) {
      char number[32];
      snprintf(number, sizeof number, " 0x%zx", size_t(wanted[i] - base));
      command += number;
    }
    FILE *pipe = popen((command + " 2>/dev/null").c_str(), "r");
    if (!pipe) return;
    char line[4096];
    uintptr_t address = 0;
    std::string function;
    while (fgets(line, sizeof line, pipe)) {
      std::string text = line;
      while (!text.empty() && text.back() == '\n') text.pop_back();
      if (text.rfind("0x", 0) == 0) {
        address = base + uintptr_t(strtoull(text.c_str(), nullptr, 16));
        function.clear();
      } else if (function.empty()) {
        function = short_name(text);
      } else {
        const std::string file = file_name(text);
        std::string &whole = texts[address];
        // what stands for CUDA's language is no function of a kernel's
        if (file.rfind("cuda_on_cpu.h", 0) != 0) whole += (whole.empty() ? "" : " < ") + function + " " + file;
        function.clear();
      }
    }
    pclose(pipe);
  }
}

}  // namespace

Place place_of(uintptr_t return_address) {
  std::lock_guard<std::mutex> lock(mutex);
  // the call is what lies before
  const auto found = places.emplace(return_address - 1, Place(addresses.size()));
  if (found.second) {
    if (addresses.size() > 65535) {
      fprintf(stderr, "stand-in driver: more loads and stores than have numbers\n");
      abort();
    }
    addresses.push_back(return_address - 1);
  }
  return found.first->second;
}

std::vector<std::string> describe(const std::vector<Place> &wanted) {
  std::lock_guard<std::mutex> lock(mutex);
  std::vector<uintptr_t> unknown;
  for (Place place : wanted) {
    if (place < addresses.size() && texts.emplace(addresses[place], "").second) unknown.push_back(addresses[place]);
  }
  ask(unknown);
  std::vector<std::string> all;
  for (Place place : wanted) {
    const std::string text = place < addresses.size() ? texts[addresses[place]] : "";
    all.push_back(text.empty() ? "an unknown place" : text);
  }
  return all;
}

}  // namespace checker
}  // namespace cuda_on_cpu
