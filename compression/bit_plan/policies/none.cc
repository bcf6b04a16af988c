// none: everything stays as it is.
#include <memory>
#include <string>

#include "compression/bit_plan/planned_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"

namespace deltapipe {
namespace {

class NonePolicy final : public PlannedPolicy {
 public:
  explicit NonePolicy(std::string text) : PlannedPolicy(std::move(text)) {}

 protected:
  Choice Choose(const SavedTensor& /*tensor*/, const PlannedTensor* /*planned*/,
                int /*times_raised*/) const override {
    return {"", "policy none"};
  }
  std::string Level(const PlannedTensor* /*planned*/,
                    int /*times_raised*/) const override {
    return BitsText(kExactBits);
  }
};

}  // namespace

absl::Span<const CodecParameter> NonePolicyParameters() { return {}; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeNonePolicy(
    const CodecArguments& arguments) {
  return std::unique_ptr<SavedPolicy>(
      new NonePolicy(arguments.CanonicalText()));
}

}  // namespace deltapipe
