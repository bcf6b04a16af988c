// recompute(every=1,codec=none): layers are computed again in the backward
// pass, in groups of `every`; the inputs of groups go through `codec`.
//
// Chen, Xu, Zhang, Guestrin, "Training Deep Nets with Sublinear Memory Cost",
// arXiv 1604.06174.
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

class RecomputePolicy final : public PlannedPolicy {
 public:
  RecomputePolicy(std::string text, CodecLadder ladder, int every)
      : PlannedPolicy(std::move(text)),
        ladder_(std::move(ladder)),
        every_(every) {}

  int recompute_every() const override { return every_; }

 protected:
  Choice Choose(const SavedTensor& /*tensor*/, const PlannedTensor* /*planned*/,
                int times_raised) const override {
    return {ladder_.CodecText(times_raised),
            "input of a group, " + ladder_.LevelText(times_raised)};
  }
  std::string Level(const PlannedTensor* /*planned*/,
                    int times_raised) const override {
    return ladder_.LevelText(times_raised);
  }

 private:
  const CodecLadder ladder_;
  const int every_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("every", "1", 1, 1024, "layers of a group"),
    InnerCodecParameter("codec", "none", "for the inputs of groups"),
};

}  // namespace

absl::Span<const CodecParameter> RecomputePolicyParameters() {
  return kParameters;
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeRecomputePolicy(
    const CodecArguments& arguments) {
  DP_ASSIGN_OR_RETURN(CodecLadder ladder,
                      CodecLadder::OrAsItIs(arguments.Codec("codec")));
  return std::unique_ptr<SavedPolicy>(
      new RecomputePolicy(arguments.CanonicalText(), std::move(ladder),
                          static_cast<int>(arguments.Integer("every"))));
}

}  // namespace deltapipe
