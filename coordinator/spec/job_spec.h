// Job specs as people write them: YAML (or proto JSON, which is YAML) to the
// JobSpec message, with every mistake found at once.
//
// The schema is the proto and its field rules (options.proto); there is no
// second one. Errors read
//   text.yaml:7:12: error: train.batch: expected 1..1048576, got 0
//   text.yaml:9:3: error: train.stepps: unknown field (did you mean 'steps'?)
#ifndef DELTAPIPE_COORDINATOR_SPEC_JOB_SPEC_H_
#define DELTAPIPE_COORDINATOR_SPEC_JOB_SPEC_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

struct SpecViolation {
  std::string location;  // "text.yaml:7:12", "--set train.batch=0", or empty
  std::string field;     // "train.batch"
  std::string message;   // "expected 1..1048576, got 0"
  std::string ToString() const;
};

/// Reads `path`, applies `overrides` ("train.steps=10", values in YAML), fills
/// in defaults and validates. On mistakes returns INVALID_ARGUMENT whose
/// message has one violation per line, all of them; NOT_FOUND if the file is
/// missing.
absl::StatusOr<v1::JobSpec> LoadJobSpec(
    const std::string& path, const std::vector<std::string>& overrides);

/// The same from text; `origin` names it in errors.
absl::StatusOr<v1::JobSpec> ParseJobSpec(
    const std::string& text, const std::string& origin,
    const std::vector<std::string>& overrides);

/// What is wrong with a spec whose defaults are filled in: ranges, choices,
/// units, codec texts, and what fields demand of each other (batch divisible by
/// replicas x microbatch, stages <= layers, width divisible by heads, ...).
std::vector<SpecViolation> ValidateJobSpec(const v1::JobSpec& spec);

/// Fills every absent scalar with its default. The scalars of a spec carry
/// presence, so a zero that was written stays, and filling twice changes
/// nothing.
void FillDefaults(v1::JobSpec* spec);

/// The spec as YAML, in the order of the proto; ParseJobSpec reads it back.
/// Fields that mean nothing beside the kinds chosen (the momentum of an
/// optimizer without one, links that shape nothing) are left out.
std::string JobSpecYaml(const v1::JobSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_JOB_SPEC_H_
