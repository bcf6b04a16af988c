#include "worker/stage/sample_input.h"

#include "base/image_model.h"

namespace deltapipe {
namespace {

constexpr char kText[] =
    "it is a truth universally acknowledged that a thin line between two "
    "machines must be in want of a codec. ";
constexpr int kClasses = 10;

uint8_t ByteAt(size_t i) {
  return static_cast<uint8_t>(kText[(i * i / 7 + i) % (sizeof(kText) - 1)]);
}

}  // namespace

SampleInput::SampleInput(const v1::ModelSpec& model, int64_t num_samples)
    : num_samples_(num_samples) {
  const bool is_image = IsImageModel(model.kind());
  tokens_.resize(static_cast<size_t>(
      num_samples * (is_image ? kImagePixels : model.context())));
  targets_.resize(static_cast<size_t>(
      num_samples * TargetsPerSample(model.kind(), model.context())));
  for (size_t i = 0; i < tokens_.size(); ++i) tokens_[i] = ByteAt(i);
  for (size_t i = 0; i < targets_.size(); ++i) {
    targets_[i] = is_image ? ByteAt(i) % kClasses : ByteAt(i + 1);
  }
  for (int64_t i = 0; i < num_samples; ++i) {
    keys_.push_back(static_cast<uint64_t>(i));
  }
}

StageInput SampleInput::input() const {
  StageInput input;
  input.num_samples = num_samples_;
  input.sample_keys = keys_;
  input.tokens = tokens_;
  input.targets = targets_;
  return input;
}

}  // namespace deltapipe
