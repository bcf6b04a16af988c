#include "coordinator/spec/spec_reading.h"

#include <algorithm>
#include <tuple>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/spec/field_rules.h"
#include "coordinator/spec/validate.h"
#include "coordinator/spec/yaml_fields.h"

namespace deltapipe {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr int64_t kMaxSpecBytes = int64_t{1} << 20;

/// A run that --set makes shorter than the warm-up of its file never
/// compresses; that is no mistake of whoever tries a few steps. `plan` says so.
void ShortenWarmup(SpecReading* reading) {
  const char* field = "train.optimizer.compress_after_step";
  v1::TrainSpec* train = reading->spec.mutable_train();
  if (!reading->PlaceOf("train.steps").is_override ||
      reading->PlaceOf(field).is_override) {
    return;
  }
  const auto choice = ParseStepChoice(train->optimizer().compress_after_step());
  if (choice.ok() && !choice->is_auto && choice->steps > train->steps()) {
    train->mutable_optimizer()->set_compress_after_step(
        absl::StrCat(train->steps()));
  }
}

/// Complains about fields that were written but mean nothing beside the kind
/// that was chosen in the same file. A kind chosen by --set leaves them be, so
/// that one spec serves several optimizers.
void CheckIdleFields(const std::string& path, const Message& message,
                     SpecReading* reading) {
  const std::string kind_path = JoinPath(path, "kind");
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    const std::string field_path = JoinPath(path, field.name());
    const std::string kind = KindThatIgnores(field, message);
    const bool is_idle = !kind.empty() && reading->is_written(field_path);
    if (is_idle && !reading->is_refused(kind_path) &&
        !reading->PlaceOf(kind_path).is_override) {
      reading->Add(
          {{"", field_path,
            absl::StrCat("expected only with ", kind_path, ": ",
                         KindsThatUse(field), ", got it with ", kind)}});
    } else if (HoldsMessages(field)) {
      ForEachMessageIn(field_path, field, message,
                       [&](const std::string& held_path, const Message& held) {
                         CheckIdleFields(held_path, held, reading);
                       });
    }
  }
}

}  // namespace

bool SpecPlace::operator<(const SpecPlace& other) const {
  return std::tie(is_override, line, column) <
         std::tie(other.is_override, other.line, other.column);
}

SpecReading SpecReading::FromText(const std::string& text,
                                  const std::string& origin,
                                  const std::vector<std::string>& overrides) {
  SpecReading reading;
  reading.origin_ = origin;
  // A file that is no YAML at all says so once, without every missing field.
  const bool is_readable = ReadYamlFields(text, origin, &reading);
  for (size_t i = 0; i < overrides.size(); ++i) {
    ReadOverride(overrides[i], static_cast<int>(i), &reading);
  }
  FillDefaults(&reading.spec);
  if (!is_readable) return reading;
  ShortenWarmup(&reading);
  reading.Add(FindViolations(reading.spec, reading.refused_));
  CheckIdleFields("", reading.spec, &reading);
  return reading;
}

void SpecReading::Add(const std::vector<SpecViolation>& violations) {
  for (const SpecViolation& violation : violations) {
    if (is_refused(violation.field)) continue;
    AddAt(PlaceOf(violation.field), violation.field, violation.message);
  }
}

void SpecReading::AddAt(const SpecPlace& place, const std::string& field,
                        const std::string& message) {
  entries_.push_back({place, {place.location, field, message}});
  refused_.insert(field);
}

std::vector<SpecViolation> SpecReading::violations() const {
  std::vector<Entry> sorted = entries_;
  std::stable_sort(
      sorted.begin(), sorted.end(),
      [](const Entry& a, const Entry& b) { return a.place < b.place; });
  std::vector<SpecViolation> violations;
  for (const Entry& entry : sorted) violations.push_back(entry.violation);
  return violations;
}

absl::Status SpecReading::status() const {
  if (entries_.empty()) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrJoin(
      violations(), "\n", [](std::string* out, const SpecViolation& violation) {
        out->append(violation.ToString());
      }));
}

bool SpecReading::is_written(const std::string& field) const {
  return places_.count(field) > 0;
}

SpecPlace SpecReading::PlaceOf(const std::string& field) const {
  std::string path = field;
  while (true) {
    const auto found = places_.find(path);
    if (found != places_.end()) return found->second;
    // Around "a.list[0].b" there are "a.list[0]", "a.list" and "a".
    const size_t end = path.find_last_of(".[");
    if (end == std::string::npos) break;
    path.resize(end);
  }
  return {absl::StrCat(origin_, ":1:1"), false, 1, 1};
}

void SpecReading::SetPlace(const std::string& field, const SpecPlace& place) {
  places_[field] = place;
}

bool SpecReading::is_refused(const std::string& field) const {
  return refused_.count(field) > 0;
}

absl::StatusOr<SpecReading> ReadJobSpec(
    const std::string& path, const std::vector<std::string>& overrides) {
  DP_ASSIGN_OR_RETURN(const std::string text, ReadFile(path, kMaxSpecBytes));
  return SpecReading::FromText(text, path, overrides);
}

std::string SpecViolation::ToString() const {
  return absl::StrCat(location, location.empty() ? "" : ": ", "error: ", field,
                      field.empty() ? "" : ": ", message);
}

absl::StatusOr<v1::JobSpec> LoadJobSpec(
    const std::string& path, const std::vector<std::string>& overrides) {
  DP_ASSIGN_OR_RETURN(SpecReading reading, ReadJobSpec(path, overrides));
  DP_RETURN_IF_ERROR(reading.status());
  return std::move(reading.spec);
}

absl::StatusOr<v1::JobSpec> ParseJobSpec(
    const std::string& text, const std::string& origin,
    const std::vector<std::string>& overrides) {
  SpecReading reading = SpecReading::FromText(text, origin, overrides);
  DP_RETURN_IF_ERROR(reading.status());
  return std::move(reading.spec);
}

}  // namespace deltapipe
