#include "base/failpoint.h"

#include <signal.h>
#include <stdlib.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <list>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"

namespace deltapipe {
namespace failpoint_internal {
namespace {

constexpr char kVariable[] = "DELTAPIPE_FAILPOINTS";

struct Armed {
  Armed(std::string at, int64_t count) : name(std::move(at)), num_left(count) {}
  const std::string name;
  std::atomic<int64_t> num_left;
};

std::list<Armed>* ParseArmed() {
  auto* armed = new std::list<Armed>;  // lives as long as the process
  const char* text = getenv(kVariable);
  if (text == nullptr || *text == '\0') return armed;
  for (absl::string_view one : absl::StrSplit(text, ',')) {
    const std::vector<std::string> parts = absl::StrSplit(one, "=kill@");
    int64_t count = 0;
    if (parts.size() != 2 || parts[0].empty() ||
        !absl::SimpleAtoi(parts[1], &count) || count < 1) {
      std::fprintf(stderr, "%s: '%s' is no failpoint: expected NAME=kill@N\n",
                   kVariable, std::string(one).c_str());
      _exit(2);
    }
    armed->emplace_back(parts[0], count);
  }
  return armed;
}

std::list<Armed>* AllArmed() {
  static std::list<Armed>* const armed = ParseArmed();
  return armed;
}

}  // namespace

const bool is_any_set = !AllArmed()->empty();

void Pass(const char* name) {
  for (Armed& armed : *AllArmed()) {
    if (armed.name == name && --armed.num_left == 0) raise(SIGKILL);
  }
}

}  // namespace failpoint_internal
}  // namespace deltapipe
