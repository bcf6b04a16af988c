#include "compression/codec_spec.h"

#include <random>
#include <string>
#include <utility>
#include <vector>

#include "compression/codec.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

std::string ParseError(absl::string_view text) {
  const auto spec = ParseCodecSpec(text);
  return spec.ok() ? "no error" : std::string(spec.status().message());
}

std::string MakeError(absl::string_view text) {
  const auto codec = MakeCodec(text);
  return codec.ok() ? "no error" : std::string(codec.status().message());
}

std::string CanonicalText(absl::string_view text) {
  const auto codec = MakeCodec(text);
  return codec.ok() ? (*codec)->text() : std::string(codec.status().message());
}

TEST(CodecSpecTest, NestedTextBecomesATreeWithColumns) {
  const auto spec = ParseCodecSpec(" delta( int(4, block=32) , first=int(8))");

  ASSERT_TRUE(spec.ok()) << spec.status();
  EXPECT_EQ(spec->name, "delta");
  EXPECT_EQ(spec->column, 2);
  ASSERT_EQ(spec->arguments.size(), 2);
  EXPECT_EQ(spec->arguments[0].name, "");
  EXPECT_EQ(spec->arguments[0].value.name, "int");
  EXPECT_EQ(spec->arguments[0].value.arguments[1].name, "block");
  EXPECT_EQ(spec->arguments[0].value.arguments[1].value.column, 22);
  EXPECT_EQ(spec->arguments[1].name, "first");
  EXPECT_EQ(CodecSpecText(*spec), "delta(int(4,block=32),first=int(8))");
}

TEST(CodecSpecTest, SyntaxErrorsNameTheColumnAndWhatWasExpected) {
  EXPECT_EQ(ParseError(""),
            "codec \"\": column 1: expected the name of a codec, got the end "
            "of the text");
  EXPECT_EQ(ParseError("int(4"),
            "codec \"int(4\": column 6: expected ',' or ')', got the end of "
            "the text");
  EXPECT_THAT(ParseError("int(4))"),
              HasSubstr("column 7: expected the end of the text, got ')'"));
  EXPECT_THAT(ParseError("int(4,)"),
              HasSubstr("column 7: expected a value, got ')'"));
  EXPECT_THAT(ParseError("int(block=)"),
              HasSubstr("column 11: expected a value, got ')'"));
  EXPECT_THAT(ParseError(std::string("int\0", 4)), HasSubstr("got '\\x00'"));
}

TEST(CodecSpecTest, ErrorsAreOneLineWhateverTheSpaces) {
  EXPECT_THAT(MakeError("\nE"),
              HasSubstr("codec \"\\nE\": column 2: unknown codec 'E'"));
  EXPECT_THAT(MakeError("int(9,\n\tblock=64)"),
              HasSubstr("codec \"int(9,\\n\\tblock=64)\": column 5: bits"));
}

TEST(CodecSpecTest, DepthAndLengthAreBounded) {
  std::string deep;
  for (int i = 0; i < 20; ++i) deep += "ef(";

  EXPECT_THAT(ParseError(deep), HasSubstr("at most 8 levels"));
  EXPECT_THAT(ParseError(std::string(2000, 'x')),
              HasSubstr("at most 1024 characters, got 2000"));
}

TEST(CodecSpecTest, AnyTextParsesOrFailsAndTreesSurviveTheirText) {
  std::mt19937 generator(1);
  const std::string alphabet = "int(4,8)=ef none";
  int num_parsed = 0;
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (size_t length = generator() % 12; length > 0; --length) {
      text += alphabet[generator() % alphabet.size()];
    }
    MakeCodec(text).status().IgnoreError();
    const auto spec = ParseCodecSpec(text);
    if (!spec.ok()) continue;
    ++num_parsed;
    const auto again = ParseCodecSpec(CodecSpecText(*spec));
    ASSERT_TRUE(again.ok()) << text;
    ASSERT_EQ(CodecSpecText(*again), CodecSpecText(*spec)) << text;
  }
  EXPECT_GT(num_parsed, 100);
}

TEST(CodecSpecTest, UnknownNamesGetTheNearestKnownOne) {
  EXPECT_THAT(MakeError("itn(4)"), HasSubstr("(did you mean 'int'?)"));
  EXPECT_THAT(MakeError("sgin"), HasSubstr("(did you mean 'sign'?)"));
  EXPECT_EQ(MakeError("int(4,blok=32)"),
            "codec \"int(4,blok=32)\": column 7: unknown parameter 'blok': int "
            "has the parameters bits, block, round, clip, levels, scale, axis, "
            "channel, row (did you mean 'block'?)");
  EXPECT_THAT(MakeError("int(4,round=stochastik)"),
              HasSubstr("column 13: round: expected nearest|stochastic, got "
                        "stochastik (did you mean 'stochastic'?)"));
  EXPECT_THAT(MakeError("zzzzzz"), Not(HasSubstr("did you mean")));
}

