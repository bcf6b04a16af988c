// Shows what a stage of a job keeps for its backward passes, and how.
//
// Runs one micro-batch of the model, as the spec describes it, through the
// layers before, of and after the stage, so that tensors and gradients are real
// ones.
#ifndef DELTAPIPE_WORKER_STAGE_EXPLAIN_SAVED_H_
#define DELTAPIPE_WORKER_STAGE_EXPLAIN_SAVED_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "worker/saved_activations/saved_bytes.h"

namespace deltapipe {

struct SavedExplanation {
  int first_layer = 0;
  int end_layer = 0;
  std::string policy;
  /// In the order of their saves.
  std::vector<SavedTensorReport> tensors;
  SavedBytes bytes;
  /// With every operator's tensors packed alone.
  std::vector<SavedFindings::Error> errors;
};

/// The layers [first_layer, end_layer) on `device`. UNIMPLEMENTED for a policy
/// or a model that has no saved tensors.
absl::StatusOr<SavedExplanation> ExplainSaved(v1::JobSpec spec, int first_layer,
                                              int end_layer,
                                              const std::string& device);

/// As a table of the `num_rows` largest tensors (operator, shape, class, bits
/// of an element, bytes, the probed error of the operator, reason), sums by
/// class, errors by operator. Lines have 100 columns or less, but for long
/// reasons.
std::string ExplanationText(const SavedExplanation& explanation, int num_rows);
/// One JSON object a line: a tensor each, then the sums.
std::string ExplanationJson(const SavedExplanation& explanation);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_EXPLAIN_SAVED_H_
