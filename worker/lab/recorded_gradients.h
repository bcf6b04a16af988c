// RecordedGradients: the two files of an optimizer experiment, checked against
// each other: parameters, and of each rank in each step a gradient for them.
#ifndef DELTAPIPE_WORKER_LAB_RECORDED_GRADIENTS_H_
#define DELTAPIPE_WORKER_LAB_RECORDED_GRADIENTS_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/safetensors.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class RecordedGradients {
 public:
  /// INVALID_ARGUMENT names file and tensor, with what was expected and what
  /// there is: tensors that are missing or too many, are not fp32, or have
  /// another shape than [steps, num_ranks, ...shape], with as many steps, at
  /// least one, for all. Errors of SafetensorsFile::Read.
  static absl::StatusOr<RecordedGradients> Read(
      const std::string& parameters_path, const std::string& gradients_path,
      int num_ranks);

  const ParameterLayout& layout() const { return layout_; }
  const std::vector<float>& parameters() const { return parameters_; }
  int64_t num_steps() const { return num_steps_; }
  int num_ranks() const { return num_ranks_; }

  /// Writes the flat gradient of a rank in a step. Thread-safe.
  void Copy(int64_t step, int rank, absl::Span<float> gradient) const;

 private:
  RecordedGradients(SafetensorsFile gradients, int num_ranks)
      : gradients_(std::move(gradients)), num_ranks_(num_ranks) {}
  absl::Status TakeParameters(const SafetensorsFile& file,
                              const std::string& path);
  absl::Status TakeGradients(const std::string& path);

  SafetensorsFile gradients_;
  int num_ranks_;
  ParameterLayout layout_;
  std::vector<float> parameters_;
  int64_t num_steps_ = 0;
  std::vector<absl::Span<const float>> recorded_;  // of each segment
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_RECORDED_GRADIENTS_H_
