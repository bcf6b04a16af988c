// What happens between steps: validation, the model file, the comparison of the
// replicas' weights.
#include <google/protobuf/util/json_util.h>

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/failpoint.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "worker/checkpoint/model_file.h"
#include "worker/collective/replica_check.h"
#include "worker/engine/training_step.h"

namespace deltapipe {
namespace {

/// Of a validation: how far the first stage may run ahead of the last.
constexpr int64_t kMicrobatchesBetweenMeetings = 16;

}  // namespace

absl::Status Training::Meet(uint32_t step) {
  return stages_->AllGather(step, kValidatePhase, {0.0}, WaitDeadline())
      .status();
}

absl::Status Training::Validate(int64_t step) {
  Failpoint("validate");
  v1::ValidationReport report;
  double weighted_loss = 0;
  const uint32_t wire_step = static_cast<uint32_t>(step);
  const int64_t count = source_->num_validation_microbatches();
  int64_t num_done = 0;
  for (int64_t i = replica_; i < count; i += num_replicas_, ++num_done) {
    // Nothing comes back from the last stage that would hold up a fast first
    // one; so they meet now and then, and once more at the end.
    if (num_done % kMicrobatchesBetweenMeetings == 0) {
      DP_RETURN_IF_ERROR(Meet(wire_step));
    }
    const Microbatch batch = source_->Validation(i);
    StageInput input;
    input.step = step;
    input.epoch = step / source_->steps_per_epoch();
    input.num_samples = static_cast<int64_t>(batch.samples.size());
    std::vector<uint64_t> keys(batch.samples.size());
    input.sample_keys = keys;
    input.tokens = batch.tokens;
    input.targets = batch.targets;
    input.needs_backward = false;
    const uint32_t mb = static_cast<uint32_t>(i);
    if (!is_first()) {
      previous_->Expect(wire_step, mb, batch.samples, true);
      DP_ASSIGN_OR_RETURN(auto activation,
                          previous_->Await(wire_step, mb, true));
      input.activation = std::move(activation.tensor);
    }
    StageOutput output;
    DP_RETURN_IF_ERROR(versions_->newest()->Forward(input, &output));
    if (is_last()) {
      weighted_loss += output.loss * static_cast<double>(batch.targets.size());
      report.set_tokens(report.tokens() +
                        static_cast<int64_t>(batch.targets.size()));
      if (output.num_correct >= 0) {
        report.set_correct(report.correct() + output.num_correct);
      }
    } else {
      next_->Send(wire_step, mb, batch.samples, std::move(output.activation),
                  true);
      DP_RETURN_IF_ERROR(next_->WaitForQueue(4));
    }
  }
  DP_RETURN_IF_ERROR(Meet(wire_step));
  if (is_last() && report.tokens() > 0) {
    report.set_job_id(options_.assignment.job_id());
    report.set_generation(options_.assignment.generation());
    report.set_step(step);
    report.set_loss(weighted_loss / static_cast<double>(report.tokens()));
    if (options_.on_validation) options_.on_validation(report);
  }
  return absl::OkStatus();
}

absl::Status Training::WriteModel(int64_t step) {
  if (spec_.model().kind() == "synthetic") return absl::OkStatus();
  const Deadline deadline = ModelDeadline();
  if (replica_ == 0) DP_RETURN_IF_ERROR(WriteShards(step, deadline));
  // Nobody goes on, and waits for one who writes, with a step's patience.
  const uint32_t wire_step = static_cast<uint32_t>(step);
  DP_RETURN_IF_ERROR(
      stages_->AllGather(wire_step, kModelPhase, {0.0}, deadline).status());
  return replicas_->AllGather(wire_step, kModelPhase, {0.0}, deadline).status();
}

absl::Status Training::WriteShards(int64_t step, Deadline deadline) {
  if (!is_first()) {
    FrameHeader header;
    header.generation = options_.assignment.generation();
    header.step = static_cast<uint32_t>(step);
    // Of what is tied one copy is enough, the first owner's.
    const std::vector<int>& tied = layout().tied_stages;
    const ElementRange sent{0, tied.empty() || tied.front() == stage_index_
                                   ? layout().num_elements
                                   : layout().tied_begin()};
    return Annotate(
        SendShard(mesh_.stage_scalars[0].get(), header,
                  LayoutOfRange(layout(), sent),
                  absl::Span<const float>(versions_->newest()->weights())
                      .first(static_cast<size_t>(sent.end)),
                  deadline),
        "send the weights to the writer");
  }
  std::vector<ModelShard> shards(1);
  shards[0].layout = layout();
  shards[0].weights.assign(versions_->newest()->weights().begin(),
                           versions_->newest()->weights().end());
  for (int stage = 1; stage < num_stages_; ++stage) {
    auto shard = ReceiveShard(
        mesh_.stage_scalars[static_cast<size_t>(stage)].get(), deadline);
    if (!shard.ok()) {
      return Annotate(shard.status(),
                      absl::StrCat("collect the weights of stage ", stage));
    }
    shards.push_back(*std::move(shard));
  }
  std::string spec_json;
  if (!google::protobuf::util::MessageToJsonString(spec_, &spec_json).ok()) {
    return absl::InternalError("the spec cannot be written as JSON");
  }
  DP_RETURN_IF_ERROR(MakeDirectories(options_.assignment.run_folder()));
  model_path_ =
      absl::StrCat(options_.assignment.run_folder(), "/model.safetensors");
  return WriteModelFile(model_path_, &shards,
                        {{"format", "deltapipe"},
                         {"step", absl::StrCat(step)},
                         {"spec", spec_json}});
}

absl::Status Training::Verify(int64_t step, uint64_t* hash) {
  const absl::Span<const float> weights = versions_->newest()->weights();
  *hash = Checksum(absl::MakeConstSpan(
      reinterpret_cast<const uint8_t*>(weights.data()), weights.size() * 4));
  DP_RETURN_IF_ERROR(CheckReplicas(replicas_.get(), static_cast<uint32_t>(step),
                                   kVerifyPhase, layout(), weights,
                                   WaitDeadline()));
  return VerifyTied(step, kVerifyPhase, absl::StrCat("after step ", step + 1),
                    WaitDeadline());
}

absl::Status Training::VerifyTied(int64_t step, uint32_t phase,
                                  const std::string& when, Deadline deadline) {
  if (tied_ == nullptr) return absl::OkStatus();
  return tied_->CheckEqual(static_cast<uint32_t>(step), phase, when,
                           versions_->newest()->weights(), deadline);
}

}  // namespace deltapipe
