// Writes text with a trained model, byte by byte.
#ifndef DELTAPIPE_WORKER_STAGE_GENERATE_H_
#define DELTAPIPE_WORKER_STAGE_GENERATE_H_

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"

namespace deltapipe {

struct GenerateOptions {
  std::string model_path;  // a model.safetensors of a run
  std::string prompt;
  int64_t num_bytes = 200;
  /// 0 always takes the most probable byte.
  double temperature = 0.8;
  uint64_t seed = 0;
};

/// Calls `emit` for every byte. NOT_FOUND if there is no such file;
/// INVALID_ARGUMENT if it is not a model of this program.
absl::Status GenerateText(const GenerateOptions& options,
                          const std::function<void(char)>& emit);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_GENERATE_H_
