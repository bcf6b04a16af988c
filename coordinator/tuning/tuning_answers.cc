#include "coordinator/tuning/tuning_answers.h"

#include <algorithm>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "base/checksum.h"
#include "coordinator/errors/error_details.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

/// Empty unless it is there and Base64.
std::optional<std::string> BytesOf(const Json& json, const char* field) {
  const auto found = json.find(field);
  std::string bytes;
  if (found == json.end() || !found->is_string() ||
      !absl::Base64Unescape(found->get_ref<const std::string&>(), &bytes)) {
    return std::nullopt;
  }
  return bytes;
}

std::optional<uint64_t> NumberOf(const Json& json, const char* field) {
  const auto found = json.find(field);
  if (found == json.end() || !found->is_number_unsigned()) return std::nullopt;
  return found->get<uint64_t>();
}

}  // namespace

TuningRequestKey KeyOf(const v1::UpdateTuningRequest& request) {
  v1::UpdateTuningRequest content = request;
  content.clear_request_id();
  const std::string text = content.SerializeAsString();
  const auto* bytes = reinterpret_cast<const uint8_t*>(text.data());
  return {request.request_id(),
          Checksum(absl::MakeConstSpan(bytes, text.size()))};
}

absl::StatusOr<std::optional<v1::Tuning>> TuningAnswers::Find(
    const TuningRequestKey& key) const {
  if (key.id.empty()) return std::optional<v1::Tuning>();
  for (const Answer& answer : answers_) {
    if (answer.key.id != key.id || !answer.tuning.has_value()) continue;
    if (answer.key.content == key.content) return answer.tuning;
    const absl::Status used = FieldViolationsError(
        {{"request_id",
          absl::StrCat("another request to job '", answer.tuning->job_id(),
                       "' had this one and made revision ", answer.revision,
                       ": expected one of its own")}},
        "REQUEST_ID_IN_USE");
    return used;
  }
  return std::optional<v1::Tuning>();
}

void TuningAnswers::Decide(const TuningRequestKey& key, uint32_t revision) {
  if (key.id.empty()) return;
  Drop(key);
  answers_.push_back({key, revision, std::nullopt});
}

TuningRequestKey TuningAnswers::DecidedAs(uint32_t revision) const {
  for (const Answer& answer : answers_) {
    if (!answer.tuning.has_value() && answer.revision == revision) {
      return answer.key;
    }
  }
  return {};
}

void TuningAnswers::Remember(const TuningRequestKey& key,
                             const v1::Tuning& answer) {
  if (key.id.empty()) return;
  Drop(key);
  answers_.push_back({key, answer.revision(), answer});
  if (answers_.size() > kMaxAnswers) answers_.pop_front();
}

void TuningAnswers::Drop(const TuningRequestKey& key) {
  const auto is_decided = [&](const Answer& answer) {
    return answer.key.id == key.id && !answer.tuning.has_value();
  };
  answers_.erase(std::remove_if(answers_.begin(), answers_.end(), is_decided),
                 answers_.end());
}

std::string TuningAnswers::Text() const {
  if (answers_.empty()) return "";
  Json json = Json::array();
  for (const Answer& answer : answers_) {
    // Base64: what clients choose need not be text.
    Json one = {{"id", absl::Base64Escape(answer.key.id)},
                {"content", answer.key.content},
                {"revision", answer.revision}};
    if (answer.tuning.has_value()) {
      one["tuning"] = absl::Base64Escape(answer.tuning->SerializeAsString());
    }
    json.push_back(std::move(one));
  }
  return json.dump();
}

absl::StatusOr<TuningAnswers> TuningAnswers::Read(const std::string& text) {
  TuningAnswers answers;
  if (text.empty()) return answers;
  const absl::Status damaged = absl::DataLossError(
      absl::StrCat("what was stored of requests to change knobs (", text.size(),
                   " bytes) cannot be read"));
  const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_array()) return damaged;
  for (const Json& one : json) {
    if (!one.is_object()) return damaged;
    const auto id = BytesOf(one, "id");
    const auto content = NumberOf(one, "content");
    const auto revision = NumberOf(one, "revision");
    if (!id.has_value() || !content.has_value() || !revision.has_value()) {
      return damaged;
    }
    Answer answer;
    answer.key = {*id, *content};
    answer.revision = static_cast<uint32_t>(*revision);
    if (one.contains("tuning")) {
      const auto tuning = BytesOf(one, "tuning");
      answer.tuning.emplace();
      if (!tuning.has_value() || !answer.tuning->ParseFromString(*tuning)) {
        return damaged;
      }
    }
    answers.answers_.push_back(std::move(answer));
  }
  return answers;
}

}  // namespace deltapipe
