// Details of an error beside its sentence: which fields are wrong, what was
// looked for, and a reason that programs can tell apart (AIP-193).
//
// They travel as payloads of absl::Status, through layers that know nothing of
// them, and leave the process through coordinator/service/rich_status.h. Pure
// functions; thread-safe.
//
//   std::vector<FieldViolation> wrong;
//   wrong.push_back({"train.batch", "expected 1..1048576, got 0"});
//   return FieldViolationsError(wrong, "INVALID_SPEC");
#ifndef DELTAPIPE_COORDINATOR_ERRORS_ERROR_DETAILS_H_
#define DELTAPIPE_COORDINATOR_ERRORS_ERROR_DETAILS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

struct FieldViolation {
  std::string field;        // "train.batch"; may be empty
  std::string description;  // "expected 1..1048576, got 0"
};
inline bool operator==(const FieldViolation& a, const FieldViolation& b) {
  return a.field == b.field && a.description == b.description;
}

/// INVALID_ARGUMENT with "field: description" a line, in order, and the same as
/// details. OK if there are none.
absl::Status FieldViolationsError(
    const std::vector<FieldViolation>& violations,
    absl::string_view reason = "INVALID_ARGUMENT");

/// The violations that `status` carries.
std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status);

/// "train.batch: too small" as a violation of train.batch: what precedes the
/// first ": " is the field if it looks like a path.
FieldViolation ViolationFromText(const std::string& text);

struct ErrorReason {
  std::string reason;  // UPPER_SNAKE, at most 63 characters
  std::map<std::string, std::string> metadata;
};

/// `status` (not OK) with a reason in place of the one it had.
absl::Status WithReason(absl::Status status, const ErrorReason& reason);
std::optional<ErrorReason> ReasonOf(const absl::Status& status);

/// `status` (not OK), which says in addition what was looked for: "job",
/// "text-1".
absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name);

/// `status` (not OK), which says in addition what would have to be otherwise:
/// "WORKER", "worker-3", "has no room for the records".
absl::Status WithPrecondition(absl::Status status, absl::string_view type,
                              absl::string_view subject,
                              absl::string_view description);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_ERRORS_ERROR_DETAILS_H_
