#include "worker/engine/loss_scale.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {

absl::StatusOr<LossScale> LossScale::Create(const std::string& precision,
                                            const std::string& text) {
  LossScale made;
  if (precision != "fp16") return made;
  made.is_used_ = true;
  if (text == "auto") {
    made.is_dynamic_ = true;
    made.scale_ = kFirst;
  } else if (!absl::SimpleAtod(text, &made.scale_) ||
             !(made.scale_ >= kLeast && made.scale_ <= kMost)) {
    return absl::InvalidArgumentError(
        absl::StrCat("train.loss_scale: expected auto, or a number from ",
                     kLeast, " to ", kMost, ", got \"", text, "\""));
  }
  return made;
}

bool LossScale::Update(bool is_finite) {
  if (!is_dynamic_) return false;
  const double before = scale_;
  if (!is_finite) {
    good_steps_ = 0;
    scale_ = std::max(scale_ / 2, kLeast);
  } else if (++good_steps_ == kGoodSteps) {
    good_steps_ = 0;
    scale_ = std::min(scale_ * 2, kMost);
  }
  return scale_ != before;
}

std::vector<double> LossScale::ExportState() const {
  if (!is_dynamic_) return {};
  return {scale_, static_cast<double>(good_steps_)};
}

absl::Status LossScale::ImportState(const std::vector<double>& state) {
  if (state.empty() || !is_dynamic_) return absl::OkStatus();
  const bool is_one = state.size() == 2 && state[0] >= kLeast &&
                      state[0] <= kMost && state[1] >= 0 &&
                      state[1] < static_cast<double>(kGoodSteps);
  if (!is_one) {
    return absl::InvalidArgumentError(absl::StrCat(
        "loss scale: expected a scale from ", kLeast, " to ", kMost,
        " and fewer than ", kGoodSteps, " steps, got ", state.size(), " values",
        state.empty() ? std::string() : absl::StrCat(", first ", state[0])));
  }
  scale_ = state[0];
  good_steps_ = static_cast<int64_t>(state[1]);
  return absl::OkStatus();
}

}  // namespace deltapipe
