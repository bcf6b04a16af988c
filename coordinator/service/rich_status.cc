#include "coordinator/service/rich_status.h"

#include <map>
#include <string>

#include "absl/strings/cord.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "coordinator/errors/error_details.h"
#include "third_party/googleapis/error_details.pb.h"
#include "third_party/googleapis/status.pb.h"

namespace deltapipe {
namespace {

// Trailers hold 8 KiB; the details travel in base64.
constexpr size_t kMaxMessage = 4000;
constexpr size_t kMaxDetails = 2500;
/// Of the message's copy in the details, and of each text in them.
constexpr size_t kMaxText = 200;
constexpr int kMaxMetadata = 8;
constexpr char kTypePrefix[] = "type.googleapis.com/google.rpc.";

std::string Cut(std::string text, size_t limit) {
  if (text.size() <= limit) return text;
  // Not within a UTF-8 character.
  while (limit > 0 && (text[limit] & 0xc0) == 0x80) --limit;
  return text.substr(0, limit) + " [cut]";
}

void CutTexts(google::rpc::ErrorInfo* info) {
  google::protobuf::Map<std::string, std::string> kept;
  // In a fixed order: the map has none.
  const std::map<std::string, std::string> sorted(info->metadata().begin(),
                                                  info->metadata().end());
  for (const auto& [key, value] : sorted) {
    if (static_cast<int>(kept.size()) == kMaxMetadata) break;
    kept[Cut(key, kMaxText / 4)] = Cut(value, kMaxText / 2);
  }
  *info->mutable_metadata() = std::move(kept);
}

void CutTexts(google::rpc::BadRequest* request) {
  for (auto& violation : *request->mutable_field_violations()) {
    violation.set_field(Cut(violation.field(), kMaxText));
    violation.set_description(Cut(violation.description(), kMaxText));
  }
}

void CutTexts(google::rpc::PreconditionFailure* failure) {
  if (failure->violations_size() > 2) {
    failure->mutable_violations()->DeleteSubrange(
        2, failure->violations_size() - 2);
  }
  for (auto& violation : *failure->mutable_violations()) {
    violation.set_type(Cut(violation.type(), kMaxText / 4));
    violation.set_subject(Cut(violation.subject(), kMaxText / 2));
    violation.set_description(Cut(violation.description(), kMaxText));
  }
}

void CutTexts(google::rpc::ResourceInfo* info) {
  info->set_resource_type(Cut(info->resource_type(), kMaxText / 4));
  info->set_resource_name(Cut(info->resource_name(), kMaxText / 2));
  info->set_description(Cut(info->description(), kMaxText));
}

template <typename Detail>
std::string Name() {
  return absl::StrCat("type.googleapis.com/",
                      Detail::descriptor()->full_name());
}

template <typename Detail>
bool Read(const absl::Status& status, Detail* detail) {
  const absl::optional<absl::Cord> payload = status.GetPayload(Name<Detail>());
  if (!payload.has_value()) return false;
  if (!detail->ParseFromString(std::string(*payload))) return false;
  CutTexts(detail);
  return true;
}

template <typename Detail>
void Pack(const Detail& detail, google::rpc::Status* rich) {
  auto* any = rich->add_details();
  any->set_type_url(Name<Detail>());
  any->set_value(detail.SerializeAsString());
}

/// What there is besides field violations.
google::rpc::Status Frame(const absl::Status& status,
                          const google::rpc::ErrorInfo& info) {
  google::rpc::Status rich;
  rich.set_code(static_cast<int>(status.code()));
  rich.set_message(Cut(std::string(status.message()), kMaxText));
  Pack(info, &rich);
  google::rpc::PreconditionFailure failure;
  if (Read(status, &failure)) Pack(failure, &rich);
  google::rpc::ResourceInfo resource;
  if (Read(status, &resource)) Pack(resource, &rich);
  return rich;
}

std::string Details(const absl::Status& status) {
  google::rpc::ErrorInfo info;
  if (!Read(status, &info)) {
    info.set_reason(absl::StatusCodeToString(status.code()));
    info.set_domain("deltapipe");
  }
  google::rpc::BadRequest all;
  if (!Read(status, &all)) return Frame(status, info).SerializeAsString();
  google::rpc::BadRequest kept;
  size_t size = Frame(status, info).ByteSizeLong() + kMaxText;
  for (const auto& violation : all.field_violations()) {
    size += violation.ByteSizeLong() + 4;
    if (size > kMaxDetails) break;
    *kept.add_field_violations() = violation;
  }
  const int omitted =
      all.field_violations_size() - kept.field_violations_size();
  if (omitted > 0) {
    (*info.mutable_metadata())["omitted_violations"] = absl::StrCat(omitted);
  }
  google::rpc::Status rich = Frame(status, info);
  Pack(kept, &rich);
  return rich.SerializeAsString();
}

}  // namespace

grpc::Status ToGrpcStatus(const absl::Status& status) {
  if (status.ok()) return grpc::Status::OK;
  return grpc::Status(static_cast<grpc::StatusCode>(status.code()),
                      Cut(std::string(status.message()), kMaxMessage),
                      Details(status));
}

absl::Status FromGrpcStatus(const grpc::Status& status) {
  if (status.ok()) return absl::OkStatus();
  absl::Status result(static_cast<absl::StatusCode>(status.error_code()),
                      status.error_message());
  google::rpc::Status rich;
  if (status.error_details().empty() ||
      !rich.ParseFromString(status.error_details())) {
    return result;
  }
  for (const auto& detail : rich.details()) {
    if (!absl::StartsWith(detail.type_url(), kTypePrefix)) continue;
    result.SetPayload(detail.type_url(), absl::Cord(detail.value()));
  }
  return result;
}

}  // namespace deltapipe
