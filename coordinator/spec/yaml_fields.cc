#include "coordinator/spec/yaml_fields.h"

#include <yaml-cpp/eventhandler.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <set>
#include <sstream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/utf8.h"
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

/// Whether a text has more than one document, and where that begins.
struct SecondDocument {
  bool is_there = false;
  YAML::Mark mark;
};

/// Sees what a document begins with and builds nothing.
class DocumentBegin : public YAML::EventHandler {
 public:
  YAML::Mark mark = YAML::Mark::null_mark();
  bool is_null = false;

  void OnDocumentStart(const YAML::Mark&) override {}
  void OnDocumentEnd() override {}
  void OnNull(const YAML::Mark& at, YAML::anchor_t) override {
    is_null = mark.is_null();
    See(at);
  }
  void OnAlias(const YAML::Mark& at, YAML::anchor_t) override { See(at); }
  void OnScalar(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                const std::string&) override {
    See(at);
  }
  void OnSequenceStart(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                       YAML::EmitterStyle::value) override {
    See(at);
  }
  void OnSequenceEnd() override {}
  void OnMapStart(const YAML::Mark& at, const std::string&, YAML::anchor_t,
                  YAML::EmitterStyle::value) override {
    See(at);
  }
  void OnMapEnd() override {}

 private:
  void See(const YAML::Mark& at) {
    if (mark.is_null()) mark = at;
  }
};

/// One that is empty, such as after a last "---", does not count. YAML::LoadAll
/// is not used: at a lone ',' it finds empty documents without end.
SecondDocument FindSecondDocument(const std::string& text) {
  std::istringstream stream(text);
  YAML::Parser parser(stream);
  DocumentBegin first;
  DocumentBegin second;
  DocumentBegin third;
  const bool is_there = parser.HandleNextDocument(first) &&
                        parser.HandleNextDocument(second) &&
                        (!second.is_null || parser.HandleNextDocument(third));
  return {is_there, second.mark};
}

/// The place of the byte at `at`; columns count characters.
SpecPlace PlaceOfByte(const std::string& text, size_t at,
                      const std::string& origin) {
  int line = 1;
  int column = 1;
  for (size_t i = 0; i < at; ++i) {
    const bool continues = (static_cast<uint8_t>(text[i]) & 0xC0) == 0x80;
    column = text[i] == '\n' ? 1 : column + (continues ? 0 : 1);
    line += text[i] == '\n' ? 1 : 0;
  }
  return {absl::StrCat(origin, ":", line, ":", column), false, line, column};
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
    const SpecPlace place = node.IsNull() ? key_place : PlaceAt(node.Mark());
    reading_->SetPlace(path, HoldsMessages(field) ? key_place : place);
    if (!HoldsMessages(field)) {
      ReadScalar(node, place, path, field, message);
    } else if (field.is_repeated()) {
      ReadList(node, place, path, field, message);
    } else if (!node.IsNull()) {
      ReadMessage(node, place, path,
                  message->GetReflection()->MutableMessage(message, &field));
    }
  }

  /// `place` is where complaints about `node` as a whole go.
  void ReadMessage(const YAML::Node& node, const SpecPlace& place,
                   const std::string& path, Message* message) {
    if (!node.IsMap()) {
      reading_->AddAt(place, path,
                      absl::StrCat("expected ", ExampleOf(*message), ", got ",
                                   Shown(node)));
      return;
    }
    ReadMapping(node, path, message);
  }

 private:
  static std::string ExampleOf(const Message& message) {
    return absl::StrCat("fields, such as {",
                        message.GetDescriptor()->field(0)->name(), ": ...}");
  }

  static std::string Shown(const YAML::Node& node) {
    return node.IsScalar() ? absl::StrCat("'", node.Scalar(), "'")
                           : KindOf(node);
  }

  /// What was in the list before is gone.
  void ReadList(const YAML::Node& node, const SpecPlace& place,
                const std::string& path, const FieldDescriptor& field,
                Message* message) {
    message->GetReflection()->ClearField(message, &field);
    if (node.IsNull()) return;
    if (!node.IsSequence()) {
      reading_->AddAt(place, path,
                      absl::StrCat("expected a list, such as [{",
                                   field.message_type()->field(0)->name(),
                                   ": ...}], got ", Shown(node)));
      return;
    }
    int index = 0;
    for (const YAML::Node& element : node) {
      const std::string element_path = ElementPath(path, index++);
      const SpecPlace element_place = PlaceAt(element.Mark());
      reading_->SetPlace(element_path, element_place);
      ReadMessage(element, element_place, element_path,
                  message->GetReflection()->AddMessage(message, &field));
    }
  }

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

