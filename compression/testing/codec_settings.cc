#include "compression/testing/codec_settings.h"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "compression/codec.h"

namespace deltapipe {
namespace {

std::vector<std::string> ValuesOf(const CodecParameter& parameter) {
  std::vector<std::string> values =
      absl::StrSplit(parameter.choices, '|', absl::SkipEmpty());
  switch (parameter.kind) {
    case CodecParameter::Kind::kInteger:
      values.push_back(absl::StrCat(parameter.min));
      if (parameter.extent_from_last > 0) {
        values.insert(values.end(), {"7", "48", "129"});
      } else {
        const int64_t middle = (parameter.min + parameter.max) / 2;
        values.push_back(absl::StrCat(middle - middle % parameter.multiple_of));
      }
      values.push_back(absl::StrCat(parameter.max));
      break;
    case CodecParameter::Kind::kNumber:
      for (const double share : {0.01, 0.5, 0.99}) {
        values.push_back(absl::StrCat(
            parameter.low + share * (parameter.high - parameter.low)));
      }
      break;
    case CodecParameter::Kind::kChoice:
      break;
    case CodecParameter::Kind::kCodec:
      values.insert(values.end(), {"none", "int(4)", "error_bound(rel=0.01)"});
      break;
  }
  return values;
}

// Adds the canonical text, if it is one and not yet there.
void AddSetting(const std::string& text, std::vector<std::string>* settings) {
  const auto codec = MakeCodec(text);
  if (!codec.ok()) return;
  std::string canonical = (*codec)->text();
  if (std::find(settings->begin(), settings->end(), canonical) ==
      settings->end()) {
    settings->push_back(std::move(canonical));
  }
}

}  // namespace

std::vector<std::string> CodecSettings(const CodecInfo& info) {
  std::vector<std::string> settings;
  if (info.is_wrapper()) return settings;
  AddSetting(ExampleCodecText(info), &settings);
  // Other parameters without a default take the middle one of their values.
  for (const CodecParameter& varied : info.parameters) {
    for (const std::string& value : ValuesOf(varied)) {
      std::vector<std::string> arguments;
      for (const CodecParameter& parameter : info.parameters) {
        if (parameter.name == varied.name) {
          arguments.push_back(absl::StrCat(parameter.name, "=", value));
        } else if (parameter.default_text.empty()) {
          const std::vector<std::string> values = ValuesOf(parameter);
          arguments.push_back(
              absl::StrCat(parameter.name, "=", values[values.size() / 2]));
        }
      }
      AddSetting(
          absl::StrCat(info.name, "(", absl::StrJoin(arguments, ","), ")"),
          &settings);
    }
  }
  return settings;
}

std::vector<std::string> AllCodecSettings() {
  std::vector<std::string> all;
  for (const CodecInfo& info : AllCodecs()) {
    std::vector<std::string> settings = CodecSettings(info);
    std::move(settings.begin(), settings.end(), std::back_inserter(all));
  }
  return all;
}

std::vector<std::string> AllExampleCodecs() {
  std::vector<std::string> examples;
  for (const CodecInfo& info : AllCodecs()) {
    if (!info.is_wrapper()) examples.push_back(ExampleCodecText(info));
  }
  return examples;
}

std::string TestNameOfCodec(absl::string_view text) {
  std::string name(text);
  for (char& c : name) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c))) c = '_';
  }
  return name;
}

}  // namespace deltapipe
