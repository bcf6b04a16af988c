// The trained model as one safetensors file, whatever the split into stages:
// each stage's worker sends its shard over a frame channel to the writer.
#ifndef DELTAPIPE_WORKER_CHECKPOINT_MODEL_FILE_H_
#define DELTAPIPE_WORKER_CHECKPOINT_MODEL_FILE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "worker/optim/parameter_layout.h"
#include "worker/transport/frame_channel.h"

namespace deltapipe {

struct ModelShard {
  ParameterLayout layout;
  std::vector<float> weights;
};

/// Sends names, shapes and values; kWeights frames of at most 8 MiB.
absl::Status SendShard(FrameChannel* channel, const FrameHeader& header,
                       const ParameterLayout& layout,
                       absl::Span<const float> weights, Deadline deadline);
/// DATA_LOSS if what arrives is not a shard.
absl::StatusOr<ModelShard> ReceiveShard(FrameChannel* channel,
                                        Deadline deadline);
/// Writes all shards' tensors to `path`, replacing it in one step.
absl::Status WriteModelFile(const std::string& path,
                            std::vector<ModelShard>* shards,
                            const std::map<std::string, std::string>& metadata);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CHECKPOINT_MODEL_FILE_H_
