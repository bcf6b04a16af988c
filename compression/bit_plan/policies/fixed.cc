// fixed(codec): one codec for all tensors.
//
// fixed(none) packs fp32 values as they are: to see what packing alone costs.
#include <memory>
#include <string>
#include <utility>

#include "base/status_macros.h"
#include "compression/bit_plan/codec_ladder.h"
#include "compression/bit_plan/planned_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

class FixedPolicy final : public PlannedPolicy {
 public:
  FixedPolicy(std::string text, CodecLadder ladder)
      : PlannedPolicy(std::move(text)), ladder_(std::move(ladder)) {}

 protected:
  Choice Choose(const SavedTensor& /*tensor*/, const PlannedTensor* /*planned*/,
                int times_raised) const override {
    return {ladder_.CodecText(times_raised),
            times_raised == 0 ? "fixed"
                              : "raised to " + ladder_.LevelText(times_raised)};
  }
  std::string Level(const PlannedTensor* /*planned*/,
                    int times_raised) const override {
    return ladder_.LevelText(times_raised);
  }

 private:
  const CodecLadder ladder_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("codec", "", "for every tensor"),
};

}  // namespace

absl::Span<const CodecParameter> FixedPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeFixedPolicy(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(CodecLadder ladder,
                      CodecLadder::Create(arguments.Codec("codec")));
  return std::unique_ptr<SavedPolicy>(
      new FixedPolicy(arguments.CanonicalText(), std::move(ladder)));
}

}  // namespace deltapipe
