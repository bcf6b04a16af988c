#include "coordinator/spec/yaml_fields.h"

#include <yaml-cpp/yaml.h>

#include <set>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "coordinator/spec/field_rules.h"

namespace deltapipe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

const FieldDescriptor* FindField(const Descriptor& message,
                                 absl::string_view name) {
  const std::string text(name);
  const FieldDescriptor* field = message.FindFieldByName(text);
  return field != nullptr ? field : message.FindFieldByCamelcaseName(text);
}

const char* KindOf(const YAML::Node& node) {
  if (node.IsMap()) return "a mapping";
  if (node.IsSequence()) return "a list";
  return "nothing";
}

/// What yaml-cpp's terse words mean to someone who writes a spec.
std::string YamlProblem(const YAML::Exception& error) {
  if (error.msg == "illegal map value") {
    return "not YAML: a ':' where no field can begin; is the indentation of "
           "this line that of its neighbours, are there tabs, or does a text "
           "with ': ' need quotes?";
  }
  if (error.msg == "bad file") return "not YAML: nested too deeply";
  return absl::StrCat("not YAML: ", error.msg);
}

/// Reads nodes of one source, a file or one --set.
class NodeReader {
 public:
  /// `override_place` is null for a file; borrowed.
  NodeReader(const std::string& origin, const SpecPlace* override_place,
             SpecReading* reading)
      : origin_(origin), override_place_(override_place), reading_(reading) {}

  SpecPlace PlaceAt(const YAML::Mark& mark) const {
    if (override_place_ != nullptr) return *override_place_;
    const int line = mark.is_null() ? 1 : mark.line + 1;
    const int column = mark.is_null() ? 1 : mark.column + 1;
    return {absl::StrCat(origin_, ":", line, ":", column), false, line, column};
  }

  void ReadMapping(const YAML::Node& node, const std::string& path,
                   Message* message) {
    std::set<std::string> seen;
    for (const auto& pair : node) {
      const SpecPlace key_place = PlaceAt(pair.first.Mark());
      if (!pair.first.IsScalar()) {
        reading_->AddAt(key_place, path,
                        absl::StrCat("expected the name of a field, got ",
                                     KindOf(pair.first)));
        continue;
      }
      const std::string name = pair.first.Scalar();
      const FieldDescriptor* field = FindField(*message->GetDescriptor(), name);
      if (field == nullptr) {
        reading_->AddAt(key_place, JoinPath(path, name),
                        UnknownField(name, *message->GetDescriptor()));
        continue;
      }
      const std::string field_path = JoinPath(path, field->name());
      if (!seen.insert(field->name()).second) {
        reading_->AddAt(key_place, field_path,
                        "given twice: expected each field once");
        continue;
      }
      ReadField(pair.second, key_place, field_path, *field, message);
    }
  }

  void ReadField(const YAML::Node& node, const SpecPlace& key_place,
                 const std::string& path, const FieldDescriptor& field,
                 Message* message) {
    const bool is_message =
        field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE;
    const SpecPlace place = node.IsNull() ? key_place : PlaceAt(node.Mark());
    reading_->SetPlace(path, is_message ? key_place : place);
    if (is_message) {
      if (node.IsNull()) return;
      if (!node.IsMap()) {
        reading_->AddAt(
            place, path,
            absl::StrCat("expected fields, such as {",
                         field.message_type()->field(0)->name(), ": ...}, got ",
                         node.IsScalar() ? absl::StrCat("'", node.Scalar(), "'")
                                         : KindOf(node)));
        return;
      }
      ReadMapping(node, path,
                  message->GetReflection()->MutableMessage(message, &field));
      return;
    }
    ReadScalar(node, place, path, field, message);
  }

 private:
  void ReadScalar(const YAML::Node& node, const SpecPlace& place,
                  const std::string& path, const FieldDescriptor& field,
                  Message* message) {
    std::string problem;
    if (node.IsScalar()) {
      problem =
          SetScalarFromText(node.Scalar(), node.Tag() == "!", field, message);
    } else {
      problem = absl::StrCat("expected ",
                             field.cpp_type() == FieldDescriptor::CPPTYPE_STRING
                                 ? "a text"
                                 : "a number",
                             ", got ", KindOf(node));
    }
    if (!problem.empty()) reading_->AddAt(place, path, problem);
  }

  std::string UnknownField(const std::string& name,
                           const Descriptor& message) const {
    const bool looks_like_codec =
        absl::StrContains(name, "(") || absl::StrContains(name, ")");
    if (looks_like_codec) {
      return "unknown field (a codec text with a comma needs quotes inside "
             "{...})";
    }
    return UnknownFieldMessage(name, message);
  }

  const std::string origin_;
  const SpecPlace* const override_place_;
  SpecReading* const reading_;
};

}  // namespace

bool ReadYamlFields(const std::string& text, const std::string& origin,
                    SpecReading* reading) {
  NodeReader reader(origin, nullptr, reading);
  std::vector<YAML::Node> documents;
  try {
    documents = YAML::LoadAll(text);
  } catch (const YAML::Exception& error) {
    reading->AddAt(reader.PlaceAt(error.mark), "", YamlProblem(error));
    return false;
  }
  if (documents.empty() || documents[0].IsNull()) return true;
  if (documents.size() > 1) {
    reading->AddAt(
        reader.PlaceAt(documents[1].Mark()), "",
        absl::StrCat("expected one YAML document, got ", documents.size()));
    return false;
  }
  const YAML::Node& root = documents[0];
  if (!root.IsMap()) {
    reading->AddAt(reader.PlaceAt(root.Mark()), "",
                   absl::StrCat("expected fields such as 'name: text', got ",
                                root.IsScalar() ? "a text" : KindOf(root)));
    return false;
  }
  reader.ReadMapping(root, "", &reading->spec);
  return true;
}

void ReadOverride(const std::string& assignment, int index,
                  SpecReading* reading) {
  const SpecPlace place = {absl::StrCat("--set ", assignment), true, index, 0};
  NodeReader reader("", &place, reading);
  const size_t equals = assignment.find('=');
  if (equals == std::string::npos || equals == 0) {
    reading->AddAt(place, "", "expected path.of.field=value");
    return;
  }
  const std::string path = assignment.substr(0, equals);
  const std::string value = assignment.substr(equals + 1);
  const std::vector<std::string> names = absl::StrSplit(path, '.');

  Message* message = &reading->spec;
  std::string walked;
  for (size_t i = 0; i < names.size(); ++i) {
    const FieldDescriptor* field =
        FindField(*message->GetDescriptor(), names[i]);
    walked = JoinPath(walked, field == nullptr ? names[i] : field->name());
    if (field == nullptr) {
      reading->AddAt(place, walked,
                     UnknownFieldMessage(names[i], *message->GetDescriptor()));
      return;
    }
    if (i + 1 < names.size()) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) {
        reading->AddAt(
            place, walked,
            absl::StrCat("holds a value, not a field '", names[i + 1], "'"));
        return;
      }
      message = message->GetReflection()->MutableMessage(message, field);
      continue;
    }
    const bool is_plain_text =
        field->cpp_type() == FieldDescriptor::CPPTYPE_STRING &&
        (value.empty() || (value[0] != '"' && value[0] != '\''));
    YAML::Node node;
    if (is_plain_text) {
      node = YAML::Node(value);
    } else {
      try {
        node = YAML::Load(value);
      } catch (const YAML::Exception& error) {
        reading->AddAt(place, walked, YamlProblem(error));
        return;
      }
    }
    reader.ReadField(node, place, walked, *field, message);
  }
}

}  // namespace deltapipe
