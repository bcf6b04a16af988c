#include "worker/stage/compare_saved.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <iterator>
#include <memory>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "worker/stage/sample_input.h"
#include "worker/stage/stage.h"

namespace deltapipe {
namespace {

constexpr int kDraws = 16;
constexpr int64_t kLargestFactor = 64;
/// In which no policy measures: after those of the draws.
constexpr int64_t kQuietStep = 101;

double Median(std::vector<double> values) {
  const auto middle =
      values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

double RelativeError(absl::Span<const double> a, absl::Span<const float> b) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += (a[i] - b[i]) * (a[i] - b[i]);
    norm += static_cast<double>(b[i]) * b[i];
  }
  return norm == 0 ? 0 : std::sqrt(difference / norm);
}

/// One policy's stage.
struct Arm {
  std::string policy;
  std::unique_ptr<Stage> stage;
  std::vector<double> seconds;
  int64_t live = 0;
};

absl::StatusOr<Arm> MakeArm(v1::JobSpec spec, const std::string& device) {
  spec.mutable_compression()->set_saved_probe_every(0);
  Arm arm;
  arm.policy = spec.compression().saved_activations();
  DP_ASSIGN_OR_RETURN(arm.stage,
                      MakeTorchStage(spec, 0, spec.model().layers(), device));
  return {std::move(arm)};
}

absl::Status RunOnce(const SampleInput& sample, int64_t step, Arm* arm) {
  StageInput input = sample.input();
  input.step = step;
  StageOutput output;
  const auto begin = std::chrono::steady_clock::now();
  DP_RETURN_IF_ERROR(arm->stage->Forward(input, &output));
  arm->live = arm->stage->saved_activations()->live_bytes();
  DP_RETURN_IF_ERROR(arm->stage->Backward(0, TensorRef()).status());
  arm->seconds.push_back(
      std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
          .count());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> GradientOf(const SampleInput& sample,
                                              int64_t step, Arm* arm) {
  DP_RETURN_IF_ERROR(arm->stage->WeightsChanged());
  DP_RETURN_IF_ERROR(RunOnce(sample, step, arm));
  const absl::Span<float> gradients = arm->stage->gradients();
  return std::vector<float>(gradients.begin(), gradients.end());
}

/// What a pass keeps without a policy. `none` does not count, and a policy that
/// computes again, or keeps results, does not see all of it.
absl::StatusOr<int64_t> BytesWithoutPolicy(v1::JobSpec spec,
                                           const std::string& device,
                                           const SampleInput& sample) {
  spec.mutable_compression()->set_saved_activations("fixed(cast(bf16))");
  DP_ASSIGN_OR_RETURN(Arm arm, MakeArm(std::move(spec), device));
  DP_RETURN_IF_ERROR(RunOnce(sample, 0, &arm));
  return arm.stage->saved_activations()->TakeBytes().unique;
}

/// The most samples of which a pass keeps at most `budget` bytes at a time.
absl::StatusOr<int64_t> LargestBatch(const v1::JobSpec& spec, int64_t budget,
                                     Arm* arm) {
  SavedActivations* const saved = arm->stage->saved_activations();
  const auto fits = [&](int64_t samples) -> absl::StatusOr<bool> {
    saved->TakeBytes();
    DP_RETURN_IF_ERROR(
        RunOnce(SampleInput(spec.model(), samples), kQuietStep, arm));
    return saved->TakeBytes().live_peak <= budget;
  };
  int64_t low = 0;
  int64_t high = spec.train().microbatch();
  const int64_t most = kLargestFactor * spec.train().microbatch();
  while (high <= most) {
    DP_ASSIGN_OR_RETURN(const bool is_enough, fits(high));
    if (!is_enough) break;
    low = high;
    high *= 2;
  }
  while (low + 1 < high && high <= most) {
    const int64_t middle = (low + high) / 2;
    DP_ASSIGN_OR_RETURN(const bool is_enough, fits(middle));
    (is_enough ? low : high) = middle;
  }
  return low;
}

/// Fills in batch_pace: with the largest micro-batches, in turns.
absl::Status TimeLargestBatches(const v1::JobSpec& spec, int repeats,
                                std::vector<Arm>* arms,
                                std::vector<SavedComparison>* rows) {
  for (Arm& arm : *arms) arm.seconds.clear();
  for (int repeat = 0; repeat < repeats; ++repeat) {
    for (size_t i = 0; i < arms->size(); ++i) {
      const int64_t samples = (*rows)[i].largest_batch;
      if (samples == 0) continue;
      DP_RETURN_IF_ERROR(
          RunOnce(SampleInput(spec.model(), samples), kQuietStep, &(*arms)[i]));
    }
  }
  double pace_of_none = 0;
  for (size_t i = 0; i < arms->size(); ++i) {
    SavedComparison& row = (*rows)[i];
    if (row.largest_batch == 0) continue;
    const double pace =
        static_cast<double>(row.largest_batch) / Median((*arms)[i].seconds);
    if (i == 0) pace_of_none = pace;
    row.batch_pace = pace / pace_of_none;
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::vector<SavedComparison>> CompareSaved(
    const v1::JobSpec& spec, const SavedComparisonOptions& options) {
  std::vector<Arm> arms;
  std::vector<std::string> policies = {"none"};
  absl::c_copy_if(options.policies, std::back_inserter(policies),
                  [](const std::string& policy) { return policy != "none"; });
  for (const std::string& policy : policies) {
    v1::JobSpec own = spec;
    own.mutable_compression()->set_saved_activations(policy);
    DP_ASSIGN_OR_RETURN(Arm arm, MakeArm(std::move(own), options.device));
    arms.push_back(std::move(arm));
  }
  const SampleInput sample(spec.model(), spec.train().microbatch());
  // The first steps are those that policies measure in and plan after.
  for (int repeat = -1; repeat < options.repeats; ++repeat) {
    for (Arm& arm : arms) {
      DP_RETURN_IF_ERROR(RunOnce(sample, repeat + 1, &arm));
      DP_RETURN_IF_ERROR(arm.stage->WeightsChanged());
      if (repeat < 0) arm.seconds.clear();
    }
  }
  DP_ASSIGN_OR_RETURN(const std::vector<float> exact,
                      GradientOf(sample, options.repeats + 1, &arms[0]));

  DP_ASSIGN_OR_RETURN(const int64_t raw_bytes,
                      BytesWithoutPolicy(spec, options.device, sample));

  std::vector<SavedComparison> rows;
  for (Arm& arm : arms) {
    SavedComparison row;
    row.policy = arm.policy;
    row.raw_bytes = raw_bytes;
    row.seconds = Median(arm.seconds);
    row.time_ratio = rows.empty() ? 1 : row.seconds / rows[0].seconds;
    if (!rows.empty()) {
      std::vector<double> mean(exact.size());
      for (int draw = 0; draw < kDraws; ++draw) {
        const int64_t step = options.repeats + 1 + draw;
        DP_ASSIGN_OR_RETURN(std::vector<float> gradient,
                            GradientOf(sample, step, &arm));
        // Each step drops other values.
        if (spec.model().dropout() > 0 && draw > 0) {
          DP_ASSIGN_OR_RETURN(const std::vector<float> own,
                              GradientOf(sample, step, &arms[0]));
          for (size_t i = 0; i < own.size(); ++i) {
            gradient[i] += exact[i] - own[i];
          }
        }
        for (size_t i = 0; i < mean.size(); ++i) {
          mean[i] += gradient[i] / static_cast<double>(kDraws);
        }
        if (draw == 0) {
          row.gradient_error = RelativeError(
              std::vector<double>(gradient.begin(), gradient.end()), exact);
        }
      }
      row.mean_gradient_error = RelativeError(mean, exact);
      row.kept_ratio =
          static_cast<double>(arm.live) / static_cast<double>(raw_bytes);
    }
    if (options.finds_batch) {
      row.largest_batch = spec.train().microbatch();
      if (!rows.empty()) {
        DP_ASSIGN_OR_RETURN(row.largest_batch,
                            LargestBatch(spec, raw_bytes, &arm));
      }
    }
    rows.push_back(std::move(row));
  }
  if (options.finds_batch) {
    DP_RETURN_IF_ERROR(TimeLargestBatches(spec, options.repeats, &arms, &rows));
  }
  return rows;
}

std::string ComparisonText(const std::vector<SavedComparison>& rows) {
  size_t width = 6;
  for (const SavedComparison& row : rows) {
    width = std::max(width, row.policy.size());
  }
  const int column = static_cast<int>(width);
  std::string text = absl::StrFormat(
      "%-*s %7s %9s %7s %10s %10s %8s %6s\n", column, "POLICY", "KEPT",
      "SECONDS", "TIME", "ERROR", "OF MEAN", "BATCH", "PACE");
  for (const SavedComparison& row : rows) {
    const bool has_batch = row.batch_pace > 0;
    absl::StrAppendFormat(
        &text, "%-*s %7.3f %9.4f %7.2f %10.4g %10.4g %8s %6s\n", column,
        row.policy, row.kept_ratio, row.seconds, row.time_ratio,
        row.gradient_error, row.mean_gradient_error,
        has_batch ? absl::StrCat(row.largest_batch) : "-",
        has_batch ? absl::StrFormat("%.2f", row.batch_pace) : "-");
  }
  absl::StrAppend(
      &text, "\nKEPT and TIME: over those of none, which keeps ",
      FormatBytes(rows[0].raw_bytes),
      ". ERROR: of the gradient, relative; OF MEAN: of that of 16 draws.\n"
      "BATCH: the largest micro-batch within these bytes; PACE: samples/s with "
      "it over those of none (--batch).\n");
  return text;
}

}  // namespace deltapipe
