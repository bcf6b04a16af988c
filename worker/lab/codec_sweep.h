// Many codecs over the float tensors of a safetensors file: what each costs in
// bits and loses in accuracy, and which of them no other one beats in both.
//
// Each codec is measured as in codec_experiment.h and its tensors are taken
// together: bits and mean errors per element of all, the relative error that of
// all values as one vector, speeds those of the whole file.
#ifndef DELTAPIPE_WORKER_LAB_CODEC_SWEEP_H_
#define DELTAPIPE_WORKER_LAB_CODEC_SWEEP_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace deltapipe {

struct CodecSweep {
  /// Texts of stateless codecs, delta(...) or ef(...); empty: those of
  /// DefaultSweepCodecs.
  std::vector<std::string> codecs;
  std::string input_path;
  /// Empty: no previous tensors. Else they are those of the delta codecs.
  std::string previous_path;
  uint64_t seed = 0;
};

struct SweepResult {
  std::string codec;
  int64_t elements = 0;
  int64_t payload_bytes = 0;
  double bits_per_element = 0;  // 0 if there are no values
  /// As in TensorResult, of all tensors: errors are of the finite values.
  int64_t not_finite = 0;
  int64_t decoded_not_finite = 0;
  double relative_rms_error = 0;
  double mean_error = 0;
  double encode_gb_per_s = 0;
  double decode_gb_per_s = 0;
  /// Every codec with as few bits or fewer has a larger error. Of codecs that
  /// are equal in both, the first is.
  bool is_on_pareto_front = false;
};

/// Every row of codecs.def in a few settings; deltas where `has_previous`.
std::vector<std::string> DefaultSweepCodecs(bool has_previous);

/// Measures them all; by bits, then by error. INVALID_ARGUMENT for a bad codec
/// text, with its place, or for previous tensors that no codec takes; errors of
/// the files.
absl::StatusOr<std::vector<SweepResult>> RunCodecSweep(const CodecSweep& sweep);

/// Sorts by bits, then by error, and sets is_on_pareto_front. An error that is
/// not finite is the largest and never on the front.
void MarkParetoFront(std::vector<SweepResult>* results);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_CODEC_SWEEP_H_
