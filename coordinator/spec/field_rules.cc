#include "coordinator/spec/field_rules.h"

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <limits>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/units.h"
#include "compression/bit_plan/saved_policy.h"
#include "compression/codec.h"
#include "compression/codec_spec.h"
#include "compression/delta/boundary_codec.h"
#include "proto/deltapipe/v1/options.pb.h"

namespace deltapipe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const v1::FieldRule& RuleOf(const FieldDescriptor& field) {
  return field.options().GetExtension(v1::rule);
}

bool IsInteger(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 ||
         field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ||
         field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64;
}

/// "1..64", "at least 0", or "" without bounds.
std::string RangeText(const v1::FieldRule& rule) {
  if (rule.has_min() && rule.has_max()) {
    return absl::StrCat(ShortestNumber(rule.min()), "..",
                        ShortestNumber(rule.max()));
  }
  if (rule.has_min()) {
    return absl::StrCat("at least ", ShortestNumber(rule.min()));
  }
  if (rule.has_max()) {
    return absl::StrCat("at most ", ShortestNumber(rule.max()));
  }
  return "";
}

std::string QuotedText(const std::string& text) {
  constexpr size_t kShown = 60;
  return text.size() <= kShown
             ? absl::StrCat("'", text, "'")
             : absl::StrCat("'", text.substr(0, kShown), "...'");
}

/// Reads a whole number within int64, also in forms such as 1e6. False if
/// `text` is no number; `problem` is set if it is one that does not fit.
bool ReadWhole(const std::string& text, int64_t* value, std::string* problem) {
  if (absl::SimpleAtoi(text, value)) return true;
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !std::isfinite(number)) return false;
  if (number != std::floor(number)) {
    *problem = absl::StrCat("expected a whole number, got ", text);
  } else if (std::fabs(number) > 9e15) {
    *problem = "out of range";
  } else {
    *value = static_cast<int64_t>(number);
  }
  return true;
}

std::string SetInteger(const std::string& text, const FieldDescriptor& field,
                       Message* message) {
  const auto& reflection = *message->GetReflection();
  const std::string not_a_number =
      absl::StrCat("expected a number, got ", QuotedText(text));
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64) {
    uint64_t large = 0;
    if (absl::SimpleAtoi(text, &large)) {
      reflection.SetUInt64(message, &field, large);
      return "";
    }
  }
  int64_t value = 0;
  std::string problem;
  if (!ReadWhole(text, &value, &problem)) return not_a_number;
  const bool fits =
      field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ||
      (field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64 && value >= 0) ||
      (field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 &&
       value >= std::numeric_limits<int32_t>::min() &&
       value <= std::numeric_limits<int32_t>::max());
  if (problem == "out of range" || (problem.empty() && !fits)) {
    const std::string range = RangeText(RuleOf(field));
    return absl::StrCat("expected ",
                        range.empty() ? "a whole number, 0 or more" : range,
                        ", got ", text);
  }
  if (!problem.empty()) return problem;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      reflection.SetInt32(message, &field, static_cast<int32_t>(value));
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      reflection.SetInt64(message, &field, value);
      break;
    default:
      reflection.SetUInt64(message, &field, static_cast<uint64_t>(value));
  }
  return "";
}

/// The value of a number field.
double NumberOf(const FieldDescriptor& field, const Message& message) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection.GetInt32(message, &field);
    case FieldDescriptor::CPPTYPE_INT64:
      return static_cast<double>(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return static_cast<double>(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection.GetDouble(message, &field);
    default:
      return 0;
  }
}

std::string CheckNumber(const FieldDescriptor& field, const Message& message) {
  const v1::FieldRule& rule = RuleOf(field);
  const double value = NumberOf(field, message);
  const bool is_inside = std::isfinite(value) &&
                         (!rule.has_min() || value >= rule.min()) &&
                         (!rule.has_max() || value <= rule.max());
  if (is_inside) return "";
  return absl::StrCat("expected ", RangeText(rule), ", got ",
                      ShortestNumber(value));
}

/// "a, b or c"; of one word or more.
std::string Alternatives(const std::vector<absl::string_view>& words) {
  if (words.size() == 1) return std::string(words[0]);
  return absl::StrCat(absl::StrJoin(words.begin(), words.end() - 1, ", "),
                      " or ", words.back());
}

std::string CheckChoice(const v1::FieldRule& rule, const std::string& value) {
  const std::vector<absl::string_view> names(rule.choices().begin(),
                                             rule.choices().end());
  for (const absl::string_view name : names) {
    if (name == value) return "";
  }
  return absl::StrCat("expected ", Alternatives(names), ", got ",
                      QuotedText(value), NearestNameHint(value, names));
}

/// Words that stand beside codec texts in a field.
std::vector<absl::string_view> CodecWords(const FieldDescriptor& field) {
  if (field.name() == "gradients") return {"auto", "none", "identity"};
  return {"auto"};
}

std::string CheckCodecText(const FieldDescriptor& field,
                           const std::string& value) {
  const std::vector<absl::string_view> words = CodecWords(field);
  for (const absl::string_view word : words) {
    if (value == word) return "";
  }
  if (value.empty()) return "expected a codec such as int(8), got nothing";
  absl::Status status;
  if (field.name() == "gradients") {
    status = MakeCodec(value).status();
  } else {
    bool keeps_state = false;
    status = CheckBoundaryCodec(value, &keeps_state);
  }
  if (status.ok()) return "";
  const std::string hint = NearestNameHint(value, words);
  return absl::StrCat(status.message(), hint);
}

