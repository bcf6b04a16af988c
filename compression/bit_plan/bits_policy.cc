#include "compression/bit_plan/bits_policy.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace deltapipe {

std::string BitsPolicy::CodecFor(const SavedTensor& /*tensor*/,
                                 int bits) const {
  return GroupCodecText(bits);
}

PlannedPolicy::Choice BitsPolicy::Choose(const SavedTensor& tensor,
                                         const PlannedTensor* planned,
                                         int times_raised) const {
  const int bits = BitsOf(planned, times_raised);
  Choice choice;
  if (bits < kExactBits) choice.codec = CodecFor(tensor, bits);
  choice.reason = absl::StrCat(
      BitsText(bits), ", ",
      planned == nullptr     ? default_reason_
      : planned->is_measured ? "as planned"
                             : "since nothing finite was measured",
      times_raised == 0 ? "" : absl::StrCat(", raised ", times_raised, "x"));
  return choice;
}

std::string BitsPolicy::Level(const PlannedTensor* planned,
                              int times_raised) const {
  return BitsText(BitsOf(planned, times_raised));
}

int BitsPolicy::BitsOf(const PlannedTensor* planned, int times_raised) const {
  const int bits = planned == nullptr
                       ? default_bits_
                       : static_cast<int>(std::min(
                             std::max(planned->value, 1.0), kExactBits * 1.0));
  return RaisedBits(bits, times_raised);
}

}  // namespace deltapipe
