// One codec over the float tensors of a safetensors file: encodes, decodes, and
// measures size, error and speed.
//
// delta(...) and ef(...) go through the codecs of a job's boundaries, so that
// output and error are those of what a job trains on: a delta's values are
// rounded to its store type, and a value goes itself where the change is not
// smaller. With previous tensors, each tensor's namesake there, rounded
// likewise, is what both ends stored on the visit before. A tensor without a
// namesake, and every tensor without previous ones, is a first visit. ef(...)
// starts with no residual. Payload bytes do not count the table of a body.
#ifndef DELTAPIPE_WORKER_LAB_CODEC_EXPERIMENT_H_
#define DELTAPIPE_WORKER_LAB_CODEC_EXPERIMENT_H_

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/safetensors.h"
#include "compression/codecs/error_bound.h"

namespace deltapipe {

struct CodecExperiment {
  std::string codec;
  std::string input_path;
  /// Empty: the decoded tensors are not kept.
  std::string output_path;
  /// Empty: no previous tensors.
  std::string previous_path;
  uint64_t seed = 0;
};

struct TensorResult {
  std::string tensor;
  int64_t elements = 0;
  int64_t payload_bytes = 0;
  double bits_per_element = 0;  // 0 for an empty tensor
  /// Values x of the tensor that are NaN or infinite, and what they and others
  /// were decoded to, y. Errors are of the elements where both are finite.
  int64_t not_finite = 0;
  int64_t decoded_not_finite = 0;
  int64_t compared = 0;
  /// ||y - x|| / ||x||; 0 where both are 0, NaN where nothing can be compared.
  double relative_rms_error = 0;
  /// The mean of y - x; NaN where nothing can be compared.
  double mean_error = 0;
  /// ||x||^2 and ||y - x||^2.
  double value_squares = 0;
  double error_squares = 0;
  /// fp32 bytes per second / 1e9, the best of a few runs.
  double encode_gb_per_s = 0;
  double decode_gb_per_s = 0;
  /// Of error_bound, also in delta(...) or ef(...): what the payload says of
  /// what went into it, there the change or the value plus the residual.
  std::optional<ErrorBoundStatistics> error_bound;
};

/// Calls `report` for each float tensor, in the order of the file, then writes
/// the output: decoded tensors in fp32, all others unchanged. INVALID_ARGUMENT
/// or NOT_FOUND for a bad codec text or file.
absl::Status RunCodecExperiment(
    const CodecExperiment& experiment,
    const std::function<void(const TensorResult&)>& report);

/// The files of an experiment.
struct ExperimentTensors {
  SafetensorsFile input;
  std::optional<SafetensorsFile> previous;
  std::string previous_path;  // for errors
};

/// `previous_path` may be empty. Errors of SafetensorsFile::Read.
absl::StatusOr<ExperimentTensors> ReadExperimentTensors(
    const std::string& input_path, const std::string& previous_path);

/// Calls `report` for each float tensor of the input, in the order of the file,
/// with its decoded values, in which rows are as long as its last extent.
/// Previous tensors are those of delta(...); other codecs leave them aside.
/// INVALID_ARGUMENT for a bad codec text or a previous tensor of another shape.
absl::Status MeasureCodec(
    const std::string& codec, const ExperimentTensors& tensors, uint64_t seed,
    const std::function<void(const TensorResult&, std::vector<float> decoded)>&
        report);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_CODEC_EXPERIMENT_H_