std::string CheckQuantity(const v1::FieldRule& rule, const std::string& value) {
  absl::Status status;
  switch (rule.unit()) {
    case v1::UNIT_BYTES:
      status = ParseBytes(value).status();
      break;
    case v1::UNIT_BANDWIDTH:
      status = ParseBandwidth(value).status();
      break;
    case v1::UNIT_DURATION:
      if (value == "auto" && rule.default_text() == "auto") break;
      status = ParseDuration(value).status();
      break;
    case v1::UNIT_STEPS:
      status = ParseStepChoice(value).status();
      break;
    default:
      break;
  }
  return std::string(status.message());
}

}  // namespace

std::string JoinPath(const std::string& parent, absl::string_view name) {
  return parent.empty() ? std::string(name) : absl::StrCat(parent, ".", name);
}

std::string ElementPath(const std::string& list, int index) {
  return absl::StrCat(list, "[", index, "]");
}

bool HoldsMessages(const FieldDescriptor& field) {
  return field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
}

void ForEachMessageIn(
    const std::string& path, const FieldDescriptor& field,
    const Message& message,
    const std::function<void(const std::string&, const Message&)>& visit) {
  const auto& reflection = *message.GetReflection();
  if (!field.is_repeated()) {
    visit(path, reflection.GetMessage(message, &field));
    return;
  }
  for (int i = 0; i < reflection.FieldSize(message, &field); ++i) {
    visit(ElementPath(path, i),
          reflection.GetRepeatedMessage(message, &field, i));
  }
}

std::string ShortestNumber(double value) {
  char text[40];
  for (const int digits : {6, 15, 16, 17}) {
    std::snprintf(text, sizeof(text), "%.*g", digits, value);
    if (std::strtod(text, nullptr) == value) break;
  }
  if (value == std::floor(value) && std::fabs(value) < 1e15) {
    std::snprintf(text, sizeof(text), "%.0f", value);
  }
  return text;
}

std::string SetScalarFromText(const std::string& text, bool is_quoted,
                              const FieldDescriptor& field, Message* message) {
  const auto& reflection = *message->GetReflection();
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    reflection.SetString(message, &field, text);
    return "";
  }
  const bool is_wide = field.cpp_type() == FieldDescriptor::CPPTYPE_INT64 ||
                       field.cpp_type() == FieldDescriptor::CPPTYPE_UINT64;
  if (is_quoted && !is_wide) {
    return absl::StrCat("expected a number, got the text ", QuotedText(text));
  }
  if (IsInteger(field)) return SetInteger(text, field, message);
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || !std::isfinite(number)) {
    return absl::StrCat("expected a number, got ", QuotedText(text));
  }
  reflection.SetDouble(message, &field, number);
  return "";
}

std::string KindThatIgnores(const FieldDescriptor& field,
                            const Message& message) {
  const v1::FieldRule& rule = RuleOf(field);
  const FieldDescriptor* kind =
      message.GetDescriptor()->FindFieldByName("kind");
  if (rule.kinds_size() == 0 || kind == nullptr) return "";
  const std::string value = message.GetReflection()->GetString(message, kind);
  for (const std::string& known : rule.kinds()) {
    if (known == value) return "";
  }
  return value;
}

std::string KindsThatUse(const FieldDescriptor& field) {
  const v1::FieldRule& rule = RuleOf(field);
  return Alternatives({rule.kinds().begin(), rule.kinds().end()});
}

std::string CheckField(const FieldDescriptor& field, const Message& message) {
  if (field.cpp_type() != FieldDescriptor::CPPTYPE_STRING) {
    return CheckNumber(field, message);
  }
  const v1::FieldRule& rule = RuleOf(field);
  const std::string value = message.GetReflection()->GetString(message, &field);
  if (rule.choices_size() > 0) return CheckChoice(rule, value);
  if (rule.unit() == v1::UNIT_CODEC) return CheckCodecText(field, value);
  if (rule.unit() == v1::UNIT_SAVED_POLICY) {
    return std::string(MakeSavedPolicy(value).status().message());
  }
  return CheckQuantity(rule, value);
}

namespace {

void VisitScalars(
    const std::string& path, const Message& message,
    const std::function<void(const std::string&, const FieldDescriptor&,
                             const Message&)>& visit) {
  const Descriptor& descriptor = *message.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string field_path = JoinPath(path, field.name());
    if (HoldsMessages(field)) {
      ForEachMessageIn(field_path, field, message,
                       [&](const std::string& held_path, const Message& held) {
                         VisitScalars(held_path, held, visit);
                       });
    } else {
      visit(field_path, field, message);
    }
  }
}

}  // namespace

void ForEachScalar(
    const Message& message,
    const std::function<void(const std::string&, const FieldDescriptor&,
                             const Message&)>& visit) {
  VisitScalars("", message, visit);
}

std::string UnknownFieldMessage(absl::string_view name,
                                const Descriptor& message) {
  std::vector<absl::string_view> names;
  for (int i = 0; i < message.field_count(); ++i) {
    names.push_back(message.field(i)->name());
  }
  std::string hint = NearestNameHint(name, names);
  if (hint.empty()) {
    hint = absl::StrCat(" (known here: ", absl::StrJoin(names, ", "), ")");
  }
  return absl::StrCat("unknown field", hint);
}

}  // namespace deltapipe
