// Every parameter of every row of codecs.def, out of its range: the error names
// the parameter, its range and the nearest text, which is a valid one.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "compression/codec.h"
#include "compression/codec_registry.h"
#include "compression/codec_spec.h"
#include "compression/delta/boundary_spec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string ErrorOf(const std::string& text) {
  const auto spec = ParseBoundarySpec(text, 0);
  return spec.ok() ? "" : std::string(spec.status().message());
}

// What `text` has between `begin` and `end`; nothing if it lacks one of them.
std::optional<std::string> Between(const std::string& text,
                                   const std::string& begin,
                                   const std::string& end) {
  const size_t at = text.find(begin);
  if (at == std::string::npos) return std::nullopt;
  const size_t last = text.rfind(end);
  if (last == std::string::npos || last < at + begin.size()) {
    return std::nullopt;
  }
  return text.substr(at + begin.size(), last - at - begin.size());
}

std::optional<std::string> NearestIn(const std::string& error) {
  const auto nearest = Between(error, " (the nearest is ", ")");
  return nearest.has_value() ? nearest
                             : Between(error, " (did you mean '", "'?)");
}

// `info` with its example's arguments, but `value` for `parameter`.
std::string TextWith(const CodecInfo& info, const CodecParameter& parameter,
                     const std::string& value) {
  const CodecSpec example = *ParseCodecSpec(ExampleCodecText(info));
  std::vector<std::string> arguments;
  size_t required = 0;
  for (const CodecParameter& other : info.parameters) {
    const bool is_required = other.default_text.empty();
    const std::string given =
        is_required ? CodecSpecText(example.arguments[required++].value) : "";
    if (other.name == parameter.name) {
      arguments.push_back(absl::StrCat(other.name, "=", value));
    } else if (is_required) {
      arguments.push_back(absl::StrCat(other.name, "=", given));
    }
  }
  return absl::StrCat(info.name, "(", absl::StrJoin(arguments, ","), ")");
}

std::vector<std::string> ValuesOutOfRange(const CodecParameter& parameter) {
  switch (parameter.kind) {
    case CodecParameter::Kind::kInteger: {
      std::vector<std::string> values = {absl::StrCat(parameter.min - 1),
                                         absl::StrCat(parameter.max + 1),
                                         "99999999999999999999", "-1e300"};
      if (parameter.multiple_of > 1) {
        values.push_back(absl::StrCat(parameter.min + 1));
        values.push_back(absl::StrCat(parameter.max - 1));
      }
      return values;
    }
    case CodecParameter::Kind::kNumber: {
      std::vector<std::string> values = {absl::StrCat(parameter.low - 3),
                                         absl::StrCat(parameter.high * 2),
                                         "inf", "-inf"};
      const std::vector<std::string> words =
          absl::StrSplit(parameter.choices, '|');
      for (const double end : {parameter.low, parameter.high}) {
        const std::string text = absl::StrCat(end);
        if (std::find(words.begin(), words.end(), text) == words.end()) {
          values.push_back(text);
        }
      }
      return values;
    }
    case CodecParameter::Kind::kChoice: {
      const std::vector<std::string> words =
          absl::StrSplit(parameter.choices, '|');
      double number = 0;
      if (absl::SimpleAtod(words.front(), &number)) {
        return {absl::StrCat(number + 1), absl::StrCat(1000 * number), "-inf"};
      }
      return {absl::StrCat(words.front(), "x"),
              absl::StrCat(words.back(), "x")};
    }
    case CodecParameter::Kind::kCodec:
      return {"delta(int(4))", "ef(sign)", "ef(delta(ef(cast(bf16))))",
              "delta(int(9))", "ef"};
  }
  return {};
}

