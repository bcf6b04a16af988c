// SpecReading: a job spec as it was read, with the place of every field and
// everything that is wrong with it.
//
// What LoadJobSpec is made of, for callers that have more to check (the command
// line looks at the corpus) and want all complaints in one list:
//
//   DP_ASSIGN_OR_RETURN(SpecReading reading, ReadJobSpec(path, overrides));
//   reading.Add(CheckCorpus(reading.spec));
//   DP_RETURN_IF_ERROR(reading.status());
#ifndef DELTAPIPE_COORDINATOR_SPEC_SPEC_READING_H_
#define DELTAPIPE_COORDINATOR_SPEC_SPEC_READING_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {

/// Where something stands: "text.yaml:7:12", or the --set it came from.
struct SpecPlace {
  std::string location;
  bool is_override = false;
  /// From 1; of an override, its position among them.
  int line = 0;
  int column = 0;
  bool operator<(const SpecPlace& other) const;
};

class SpecReading {
 public:
  /// Reads `text`; `origin` names it. Never fails: what is wrong is listed.
  static SpecReading FromText(const std::string& text,
                              const std::string& origin,
                              const std::vector<std::string>& overrides);

  /// The spec, defaults filled in. Fields that could not be read have theirs.
  v1::JobSpec spec;

  /// Adds violations of fields; each gets the place of its field. One of a
  /// field that already has a violation is dropped.
  void Add(const std::vector<SpecViolation>& violations);
  void AddAt(const SpecPlace& place, const std::string& field,
             const std::string& message);

  /// In the order of the file, those of --set last.
  std::vector<SpecViolation> violations() const;
  /// INVALID_ARGUMENT with one violation a line, or OK.
  absl::Status status() const;

  /// Whether `field` was written, and where.
  bool is_written(const std::string& field) const;
  /// The place of `field`, or of the nearest thing around it.
  SpecPlace PlaceOf(const std::string& field) const;
  void SetPlace(const std::string& field, const SpecPlace& place);
  /// Whether `field` has a violation.
  bool is_refused(const std::string& field) const;

 private:
  struct Entry {
    SpecPlace place;
    SpecViolation violation;
  };
  std::string origin_;
  std::map<std::string, SpecPlace> places_;
  std::vector<Entry> entries_;
  std::set<std::string> refused_;
};

/// The same from a file. NOT_FOUND, PERMISSION_DENIED or another error of
/// ReadFile if it cannot be read.
absl::StatusOr<SpecReading> ReadJobSpec(
    const std::string& path, const std::vector<std::string>& overrides);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_SPEC_READING_H_