TEST(CodecSpecTest, ValuesOutOfRangeAreNamedWithTheirRange) {
  EXPECT_EQ(MakeError("int(9)"),
            "codec \"int(9)\": column 5: bits: expected 1..8, got 9 (the "
            "nearest is 8)");
  EXPECT_THAT(MakeError("int(-1)"), HasSubstr("expected 1..8, got -1"));
  EXPECT_THAT(MakeError("int(four)"), HasSubstr("expected 1..8, got four"));
  EXPECT_THAT(MakeError("int(4.5)"), HasSubstr("expected 1..8, got 4.5"));
  EXPECT_THAT(
      MakeError("int(4,block=100)"),
      HasSubstr("block: expected 16..4096 in multiples of 16, got 100 (the "
                "nearest is 96)"));
  EXPECT_THAT(MakeError("int(4,block=105)"), HasSubstr("the nearest is 112"));
  EXPECT_THAT(MakeError("int(4,block=9999)"), HasSubstr("nearest is 4096"));
  EXPECT_THAT(MakeError("int(4,block=0)"), HasSubstr("nearest is 16"));
  EXPECT_THAT(MakeError("int(99999999999999999999)"),
              HasSubstr("expected 1..8, got 99999999999999999999"));
}

TEST(CodecSpecTest, MisplacedArgumentsAreErrors) {
  EXPECT_THAT(MakeError("int"),
              HasSubstr("int: expected bits (1..8), got no such argument"));
  EXPECT_THAT(MakeError("int(block=64,4)"),
              HasSubstr("column 14: expected a named argument after a named"));
  EXPECT_THAT(MakeError("int(4,bits=4)"),
              HasSubstr("column 7: parameter 'bits' is given twice"));
  EXPECT_THAT(MakeError("sign(64,rms,64)"),
              HasSubstr("column 13: sign: expected at most 2 arguments"));
  EXPECT_THAT(MakeError("none(x=1)"), HasSubstr("none has no parameters"));
  EXPECT_THAT(MakeError("cast(int(4))"),
              HasSubstr("type: expected bf16|fp16, got int(4)"));
}

std::vector<CodecParameter> NumbersAndWords() {
  CodecParameter share;
  share.name = "share";
  share.kind = CodecParameter::Kind::kNumber;
  share.high = 1;
  CodecParameter exponent;
  exponent.name = "exponent";
  exponent.default_text = "auto";
  exponent.min = 1;
  exponent.max = 7;
  exponent.choices = "auto|none";
  return {share, exponent};
}

absl::StatusOr<CodecArguments> ReadNumbersAndWords(absl::string_view text) {
  const auto spec = ParseCodecSpec(text);
  if (!spec.ok()) return spec.status();
  return CodecArguments::Read(*spec, NumbersAndWords());
}

TEST(CodecSpecTest, NumbersAreReadAndWrittenExactly) {
  for (const auto& [text, canonical] :
       std::vector<std::pair<std::string, std::string>>{
           {"x(0.85)", "x(0.85)"},
           {"x(8.5e-1)", "x(0.85)"},
           {"x(1e-3,exponent=auto)", "x(0.001)"},
           {"x(0.1234567890123,exponent=none)",
            "x(0.1234567890123,exponent=none)"},
           {"x(.5,exponent=4)", "x(0.5,exponent=4)"}}) {
    const auto arguments = ReadNumbersAndWords(text);
    ASSERT_TRUE(arguments.ok()) << arguments.status();
    EXPECT_EQ(arguments->CanonicalText(), canonical);
    const auto again = ReadNumbersAndWords(canonical);
    ASSERT_TRUE(again.ok()) << again.status();
    EXPECT_EQ(again->Number("share"), arguments->Number("share"));
    EXPECT_EQ(again->IsWord("exponent"), arguments->IsWord("exponent"));
  }
  for (const std::string bad : {"x(0)", "x(1)", "x(nan)", "x(-1)", "x(much)"}) {
    EXPECT_THAT(std::string(ReadNumbersAndWords(bad).status().message()),
                HasSubstr("share: expected above 0, below 1, got "));
  }
  EXPECT_THAT(
      std::string(ReadNumbersAndWords("x(0.5,exponent=8)").status().message()),
      HasSubstr("exponent: expected auto or none or 1..7, got 8 (the nearest "
                "is 7)"));
}

TEST(CodecSpecTest, WrappersAreNotCodecs) {
  EXPECT_THAT(MakeError("delta(int(4))"),
              HasSubstr("'delta' keeps state and can only be the outermost"));
}

TEST(CodecSpecTest, CanonicalTextNamesOnlyWhatDiffersFromTheDefault) {
  EXPECT_EQ(CanonicalText("int( 4 , block = 64, round=nearest )"), "int(4)");
  EXPECT_EQ(CanonicalText("int(bits=04,clip=minmax,block=32)"),
            "int(4,block=32,clip=minmax)");
  EXPECT_EQ(CanonicalText("int(4,32)"), "int(4,block=32)");
  EXPECT_EQ(CanonicalText("sign(2048)"), "sign");
  EXPECT_EQ(CanonicalText("sign(block=0)"), "sign(block=0)");
  EXPECT_EQ(CanonicalText("none()"), "none");
  EXPECT_EQ(CanonicalText("cast(type=fp16)"), "cast(fp16)");
}

}  // namespace
}  // namespace deltapipe
