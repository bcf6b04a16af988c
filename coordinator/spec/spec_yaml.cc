#include <yaml-cpp/yaml.h>

#include <cctype>

#include "base/units.h"
#include "coordinator/spec/field_rules.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

/// Whether a reader of `spec` learns nothing from `path`: links that shape
/// nothing, texts that are empty.
bool IsIdle(const v1::JobSpec& spec, const std::string& path) {
  const auto shapes_nothing = [](const v1::LinkSpec& link) {
    const bool has_bandwidth =
        !link.bandwidth().empty() && link.bandwidth() != "unlimited";
    const bool has_latency = !link.latency().empty() && link.latency() != "0";
    return !has_bandwidth && !has_latency;
  };
  if (path == "network.emulate") {
    return shapes_nothing(spec.network().emulate());
  }
  if (path == "network.expected") {
    return shapes_nothing(spec.network().expected());
  }
  return path == "data.path" && spec.data().path().empty();
}

/// Whether `text` needs no quotes in any position.
bool IsPlain(const std::string& text) {
  if (text.empty() || text == "null" || text == "true" || text == "false") {
    return false;
  }
  for (const char c : text) {
    const bool is_safe = std::isalnum(static_cast<unsigned char>(c)) ||
                         c == '_' || c == '-' || c == '/' || c == '.';
    if (!is_safe) return false;
  }
  return text[0] != '-' && text[0] != '.';
}

std::string ScalarText(const Message& message, const FieldDescriptor& field) {
  const auto& reflection = *message.GetReflection();
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return std::to_string(reflection.GetInt32(message, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return std::to_string(reflection.GetInt64(message, &field));
    case FieldDescriptor::CPPTYPE_UINT64:
      return std::to_string(reflection.GetUInt64(message, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return ShortestNumber(reflection.GetDouble(message, &field));
    default:
      return reflection.GetString(message, &field);
  }
}

void EmitMessage(const v1::JobSpec& spec, const std::string& path,
                 const Message& message, YAML::Emitter* out) {
  const Descriptor& descriptor = *message.GetDescriptor();
  *out << YAML::BeginMap;
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const std::string field_path = JoinPath(path, field.name());
    const bool is_set =
        field.is_repeated()
            ? message.GetReflection()->FieldSize(message, &field) > 0
            : message.GetReflection()->HasField(message, &field);
    if (!is_set) continue;
    if (IsIdle(spec, field_path) || !KindThatIgnores(field, message).empty()) {
      continue;
    }
    *out << YAML::Key << field.name() << YAML::Value;
    if (HoldsMessages(field)) {
      if (field.is_repeated()) *out << YAML::BeginSeq;
      ForEachMessageIn(field_path, field, message,
                       [&](const std::string& held_path, const Message& held) {
                         EmitMessage(spec, held_path, held, out);
                       });
      if (field.is_repeated()) *out << YAML::EndSeq;
      continue;
    }
    const std::string text = ScalarText(message, field);
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING && !IsPlain(text)) {
      *out << YAML::DoubleQuoted;
    }
    *out << text;
  }
  *out << YAML::EndMap;
}

}  // namespace

std::string JobSpecYaml(const v1::JobSpec& spec) {
  YAML::Emitter out;
  EmitMessage(spec, "", spec, &out);
  return std::string(out.c_str()) + "\n";
}

}  // namespace deltapipe
