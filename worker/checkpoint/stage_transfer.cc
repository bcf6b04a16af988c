#include "worker/checkpoint/stage_transfer.h"

#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/checkpoint/model_file.h"

namespace deltapipe {
namespace {

constexpr char kWeights[] = "weights";
constexpr char kFormerWeights[] = "former_weights";
constexpr char kOptimizer[] = "optimizer/";
// A double's bits as two floats', and whether it is known.
constexpr char kNormRatio[] = "engine/norm_ratio";
constexpr char kLossScale[] = "engine/loss_scale";
constexpr char kCursors[] = "engine/cursors";
constexpr char kCounts[] = "engine/microbatch_counts";
constexpr char kCompression[] = "engine/compression";

void Append(const std::string& name, absl::Span<const float> values,
            ModelShard* shard) {
  ParameterSegment segment;
  segment.name = name;
  segment.num_elements = static_cast<int64_t>(values.size());
  segment.shape = {segment.num_elements};
  segment.offset = shard->layout.num_elements;
  shard->layout.num_elements += segment.num_elements;
  shard->layout.segments.push_back(std::move(segment));
  shard->weights.insert(shard->weights.end(), values.begin(), values.end());
}

/// Values of eight bytes, each as the bits of two floats; nothing for none.
template <typename T>
void AppendBits(const std::string& name, const std::vector<T>& values,
                ModelShard* shard) {
  if (values.empty()) return;
  std::vector<float> bits(2 * values.size());
  std::memcpy(bits.data(), values.data(), sizeof(T) * values.size());
  Append(name, bits, shard);
}

template <typename T>
std::vector<T> FromBits(const std::vector<float>& bits) {
  std::vector<T> values(bits.size() / 2);
  if (!values.empty()) {
    std::memcpy(values.data(), bits.data(), sizeof(T) * values.size());
  }
  return values;
}

}  // namespace

absl::Status SendStageState(FrameChannel* channel, const FrameHeader& header,
                            const StageState& state, Deadline deadline) {
  ModelShard shard;
  Append(kWeights, state.weights, &shard);
  if (!state.former_weights.empty()) {
    Append(kFormerWeights, state.former_weights, &shard);
  }
  for (const auto& [name, values] : state.optimizer) {
    Append(kOptimizer + name, values, &shard);
  }
  std::vector<float> ratio(3);
  std::memcpy(ratio.data(), &state.norm_ratio, sizeof(double));
  ratio[2] = state.is_norm_ratio_known ? 1.0f : 0.0f;
  Append(kNormRatio, ratio, &shard);
  AppendBits(kLossScale, state.loss_scale, &shard);
  AppendBits(kCursors, state.cursors, &shard);
  AppendBits(kCounts, state.counts, &shard);
  AppendBits(kCompression, state.compression, &shard);
  return SendShard(channel, header, shard.layout, shard.weights, deadline);
}

absl::StatusOr<StageState> ReceiveStageState(FrameChannel* channel,
                                             const ParameterLayout& layout,
                                             Deadline deadline) {
  DP_ASSIGN_OR_RETURN(const ModelShard shard, ReceiveShard(channel, deadline));
  StageState state;
  bool has_ratio = false;
  for (const ParameterSegment& segment : shard.layout.segments) {
    const auto begin = shard.weights.begin() + segment.offset;
    std::vector<float> values(begin, begin + segment.num_elements);
    if (segment.name == kWeights) {
      state.weights = std::move(values);
    } else if (segment.name == kFormerWeights) {
      state.former_weights = std::move(values);
    } else if (absl::StartsWith(segment.name, kOptimizer)) {
      state.optimizer[segment.name.substr(sizeof(kOptimizer) - 1)] =
          std::move(values);
    } else if (segment.name == kNormRatio && values.size() == 3) {
      std::memcpy(&state.norm_ratio, values.data(), sizeof(double));
      state.is_norm_ratio_known = values[2] > 0;
      has_ratio = true;
    } else if (segment.name == kLossScale) {
      state.loss_scale = FromBits<double>(values);
    } else if (segment.name == kCursors) {
      state.cursors = FromBits<int64_t>(values);
    } else if (segment.name == kCounts) {
      state.counts = FromBits<int64_t>(values);
    } else if (segment.name == kCompression) {
      state.compression = FromBits<double>(values);
    }
  }
  if (static_cast<int64_t>(state.weights.size()) != layout.num_elements ||
      !has_ratio) {
    return absl::DataLossError(absl::StrCat(
        "the stage's state from ", channel->peer(), " has ",
        state.weights.size(), " weights, expected ", layout.num_elements));
  }
  return state;
}

absl::Status SendOptimizerState(FrameChannel* channel,
                                const FrameHeader& header,
                                const OptimizerState& state,
                                Deadline deadline) {
  ModelShard shard;
  for (const auto& [name, values] : state) Append(name, values, &shard);
  return SendShard(channel, header, shard.layout, shard.weights, deadline);
}

absl::StatusOr<OptimizerState> ReceiveOptimizerState(FrameChannel* channel,
                                                     Deadline deadline) {
  DP_ASSIGN_OR_RETURN(const ModelShard shard, ReceiveShard(channel, deadline));
  OptimizerState state;
  for (const ParameterSegment& segment : shard.layout.segments) {
    const auto begin = shard.weights.begin() + segment.offset;
    state[segment.name].assign(begin, begin + segment.num_elements);
  }
  return state;
}

}  // namespace deltapipe
