#include "worker/engine/tied_part.h"

#include <algorithm>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "worker/checkpoint/rank_state.h"

namespace deltapipe {

TiedPart::TiedPart(const TiedPartOptions& options, RankGroup* group)
    : layout_(LayoutOfRange(options.layout, {options.layout.tied_begin(),
                                             options.layout.num_elements})),
      begin_(options.layout.tied_begin()),
      stages_(options.layout.tied_stages),
      num_replicas_(options.num_replicas),
      group_(group) {}

absl::StatusOr<std::unique_ptr<TiedPart>> TiedPart::Create(
    const TiedPartOptions& options, RankGroup* group) {
  const std::vector<int>& stages = options.layout.tied_stages;
  const auto own = std::find(stages.begin(), stages.end(), options.stage);
  const int num_ranks = static_cast<int>(stages.size()) * options.num_replicas;
  if (own == stages.end() || group->size() != num_ranks ||
      group->rank() / options.num_replicas != own - stages.begin()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "tied weights of stages ", absl::StrJoin(stages, ", "), ": stage ",
        options.stage, " as rank ", group->rank(), " of ", group->size(),
        ", expected one of these stages among ", num_ranks, " ranks"));
  }
  std::unique_ptr<TiedPart> part(new TiedPart(options, group));
  DP_ASSIGN_OR_RETURN(part->optimizer_,
                      Optimizer::Create(options.optimizer, part->layout_));
  DP_ASSIGN_OR_RETURN(
      part->sync_,
      GradientSync::Create(options.sync, group, part->layout_.num_elements));
  return part;
}

std::string TiedPart::NameOf(size_t rank) const {
  const size_t replicas = static_cast<size_t>(num_replicas_);
  return absl::StrCat("stage ", stages_[rank / replicas], ", replica ",
                      rank % replicas);
}

absl::Status TiedPart::CheckEqual(uint32_t step, uint32_t phase,
                                  const std::string& when,
                                  absl::Span<const float> weights,
                                  Deadline deadline) {
  const absl::Span<const float> tied = Cut(weights);
  std::vector<double> mine;
  for (const ParameterSegment& segment : layout_.segments) {
    AppendHash(
        Checksum(absl::MakeConstSpan(
            reinterpret_cast<const uint8_t*>(tied.data() + segment.offset),
            static_cast<size_t>(segment.num_elements) * sizeof(float))),
        &mine);
  }
  DP_ASSIGN_OR_RETURN(const auto gathered,
                      group_->AllGather(step, phase, mine, deadline));
  for (size_t i = 0; i < mine.size(); ++i) {
    for (size_t rank = 1; rank < gathered.size(); ++rank) {
      if (gathered[rank][i] == gathered[0][i]) continue;
      return absl::DataLossError(absl::StrCat(
          "tied weights \"", layout_.segments[i / 2].name, "\" of ", NameOf(0),
          " and of ", NameOf(rank), " differ ", when,
          ": one of them is damaged; start the job again"));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<SyncFormat> TiedPart::Begin(int64_t step, double learning_rate,
                                           absl::Span<const float> weights,
                                           absl::Span<float> gradients) {
  const absl::Span<float> gradient = Cut(gradients);
  const float num_owners = static_cast<float>(stages_.size());
  for (float& value : gradient) value *= num_owners;
  const SyncRequest request =
      optimizer_->Prepare(step, learning_rate, Cut(weights), gradient);
  is_synchronised_ = request.format != SyncFormat::kNone;
  has_excluded_ = !request.excluded.empty();
  if (is_synchronised_) {
    DP_RETURN_IF_ERROR(sync_->Begin(static_cast<uint32_t>(step), request));
  }
  return request.format;
}

absl::Status TiedPart::Wait(Deadline deadline) {
  if (!is_synchronised_) return absl::OkStatus();
  DP_RETURN_IF_ERROR(sync_->Wait(deadline));
  if (has_excluded_) optimizer_->Wake(sync_->woken());
  return absl::OkStatus();
}

double TiedPart::CountedSquaredNorm() {
  return is_first_owner() ? optimizer_->MeanGradientSquaredNorm() : 0.0;
}

CompressionEvidence TiedPart::CountedEvidence() const {
  return is_first_owner() ? optimizer_->Evidence() : CompressionEvidence();
}

absl::Status TiedPart::Apply(int64_t step, double learning_rate,
                             double clip_factor, absl::Span<float> weights) {
  if (is_synchronised_) {
    DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kCommit));
  }
  return optimizer_->Apply(step, learning_rate, clip_factor, Cut(weights));
}

absl::Status TiedPart::Skip() {
  if (is_synchronised_) {
    DP_RETURN_IF_ERROR(sync_->Finish(SyncVerdict::kAbort));
  }
  optimizer_->Skip();
  return absl::OkStatus();
}

void TiedPart::AddState(OptimizerState* state) const {
  for (auto& [name, values] : optimizer_->ExportState()) {
    (*state)[kTiedPrefix + name] = std::move(values);
  }
}

absl::Status TiedPart::TakeState(OptimizerState* state) {
  OptimizerState tied;
  for (auto entry = state->begin(); entry != state->end();) {
    if (!absl::StartsWith(entry->first, kTiedPrefix)) {
      ++entry;
      continue;
    }
    tied[entry->first.substr(sizeof(kTiedPrefix) - 1)] =
        std::move(entry->second);
    entry = state->erase(entry);
  }
  return optimizer_->ImportState(tied);
}

}  // namespace deltapipe
