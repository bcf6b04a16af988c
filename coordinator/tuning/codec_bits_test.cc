#include "coordinator/tuning/codec_bits.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "compression/codec_registry.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

TEST(CodecBitsTest, ReadsTheInnermostCodec) {
  EXPECT_EQ(ReadCodecBits("int(4)", false)->bits, 4);
  EXPECT_EQ(ReadCodecBits("int(4,block=128)", false)->block, 128);
  EXPECT_EQ(ReadCodecBits("delta(int(3),first=int(8))", false)->bits, 3);
  EXPECT_EQ(ReadCodecBits("ef(sign(block=0))", true)->bits, 1);
  EXPECT_EQ(ReadCodecBits("cast(fp16)", false)->bits, 16);
  EXPECT_EQ(ReadCodecBits("none", true)->bits, 32);
  EXPECT_THAT(std::string(ReadCodecBits("inr(4)", true).status().message()),
              HasSubstr("did you mean 'int'?"));
}

TEST(CodecBitsTest, EveryCodecOfTheRegistryHasBitsAndCanTakeOthers) {
  for (const CodecInfo& info : AllCodecs()) {
    if (info.is_wrapper()) continue;
    const std::string codec = ExampleCodecText(info);
    for (const std::string& text : {codec, absl::StrCat("delta(", codec, ")"),
                                    absl::StrCat("ef(", codec, ")")}) {
      const auto bits = ReadCodecBits(text, false);
      ASSERT_TRUE(bits.ok()) << text << ": " << bits.status();
      EXPECT_GE(bits->bits, 1) << text;
      EXPECT_LE(bits->bits, 32) << text;
      const auto with_four = WithBits(text, false, 4);
      ASSERT_TRUE(with_four.ok()) << text << ": " << with_four.status();
      EXPECT_EQ(ReadCodecBits(*with_four, false)->bits, 4) << *with_four;
    }
  }
  EXPECT_EQ(ReadCodecBits("delta(luq)", false)->bits, 4);
  EXPECT_TRUE(ReadCodecBits("delta(luq)", false)->is_nominal);
  EXPECT_FALSE(ReadCodecBits("delta(int(4))", false)->is_nominal);
}

TEST(CodecBitsTest, KeepsWhatSurroundsTheBits) {
  EXPECT_EQ(*WithBits("delta(int(4),first=int(8),store=fp32)", false, 2),
            "delta(int(2),first=int(8),store=fp32)");
  EXPECT_EQ(*WithBits("delta(codec=int(4),first=cast(bf16))", false, 8),
            "delta(int(8),first=cast(bf16))");
  EXPECT_EQ(*WithBits("ef(int(4,block=32))", false, 3), "ef(int(3,block=32))");
  EXPECT_EQ(*WithBits("int(4,clip=minmax)", false, 5), "int(5,clip=minmax)");
}

TEST(CodecBitsTest, GradientsStayUnbiased) {
  EXPECT_EQ(*WithBits("int(8)", true, 4), "int(4,round=stochastic)");
  EXPECT_EQ(*WithBits("cast(bf16)", true, 4), "int(4,round=stochastic)");
}

TEST(CodecBitsTest, WideLevelsAreCastAndNone) {
  EXPECT_EQ(*WithBits("int(4)", false, 16), "cast(bf16)");
  EXPECT_EQ(*WithBits("delta(int(4))", false, 32), "delta(none,first=int(8))");
  EXPECT_EQ(*WithBits("none", false, 6), "int(6)");
}

TEST(CodecBitsTest, BlockCanBeChosen) {
  EXPECT_EQ(*WithBits("int(4)", false, 4, 16), "int(4,block=16)");
  EXPECT_EQ(*WithBits("int(4,block=16)", false, 5), "int(5,block=16)");
}

TEST(CodecBitsTest, EveryLevelReadsBack) {
  for (const int bits : kBitLevels) {
    for (const char* codec : {"int(4)", "delta(int(4))", "ef(int(2))"}) {
      const auto text = WithBits(codec, false, bits);
      ASSERT_TRUE(text.ok()) << text.status();
      EXPECT_EQ(ReadCodecBits(*text, false)->bits, bits) << *text;
    }
  }
}

}  // namespace
}  // namespace deltapipe
