// What `auto` means for each kind of traffic of a job, and why.
//
// Activations: deltas against a sample's last visit, if samples come back and
// their records fit into memory; else four bits without state. Their gradients:
// eight bits, unbiased. Parameter gradients: what the optimizer calls for.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_RESOLVE_CODECS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_RESOLVE_CODECS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "base/image_model.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

inline constexpr char kDeltaActivationCodec[] = "delta(int(4),first=int(8))";
inline constexpr char kStatelessActivationCodec[] = "int(4)";
inline constexpr char kActivationGradientCodec[] = "int(8,round=stochastic)";

struct CodecFacts {
  /// Per sample, by boundary; empty with one stage.
  std::vector<int64_t> boundary_elements;
  /// Their rows and columns; empty: context x width.
  std::vector<BoundaryShape> boundary_shapes;
  /// 0 when not known.
  int64_t train_samples = 0;
  /// Memory that delta state may take, per stage; INT64_MAX when not known.
  std::vector<int64_t> free_bytes;
};

struct ResolvedCodecs {
  std::string activations;
  std::string activation_gradients;
  std::string gradients;
  /// Of records (delta) and residuals (ef) of both directions at the earlier
  /// and at the later stage of each boundary, capped by state_memory; 0 without
  /// state.
  std::vector<double> upstream_state_bytes;
  std::vector<double> downstream_state_bytes;
  std::vector<std::string> notes;
};

/// Passes on what is not `auto`; extents of the boundaries' tensors are filled
/// in where all boundaries have the same. INVALID_ARGUMENT for a codec that is
/// none.
absl::StatusOr<ResolvedCodecs> ResolveCodecs(const v1::JobSpec& spec,
                                             const CodecFacts& facts);

/// Samples of the training split as far as the spec tells them: a synthetic
/// model's, those of data.limit or the views of data.samples; 0 when it does
/// not.
int64_t TrainSamplesOfSpec(const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_RESOLVE_CODECS_H_
