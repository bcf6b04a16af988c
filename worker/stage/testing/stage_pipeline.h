// A model of text cut into stages of this process, for tests.
#ifndef DELTAPIPE_WORKER_STAGE_TESTING_STAGE_PIPELINE_H_
#define DELTAPIPE_WORKER_STAGE_TESTING_STAGE_PIPELINE_H_

#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "gtest/gtest.h"
#include "worker/stage/stage.h"

namespace deltapipe {

inline std::vector<uint8_t> SomeText(int64_t size, int64_t offset) {
  std::vector<uint8_t> text(static_cast<size_t>(size));
  for (size_t i = 0; i < text.size(); ++i) {
    const size_t at = i + static_cast<size_t>(offset);
    text[i] = static_cast<uint8_t>('a' + (at * at / 3 + at % 5) % 17);
  }
  return text;
}

class StagePipeline {
 public:
  /// `num_samples` a micro-batch.
  StagePipeline(const v1::JobSpec& spec, int num_stages,
                const std::string& device, int64_t num_samples)
      : num_samples_(num_samples),
        num_tokens_(num_samples * spec.model().context()) {
    const int layers = spec.model().layers();
    for (int s = 0; s < num_stages; ++s) {
      auto stage = MakeTorchStage(spec, s * layers / num_stages,
                                  (s + 1) * layers / num_stages, device);
      EXPECT_TRUE(stage.ok()) << stage.status();
      stages_.push_back(*std::move(stage));
    }
  }

  /// Adds one micro-batch's gradients; returns its loss.
  double Run(int64_t offset, float gradient_scale = 1, float loss_scale = 1,
             int64_t step = 0) {
    const std::vector<uint8_t> tokens = SomeText(num_tokens_, offset);
    const std::vector<uint8_t> targets = SomeText(num_tokens_, offset + 1);
    const std::vector<uint64_t> keys(static_cast<size_t>(num_samples_),
                                     static_cast<uint64_t>(offset));
    TensorRef activation;
    StageOutput output;
    for (auto& stage : stages_) {
      StageInput input;
      input.step = step;
      input.num_samples = num_samples_;
      input.sample_keys = keys;
      input.tokens = tokens;
      input.targets = targets;
      input.activation = activation;
      input.loss_scale = loss_scale;
      input.gradient_scale = gradient_scale;
      EXPECT_TRUE(stage->Forward(input, &output).ok());
      activation = output.activation;
    }
    TensorRef gradient;
    for (auto stage = stages_.rbegin(); stage != stages_.rend(); ++stage) {
      auto result = (*stage)->Backward(0, gradient);
      EXPECT_TRUE(result.ok()) << result.status();
      gradient = *result;
    }
    return output.loss;
  }

  void Forget() {
    for (auto& stage : stages_) EXPECT_TRUE(stage->WeightsChanged().ok());
  }
  std::vector<float> Gradients() {
    std::vector<float> all;
    for (auto& stage : stages_) {
      const absl::Span<float> own = stage->gradients();
      all.insert(all.end(), own.begin(), own.end());
    }
    return all;
  }
  Stage& stage(size_t i) { return *stages_[i]; }
  size_t size() const { return stages_.size(); }

 private:
  const int64_t num_samples_;
  const int64_t num_tokens_;
  std::vector<std::unique_ptr<Stage>> stages_;
};

/// ||a - b|| / ||b||
inline double RelativeDifference(const std::vector<float>& a,
                                 const std::vector<float>& b) {
  double difference = 0;
  double norm = 0;
  for (size_t i = 0; i < b.size(); ++i) {
    difference += std::pow(double(a[i]) - double(b[i]), 2);
    norm += std::pow(double(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_TESTING_STAGE_PIPELINE_H_
