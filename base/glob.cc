#include "base/glob.h"

#include <cstddef>

namespace deltapipe {

bool MatchesGlob(absl::string_view glob, absl::string_view name) {
  // Only the last '*' is ever tried anew: what an earlier one might take
  // instead, the last one can take, too.
  size_t g = 0;
  size_t n = 0;
  size_t star = absl::string_view::npos;
  size_t star_name = 0;
  while (n < name.size()) {
    if (g < glob.size() && glob[g] == '*') {
      star = g++;
      star_name = n;
    } else if (g < glob.size() && glob[g] == name[n]) {
      ++g;
      ++n;
    } else if (star != absl::string_view::npos) {
      g = star + 1;
      n = ++star_name;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

}  // namespace deltapipe
