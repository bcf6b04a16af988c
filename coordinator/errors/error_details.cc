#include "coordinator/errors/error_details.h"

#include "absl/strings/ascii.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "third_party/googleapis/error_details.pb.h"

namespace deltapipe {
namespace {

constexpr char kDomain[] = "deltapipe";
constexpr size_t kMaxReason = 63;

template <typename Detail>
std::string TypeUrl() {
  return absl::StrCat("type.googleapis.com/",
                      Detail::descriptor()->full_name());
}

template <typename Detail>
std::optional<Detail> Find(const absl::Status& status) {
  const absl::optional<absl::Cord> payload =
      status.GetPayload(TypeUrl<Detail>());
  Detail detail;
  if (!payload.has_value() || !detail.ParseFromString(std::string(*payload))) {
    return std::nullopt;
  }
  return detail;
}

template <typename Detail>
void Put(const Detail& detail, absl::Status* status) {
  status->SetPayload(TypeUrl<Detail>(), absl::Cord(detail.SerializeAsString()));
}

bool IsPath(absl::string_view text) {
  if (text.empty()) return false;
  for (const char c : text) {
    if (!absl::ascii_isalnum(c) && c != '_' && c != '.' && c != '[' &&
        c != ']' && c != '*') {
      return false;
    }
  }
  return true;
}

}  // namespace

absl::Status FieldViolationsError(const std::vector<FieldViolation>& violations,
                                  absl::string_view reason) {
  if (violations.empty()) return absl::OkStatus();
  std::string message;
  google::rpc::BadRequest details;
  for (const FieldViolation& violation : violations) {
    absl::StrAppend(&message, message.empty() ? "" : "\n", violation.field,
                    violation.field.empty() ? "" : ": ", violation.description);
    auto* detail = details.add_field_violations();
    detail->set_field(violation.field);
    detail->set_description(violation.description);
  }
  absl::Status status = absl::InvalidArgumentError(message);
  Put(details, &status);
  return WithReason(std::move(status), {std::string(reason), {}});
}

std::vector<FieldViolation> FieldViolationsOf(const absl::Status& status) {
  std::vector<FieldViolation> violations;
  const auto details = Find<google::rpc::BadRequest>(status);
  if (!details.has_value()) return violations;
  for (const auto& detail : details->field_violations()) {
    violations.push_back({detail.field(), detail.description()});
  }
  return violations;
}

FieldViolation ViolationFromText(const std::string& text) {
  const size_t colon = text.find(": ");
  if (colon == std::string::npos || !IsPath(text.substr(0, colon))) {
    return {"", text};
  }
  return {text.substr(0, colon), text.substr(colon + 2)};
}

absl::Status WithReason(absl::Status status, const ErrorReason& reason) {
  google::rpc::ErrorInfo info;
  info.set_reason(reason.reason.substr(0, kMaxReason));
  info.set_domain(kDomain);
  for (const auto& [key, value] : reason.metadata) {
    (*info.mutable_metadata())[key] = value;
  }
  Put(info, &status);
  return status;
}

std::optional<ErrorReason> ReasonOf(const absl::Status& status) {
  const auto info = Find<google::rpc::ErrorInfo>(status);
  if (!info.has_value()) return std::nullopt;
  ErrorReason reason{info->reason(), {}};
  for (const auto& [key, value] : info->metadata()) {
    reason.metadata[key] = value;
  }
  return reason;
}

absl::Status WithResource(absl::Status status, absl::string_view type,
                          absl::string_view name) {
  google::rpc::ResourceInfo info;
  info.set_resource_type(std::string(type));
  info.set_resource_name(std::string(name));
  info.set_description(std::string(status.message()));
  Put(info, &status);
  return status;
}

absl::Status WithPrecondition(absl::Status status, absl::string_view type,
                              absl::string_view subject,
                              absl::string_view description) {
  google::rpc::PreconditionFailure failure;
  auto* violation = failure.add_violations();
  violation->set_type(std::string(type));
  violation->set_subject(std::string(subject));
  violation->set_description(std::string(description));
  Put(failure, &status);
  return status;
}

}  // namespace deltapipe
