#include "compression/bit_plan/bits_policy.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace deltapipe {

std::string BitsPolicy::CodecFor(const SavedTensor& /*tensor*/,
                                 int bits) const {
  return GroupCodecText(bits);
}

PlannedPolicy::Choice BitsPolicy::Choose(const SavedTensor& tensor,
                                         const PlannedTensor* planned,
                                         int times_raised) const {
  Choice choice;
  if (TakesSubstitutes() && tensor.substitute == SavedSubstitute::kOutput) {
    choice.reason = "its operator keeps the result in its place";
    choice.takes_substitute = true;
    return choice;
  }
  const int bits = BitsOf(tensor.op, planned, times_raised);
  const bool is_derivative = planned != nullptr && planned->value < 0;
  if (is_derivative && bits < kExactBits &&
      tensor.substitute == SavedSubstitute::kDerivative) {
    choice.codec = GroupCodecText(bits);
    choice.reason =
        absl::StrCat(BitsText(bits), " of the derivative, as planned");
    choice.takes_substitute = true;
    return choice;
  }
  if (bits < kExactBits) choice.codec = CodecFor(tensor, bits);
  choice.is_offloaded =
      planned != nullptr && planned->is_offloaded && bits < kExactBits;
  choice.reason = absl::StrCat(
      choice.is_offloaded ? "in host memory, " : "", BitsText(bits), ", ",
      planned == nullptr     ? default_reason_
      : planned->is_measured ? "as planned"
                             : "since nothing finite was measured",
      times_raised == 0 ? "" : absl::StrCat(", raised ", times_raised, "x"));
  return choice;
}

std::string BitsPolicy::Level(const PlannedTensor* planned,
                              int times_raised) const {
  const int bits =
      BitsOf(planned == nullptr ? "" : planned->op, planned, times_raised);
  const bool is_derivative = planned != nullptr && planned->value < 0;
  return is_derivative && bits < kExactBits
             ? absl::StrCat(BitsText(bits), " of the derivative")
             : BitsText(bits);
}

int BitsPolicy::BitsAt(const PlannedTensor& planned, int times_raised) const {
  return BitsOf(planned.op, &planned, times_raised);
}

int BitsPolicy::BitsOf(const std::string& op, const PlannedTensor* planned,
                       int times_raised) const {
  const int bits =
      planned == nullptr
          ? default_bits_
          : static_cast<int>(std::min(std::max(std::fabs(planned->value), 1.0),
                                      kExactBits * 1.0));
  const auto least = state().least_bits.find(op);
  return std::max(RaisedBits(bits, times_raised),
                  least == state().least_bits.end() ? 0 : least->second);
}

}  // namespace deltapipe
