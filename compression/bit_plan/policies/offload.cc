// offload(codec=none): tensors wait in pinned host memory for the backward
// pass, packed by `codec`, or as they are.
//
// Rhu et al., vDNN, MICRO 2016, arXiv 1602.08124.
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

class OffloadPolicy final : public PlannedPolicy {
 public:
  OffloadPolicy(std::string text, CodecLadder ladder)
      : PlannedPolicy(std::move(text)), ladder_(std::move(ladder)) {}

  bool MovesToHost() const override { return true; }

 protected:
  Choice Choose(const SavedTensor& /*tensor*/, const PlannedTensor* /*planned*/,
                int times_raised) const override {
    return {ladder_.CodecText(times_raised),
            "in host memory, " + ladder_.LevelText(times_raised), true};
  }
  std::string Level(const PlannedTensor* /*planned*/,
                    int times_raised) const override {
    return ladder_.LevelText(times_raised);
  }

 private:
  const CodecLadder ladder_;
};

constexpr CodecParameter kParameters[] = {
    InnerCodecParameter("codec", "none", "for every tensor"),
};

}  // namespace

absl::Span<const CodecParameter> OffloadPolicyParameters() {
  return kParameters;
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeOffloadPolicy(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(CodecLadder ladder,
                      CodecLadder::OrAsItIs(arguments.Codec("codec")));
  return std::unique_ptr<SavedPolicy>(
      new OffloadPolicy(arguments.CanonicalText(), std::move(ladder)));
}

}  // namespace deltapipe