/// One step of the path of a --set: a field, or an element of a list.
struct ListPlace {
  std::string field;
  int index = -1;  // -1: no element was named
};

/// "groups[1]" as {"groups", 1}; what does not read so is a field's name.
ListPlace ParseListPlace(const std::string& name) {
  ListPlace place{name, -1};
  const size_t open = name.find('[');
  if (open == std::string::npos || name.back() != ']') return place;
  const std::string digits = name.substr(open + 1, name.size() - open - 2);
  constexpr size_t kMaxDigits = 4;
  if (digits.empty() || digits.size() > kMaxDigits ||
      !std::all_of(digits.begin(), digits.end(), absl::ascii_isdigit)) {
    return place;
  }
  place.field = name.substr(0, open);
  place.index = std::stoi(digits);
  return place;
}

/// What is wrong with `at`, which found `field` in `message`, or "".
std::string ProblemOfPlace(const ListPlace& at, bool is_last,
                           const FieldDescriptor& field, const Message& message,
                           const std::string& next_name) {
  if (at.index >= 0 && !field.is_repeated()) {
    return absl::StrCat("is no list, and has no element [", at.index, "]");
  }
  if (at.index >= 0) {
    const int size = message.GetReflection()->FieldSize(message, &field);
    return at.index <= size
               ? std::string()
               : absl::StrCat("has ", size, " elements: expected [0] to [",
                              size, "], the last of which adds one, got [",
                              at.index, "]");
  }
  if (is_last) return "";
  if (field.is_repeated()) {
    return absl::StrCat("is a list: expected an element of it, such as ",
                        field.name(), "[0].", next_name);
  }
  return HoldsMessages(field)
             ? std::string()
             : absl::StrCat("holds a value, not a field '", next_name, "'");
}

}  // namespace

bool ReadYamlFields(const std::string& text, const std::string& origin,
                    SpecReading* reading) {
  NodeReader reader(origin, nullptr, reading);
  if (const size_t bad = FirstBadUtf8Byte(text); bad < text.size()) {
    reading->AddAt(PlaceOfByte(text, bad, origin), "",
                   "not UTF-8: write the file in UTF-8");
    return false;
  }
  YAML::Node root;
  SecondDocument second;
  try {
    root = YAML::Load(text);
    second = FindSecondDocument(text);
  } catch (const YAML::Exception& error) {
    reading->AddAt(reader.PlaceAt(error.mark), "", YamlProblem(error));
    return false;
  }
  if (second.is_there) {
    reading->AddAt(reader.PlaceAt(second.mark), "",
                   "expected one YAML document, got another one here");
    return false;
  }
  if (!root.IsDefined() || root.IsNull()) return true;
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
  if (!IsUtf8(assignment)) {
    reading->AddAt(place, "", "not UTF-8: write it in UTF-8");
    return;
  }
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
    const bool is_last = i + 1 == names.size();
    const ListPlace at = ParseListPlace(names[i]);
    const FieldDescriptor* field =
        FindField(*message->GetDescriptor(), at.field);
    walked = JoinPath(walked, field == nullptr ? at.field : field->name());
    if (field == nullptr) {
      reading->AddAt(place, walked,
                     UnknownFieldMessage(at.field, *message->GetDescriptor()));
      return;
    }
    const std::string problem = ProblemOfPlace(
        at, is_last, *field, *message, is_last ? std::string() : names[i + 1]);
    if (!problem.empty()) {
      reading->AddAt(place, walked, problem);
      return;
    }
    if (at.index >= 0) {
      walked = ElementPath(walked, at.index);
      reading->SetPlace(walked, place);
      const auto& reflection = *message->GetReflection();
      message =
          at.index == reflection.FieldSize(*message, field)
              ? reflection.AddMessage(message, field)
              : reflection.MutableRepeatedMessage(message, field, at.index);
      if (!is_last) continue;
    } else if (!is_last) {
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
    if (at.index >= 0) {
      reader.ReadMessage(node, place, walked, message);
    } else {
      reader.ReadField(node, place, walked, *field, message);
    }
  }
}

}  // namespace deltapipe
