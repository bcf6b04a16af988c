#include "coordinator/cli/json_line.h"

#include <string>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/strip.h"
#include "google/protobuf/descriptor.h"

namespace deltapipe {

namespace {

using google::protobuf::EnumValueDescriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

/// "JOB_STATE_" of the type JobState: what its values' names begin with.
std::string EnumPrefix(const std::string& type) {
  std::string prefix;
  for (const char c : type) {
    if (absl::ascii_isupper(static_cast<unsigned char>(c)) && !prefix.empty()) {
      prefix += '_';
    }
    prefix += absl::ascii_toupper(static_cast<unsigned char>(c));
  }
  return prefix + "_";
}

/// "RUNNING" of JOB_STATE_RUNNING.
std::string EnumWord(const EnumValueDescriptor& value) {
  return std::string(
      absl::StripPrefix(value.name(), EnumPrefix(value.type()->name())));
}

Json FieldsOf(const Message& message);

/// The value of a field, or of its element `index`; -1 for a field without.
class FieldValue {
 public:
  FieldValue(const Message& message, const FieldDescriptor& field, int index)
      : message_(message),
        reflection_(*message.GetReflection()),
        field_(field),
        index_(index) {}

  Json ToJson() const {
    switch (field_.cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        return Read(&Reflection::GetInt32, &Reflection::GetRepeatedInt32);
      case FieldDescriptor::CPPTYPE_INT64:
        return Read(&Reflection::GetInt64, &Reflection::GetRepeatedInt64);
      case FieldDescriptor::CPPTYPE_UINT32:
        return Read(&Reflection::GetUInt32, &Reflection::GetRepeatedUInt32);
      case FieldDescriptor::CPPTYPE_UINT64:
        return Read(&Reflection::GetUInt64, &Reflection::GetRepeatedUInt64);
      case FieldDescriptor::CPPTYPE_DOUBLE:
        return Read(&Reflection::GetDouble, &Reflection::GetRepeatedDouble);
      case FieldDescriptor::CPPTYPE_FLOAT:
        return Read(&Reflection::GetFloat, &Reflection::GetRepeatedFloat);
      case FieldDescriptor::CPPTYPE_BOOL:
        return Read(&Reflection::GetBool, &Reflection::GetRepeatedBool);
      case FieldDescriptor::CPPTYPE_ENUM:
        return EnumWord(index_ < 0 ? *reflection_.GetEnum(message_, &field_)
                                   : *reflection_.GetRepeatedEnum(
                                         message_, &field_, index_));
      case FieldDescriptor::CPPTYPE_STRING:
        return Text(index_ < 0 ? reflection_.GetString(message_, &field_)
                               : reflection_.GetRepeatedString(
                                     message_, &field_, index_));
      case FieldDescriptor::CPPTYPE_MESSAGE:
        return FieldsOf(index_ < 0 ? reflection_.GetMessage(message_, &field_)
                                   : reflection_.GetRepeatedMessage(
                                         message_, &field_, index_));
    }
    return Json();
  }

 private:
  template <typename Value>
  Json Read(Value (Reflection::*single)(const Message&, const FieldDescriptor*)
                const,
            Value (Reflection::*repeated)(const Message&,
                                          const FieldDescriptor*, int)
                const) const {
    return index_ < 0 ? (reflection_.*single)(message_, &field_)
                      : (reflection_.*repeated)(message_, &field_, index_);
  }

  Json Text(const std::string& bytes) const {
    return field_.type() == FieldDescriptor::TYPE_BYTES
               ? absl::Base64Escape(bytes)
               : bytes;
  }

  const Message& message_;
  const Reflection& reflection_;
  const FieldDescriptor& field_;
  const int index_;
};

/// All fields but those with presence that are absent.
Json FieldsOf(const Message& message) {
  const Reflection& reflection = *message.GetReflection();
  Json object = Json::object();
  for (int i = 0; i < message.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor& field = *message.GetDescriptor()->field(i);
    if (field.is_repeated()) {
      Json list = Json::array();
      for (int j = 0; j < reflection.FieldSize(message, &field); ++j) {
        list.push_back(FieldValue(message, field, j).ToJson());
      }
      object[field.name()] = std::move(list);
    } else if (!field.has_presence() || reflection.HasField(message, &field)) {
      object[field.name()] = FieldValue(message, field, -1).ToJson();
    }
  }
  return object;
}

}  // namespace

Json ToJson(const google::protobuf::Message& message) {
  Json object;
  object["schema"] = message.GetDescriptor()->full_name();
  object.update(FieldsOf(message));
  return object;
}

std::string JsonLine(const Json& object) {
  return object.dump(-1, ' ', /*ensure_ascii=*/false,
                     Json::error_handler_t::replace) +
         "\n";
}

}  // namespace deltapipe
