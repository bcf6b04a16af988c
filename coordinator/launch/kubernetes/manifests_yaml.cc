// ManifestsYaml: JSON as the YAML that people and kubectl read.
#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "coordinator/launch/kubernetes/render_manifests.h"
#include "yaml-cpp/yaml.h"

namespace deltapipe {
namespace {

/// Whether YAML 1.1 and 1.2 both read `text` as this string without quotes.
bool IsPlain(absl::string_view text) {
  if (text.empty() ||
      !(absl::ascii_isalpha(text.front()) || text.front() == '/')) {
    return false;
  }
  const auto is_harmless = [](char c) {
    return absl::ascii_isalnum(c) ||
           absl::string_view("._/-").find(c) != absl::string_view::npos;
  };
  if (!std::all_of(text.begin(), text.end(), is_harmless)) return false;
  const std::string lower = absl::AsciiStrToLower(text);
  for (const char* word :
       {"true", "false", "yes", "no", "on", "off", "y", "n", "null"}) {
    if (lower == word) return false;
  }
  return true;
}

void EmitString(const std::string& text, YAML::Emitter* out) {
  if (text.find('\n') != std::string::npos) {
    *out << YAML::Literal << text;
  } else if (IsPlain(text)) {
    *out << text;
  } else {
    *out << YAML::DoubleQuoted << text;
  }
}

void Emit(const KubernetesObject& value, YAML::Emitter* out) {
  if (value.is_object()) {
    // Flow style keeps an empty map a map.
    if (value.empty()) *out << YAML::Flow;
    *out << YAML::BeginMap;
    for (const auto& [key, item] : value.items()) {
      *out << YAML::Key;
      EmitString(key, out);
      *out << YAML::Value;
      Emit(item, out);
    }
    *out << YAML::EndMap;
  } else if (value.is_array()) {
    if (value.empty()) *out << YAML::Flow;
    *out << YAML::BeginSeq;
    for (const KubernetesObject& item : value) Emit(item, out);
    *out << YAML::EndSeq;
  } else if (value.is_string()) {
    EmitString(value.get<std::string>(), out);
  } else {
    *out << value.dump();  // numbers, booleans and null are the same in both
  }
}

}  // namespace

std::string ManifestsYaml(const std::vector<KubernetesObject>& manifests) {
  std::string text;
  for (const KubernetesObject& manifest : manifests) {
    YAML::Emitter out;
    Emit(manifest, &out);
    absl::StrAppend(&text, text.empty() ? "" : "---\n", out.c_str(), "\n");
  }
  return text;
}

}  // namespace deltapipe
