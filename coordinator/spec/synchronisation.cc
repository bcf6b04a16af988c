#include "coordinator/spec/synchronisation.h"

#include <limits>

#include "absl/strings/str_cat.h"
#include "base/units.h"

namespace deltapipe {

bool IsPlainGradientCodec(const std::string& codec) {
  return codec == "none" || codec == "cast(bf16)";
}

int64_t CompressAfterStep(const v1::TrainSpec& train) {
  const auto choice = ParseStepChoice(train.optimizer().compress_after_step());
  return choice.ok() ? choice->At(train.steps())
                     : std::numeric_limits<int64_t>::max();
}

std::string CompressionBegins(const v1::TrainSpec& train) {
  const std::string& text = train.optimizer().compress_after_step();
  const auto choice = ParseStepChoice(text);
  if (choice.ok() && choice->is_auto) return "once it has settled (auto)";
  const int64_t step = CompressAfterStep(train);
  if (step >= train.steps()) return "never in a run this short";
  if (choice.ok() && choice->is_share) {
    return absl::StrCat("from step ", step, " (", text, ") on");
  }
  return absl::StrCat("from step ", step, " on");
}

}  // namespace deltapipe