void CheckOutOfRange(const CodecInfo& info, const CodecParameter& parameter,
                     const std::string& value) {
  const std::string text = TextWith(info, parameter, value);
  SCOPED_TRACE(text);

  const std::string error = ErrorOf(text);

  EXPECT_THAT(
      error, HasSubstr(absl::StrCat(parameter.name, ": expected ",
                                    CodecParameterRange(parameter), ", got ")));
  const std::optional<std::string> nearest = NearestIn(error);
  ASSERT_TRUE(nearest.has_value()) << error;
  const std::vector<std::string> both = absl::StrSplit(*nearest, ", as in ");
  const std::string whole = TextWith(info, parameter, both[0]);
  const std::string next_error = ErrorOf(whole);
  if (!next_error.empty()) {
    // Valid with other values of the parameters that it depends on.
    ASSERT_THAT(next_error, HasSubstr(" with ")) << error;
    const std::string next = NearestIn(next_error).value_or("none");
    EXPECT_EQ(ErrorOf(TextWith(info, parameter, next)), "") << next_error;
  }
  if (parameter.kind == CodecParameter::Kind::kCodec) {
    ASSERT_EQ(both.size(), 2u) << error;
    EXPECT_EQ(both[1], whole);
  }
}

TEST(CodecRangesTest, EveryValueOutOfRangeGetsItsRangeAndAValidNearestText) {
  int num_values = 0;
  for (const CodecInfo& info : AllCodecs()) {
    for (const CodecParameter& parameter : info.parameters) {
      for (const std::string& value : ValuesOutOfRange(parameter)) {
        CheckOutOfRange(info, parameter, value);
        ++num_values;
      }
    }
  }
  EXPECT_GT(num_values, 150);
}

TEST(CodecRangesTest, OpenRangesNameAValueNearTheirEnd) {
  EXPECT_EQ(ErrorOf("prune(1.2)"),
            "codec \"prune(1.2)\": column 7: sparsity: expected above 0, below "
            "1, got 1.2 (the nearest is 0.99)");
  EXPECT_THAT(ErrorOf("topk(0)"), HasSubstr("got 0 (the nearest is 0.01)"));
  EXPECT_THAT(ErrorOf("mixed(9)"), HasSubstr("got 9 (the nearest is 8)"));
  EXPECT_THAT(ErrorOf("hadamard(none,tile=100)"),
              HasSubstr("8|16|32|64|128, got 100 (the nearest is 128)"));
  EXPECT_THAT(ErrorOf("hadamard(none,threshold=2e6)"),
              HasSubstr("got 2e6 (the nearest is 990000)"));
  EXPECT_THAT(ErrorOf("int(4.6)"), HasSubstr("got 4.6 (the nearest is 5)"));
  EXPECT_THAT(ErrorOf("topk(nan)"), HasSubstr("below 1, got nan"));
}

TEST(CodecRangesTest, CodecsWithinCodecsKeepNoState) {
  EXPECT_EQ(ErrorOf("delta(delta(int(4)))"),
            "codec \"delta(delta(int(4)))\": column 7: codec: expected a codec "
            "without state, got delta(int(4)) (the nearest is int(4), as in "
            "delta(int(4)))");
  EXPECT_THAT(ErrorOf("ef(ef(sign))"),
              HasSubstr("codec: expected a codec without state, got ef(sign) "
                        "(the nearest is sign, as in ef(sign))"));
  EXPECT_THAT(ErrorOf("delta(int(4),first=delta(int(8)))"),
              HasSubstr("first: expected a codec without state, got "
                        "delta(int(8)) (the nearest is int(8), as in "
                        "delta(int(4),first=int(8)))"));
  EXPECT_THAT(ErrorOf("hadamard(delta(int(2),first=sign),tile=64)"),
              HasSubstr("(the nearest is int(2), as in "
                        "hadamard(int(2),tile=64))"));
  EXPECT_THAT(ErrorOf("ef(hadamard(delta))"),
              HasSubstr("got delta (the nearest is int(4), as in "
                        "hadamard(int(4)))"));
}

}  // namespace
}  // namespace deltapipe
