#include "base/image_options.h"

#include <cmath>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/image_model.h"

namespace deltapipe {
namespace {

constexpr int64_t kMaxViews = 64;
constexpr int64_t kMinSize = 8;

absl::Status NoShares(absl::string_view text, const std::string& why) {
  return absl::InvalidArgumentError(
      absl::StrCat("expected sizes and their shares such as "
                   "'28:0.5,20:0.3,14:0.2', got '",
                   text, "': ", why));
}

}  // namespace

absl::StatusOr<ViewChoice> ParseViewChoice(absl::string_view text) {
  ViewChoice choice;
  if (text == "unbounded") {
    choice.is_unbounded = true;
    return choice;
  }
  if (absl::SimpleAtoi(text, &choice.count) && choice.count >= 1 &&
      choice.count <= kMaxViews) {
    return choice;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("expected a number of views from 1 to ", kMaxViews,
                   ", or unbounded, got '", text, "'"));
}

absl::StatusOr<std::vector<SizeShare>> ParseSizeShares(absl::string_view text) {
  std::vector<SizeShare> shares;
  if (text.empty()) return shares;
  double total = 0;
  for (const absl::string_view part : absl::StrSplit(text, ',')) {
    const std::vector<absl::string_view> pair = absl::StrSplit(part, ':');
    SizeShare next;
    if (pair.size() != 2 || !absl::SimpleAtoi(pair[0], &next.size) ||
        !absl::SimpleAtod(pair[1], &next.share)) {
      return NoShares(text, absl::StrCat("'", part, "' is no size and share"));
    }
    if (next.size < kMinSize || next.size > kImageSize) {
      return NoShares(text, absl::StrCat("sizes are ", kMinSize, " to ",
                                         kImageSize, " pixels"));
    }
    if (!(next.share > 0 && next.share <= 1)) {
      return NoShares(text, "shares are above 0 and at most 1");
    }
    for (const SizeShare& known : shares) {
      if (known.size != next.size) continue;
      return NoShares(text, absl::StrCat(next.size, " is named twice"));
    }
    total += next.share;
    shares.push_back(next);
  }
  if (std::fabs(total - 1) > 1e-6) {
    return NoShares(text, absl::StrCat("the shares add up to ", total));
  }
  return shares;
}

}  // namespace deltapipe
