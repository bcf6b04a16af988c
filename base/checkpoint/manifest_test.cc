#include "base/checkpoint/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_replace.h"
#include "base/checksum.h"

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

CheckpointManifest Example() {
  CheckpointManifest manifest;
  manifest.job_id = "text-2";
  manifest.generation = 18446744073709551615u;
  manifest.step = 50;
  manifest.num_stages = 2;
  manifest.num_replicas = 3;
  manifest.time_millis = 1700000000123;
  manifest.samples_applied = 1600;
  manifest.samples_dropped = 16;
  manifest.spec_json = "{\"name\":\"t\\\"ext\",\"n\":\"\xc3\xa9\"}";
  manifest.tuning_json = "{}";
  manifest.files = {{"stage-0.safetensors", 123456, 0xfedcba9876543210u},
                    {"rank-0.safetensors", 0, 1}};
  return manifest;
}

/// `text` with a digest line that fits what stands before it.
std::string Signed(std::string text) {
  text.resize(text.rfind("\"digest\": \""));
  const uint64_t digest =
      Checksum({reinterpret_cast<const uint8_t*>(text.data()), text.size()});
  return absl::StrCat(text, "\"digest\": \"", absl::StrFormat("%016x", digest),
                      "\"\n}\n");
}

std::string Replaced(const std::string& from, const std::string& to) {
  const std::string text = FormatManifest(Example());
  EXPECT_THAT(text, HasSubstr(from));
  return Signed(absl::StrReplaceAll(text, {{from, to}}));
}

std::string Problem(const std::string& text) {
  const auto manifest = ParseManifest(text, "m/manifest.json");
  EXPECT_EQ(manifest.status().code(), absl::StatusCode::kDataLoss);
  return std::string(manifest.status().message());
}

TEST(ManifestTest, RoundTrips) {
  const CheckpointManifest manifest =
      ParseManifest(FormatManifest(Example()), "m").value();

  EXPECT_EQ(manifest.job_id, "text-2");
  EXPECT_EQ(manifest.generation, 18446744073709551615u);
  EXPECT_EQ(manifest.step, 50);
  EXPECT_EQ(manifest.num_stages, 2);
  EXPECT_EQ(manifest.num_replicas, 3);
  EXPECT_EQ(manifest.time_millis, 1700000000123);
  EXPECT_EQ(manifest.samples_applied, 1600);
  EXPECT_EQ(manifest.samples_dropped, 16);
  EXPECT_EQ(manifest.spec_json, Example().spec_json);
  EXPECT_EQ(manifest.tuning_json, "{}");
  ASSERT_EQ(manifest.files.size(), 2);
  EXPECT_EQ(manifest.files[0].name, "stage-0.safetensors");
  EXPECT_EQ(manifest.files[0].bytes, 123456);
  EXPECT_EQ(manifest.files[0].digest, 0xfedcba9876543210u);
  EXPECT_EQ(manifest.files[1].name, "rank-0.safetensors");
}

TEST(ManifestTest, EmptyOneRoundTrips) {
  CheckpointManifest manifest;
  manifest.num_stages = manifest.num_replicas = 1;

  EXPECT_TRUE(ParseManifest(FormatManifest(manifest), "m").ok());
}

TEST(ManifestTest, TextIsStable) {
  EXPECT_THAT(FormatManifest(Example()),
              StartsWith("{\n \"format\": \"deltapipe.checkpoint\",\n"
                         " \"version\": 1,\n \"job_id\": \"text-2\",\n"));
}

TEST(ManifestTest, EveryTornPrefixIsRefused) {
  const std::string text = FormatManifest(Example());

  for (size_t size = 0; size < text.size(); ++size) {
    EXPECT_THAT(Problem(text.substr(0, size)), HasSubstr("m/manifest.json"));
  }
}

TEST(ManifestTest, EveryBitFlipIsRefused) {
  const std::string text = FormatManifest(Example());

  for (size_t bit = 0; bit < 8 * text.size(); ++bit) {
    std::string changed = text;
    changed[bit / 8] ^= static_cast<char>(1 << bit % 8);
    EXPECT_FALSE(ParseManifest(changed, "m").ok()) << bit;
  }
}

TEST(ManifestTest, WhatFollowsTheDigestIsRefused) {
  EXPECT_THAT(Problem(FormatManifest(Example()) + "\n"),
              HasSubstr("do not end with a digest line"));
}

TEST(ManifestTest, DamageSaysBothDigests) {
  std::string text = FormatManifest(Example());
  text[5] ^= 1;

  EXPECT_THAT(Problem(text),
              AllOf(HasSubstr("expected the digest "), HasSubstr(", got ")));
}

TEST(ManifestTest, TheDigestIsCheckedBeforeAllElse) {
  EXPECT_THAT(Problem("{\"format\": \"deltapipe.checkpoint\", \"version\": 2}"),
              HasSubstr("digest line"));
}

TEST(ManifestTest, LongTextIsRefused) {
  EXPECT_THAT(Problem(std::string((16 << 20) + 1, ' ')),
              HasSubstr("expected at most 16777216"));
}

TEST(ManifestTest, TooManyFilesAreRefused) {
  CheckpointManifest manifest = Example();
  manifest.files.clear();
  for (int i = 0; i < 4096; ++i) {
    manifest.files.push_back({absl::StrCat("rank-", i, ".safetensors"), 1, 1});
  }
  EXPECT_TRUE(ParseManifest(FormatManifest(manifest), "m").ok());

  manifest.files.push_back({"one-more", 1, 1});
  EXPECT_THAT(Problem(FormatManifest(manifest)),
              HasSubstr("more than 4096 files"));
}

TEST(ManifestTest, UnknownVersionNamesBoth) {
  EXPECT_THAT(Problem(Replaced("\"version\": 1", "\"version\": 2")),
              HasSubstr("it has version 2, expected 1"));
}

struct BadText {
  const char* name;
  const char* from;
  const char* to;
  const char* message;
};

class BadManifestTest : public testing::TestWithParam<BadText> {};

TEST_P(BadManifestTest, IsRefusedWithTheReason) {
  EXPECT_THAT(Problem(Replaced(GetParam().from, GetParam().to)),
              HasSubstr(GetParam().message));
}

INSTANTIATE_TEST_SUITE_P(
    Texts, BadManifestTest,
    testing::Values(
        BadText{"OtherFormat", "deltapipe.checkpoint", "tar",
                "unexpected a text in 'format'"},
        BadText{"VersionNotFirst", "\"version\": 1,", "",
                "begin with 'format' and 'version'"},
        BadText{"MissingMember", " \"tuning\": \"{}\",\n", "",
                "the member 'tuning' is missing"},
        BadText{"DuplicateMember", "\"step\": 50", "\"step\": 5, \"step\": 50",
                "the member 'step' occurs twice"},
        BadText{"DuplicateFileMember", "\"bytes\": 0",
                "\"bytes\": 0, \"bytes\": 0",
                "the member 'bytes' occurs twice"},
        BadText{"UnknownMember", "\"step\": 50", "\"step\": 50, \"stap\": 1",
                "unexpected a number in 'stap'"},
        BadText{"UnknownFileMember", "\"bytes\": 0",
                "\"bytes\": 0, \"mode\": 1", "unexpected a number in 'mode'"},
        BadText{"MissingFileMember", "\"bytes\": 0,", "",
                "not exactly name, bytes and digest"},
        BadText{"NegativeStep", "\"step\": 50", "\"step\": -50",
                "negative number -50"},
        BadText{"FractionalStep", "\"step\": 50", "\"step\": 5.5", "5.5"},
        BadText{"HugeStep", "\"step\": 50", "\"step\": 9223372036854775808",
                "expected at most 9223372036854775807"},
        BadText{"TextForNumber", "\"step\": 50", "\"step\": \"50\"",
                "unexpected a text in 'step'"},
        BadText{"NumberForText", "\"tuning\": \"{}\"", "\"tuning\": 1",
                "unexpected a number in 'tuning'"},
        BadText{"NoStages", "\"num_stages\": 2", "\"num_stages\": 0",
                "unexpected 0 in 'num_stages'"},
        BadText{"ManyStages", "\"num_stages\": 2", "\"num_stages\": 65537",
                "expected at most 65536"},
        BadText{"HugeFile", "123456", "9223372036854775808",
                "'bytes' is 9223372036854775808"},
        BadText{"Slash", "rank-0.safetensors", "a/rank-0.safetensors",
                "'a/rank-0.safetensors' is no name"},
        BadText{"Parent", "rank-0.safetensors", "..", "'..' is no name"},
        BadText{"Dots", "rank-0.safetensors", "a..b", "is no name"},
        BadText{"Hidden", "rank-0.safetensors", ".a", "is no name"},
        BadText{"Nul", "rank-0.safetensors", "a\\u0000b", "is no name"},
        BadText{"EmptyName", "rank-0.safetensors", "", "'' is no name"},
        BadText{"Itself", "rank-0.safetensors", "manifest.json", "is no name"},
        BadText{"SameName", "rank-0", "stage-0",
                "'stage-0.safetensors' occurs twice"},
        BadText{"UpperDigest", "fedcba9876543210", "FEDCBA9876543210",
                "unexpected a text in 'digest'"},
        BadText{"ShortDigest", "fedcba9876543210", "fedcba987654321",
                "unexpected a text in 'digest'"},
        BadText{"TextAmongFiles", "\"files\": [", "\"files\": [\"a\",",
                "unexpected a text"},
        BadText{"NumberAmongFiles", "\n  }\n ]", "\n  }, 1\n ]",
                "unexpected a number"},
        BadText{"LooseTextAfterAFile", "\n  }\n ]", "\n  }, \"a\"\n ]",
                "unexpected a text"},
        BadText{"NestedArray", "\"files\": [", "\"files\": [[],",
                "unexpected an array"},
        BadText{"NestedObject", "\"tuning\": \"{}\"", "\"tuning\": {}",
                "unexpected an object in 'tuning'"},
        BadText{"Null", "\"tuning\": \"{}\"", "\"tuning\": null",
                "unexpected null"},
        BadText{"Cut", "\"tuning\": \"{}\"", "\"tuning\": \"{}",
                "it is not JSON at byte"}),
    [](const auto& info) { return info.param.name; });

TEST(ManifestTest, FolderNamesRoundTrip) {
  int64_t step = 0;
  uint64_t generation = 0;

  EXPECT_EQ(CheckpointFolderName(50, 7), "step-000000050-g7");
  ASSERT_TRUE(ParseCheckpointFolderName(
                  CheckpointFolderName(12345678901, 18446744073709551615u),
                  &step, &generation)
                  .ok());
  EXPECT_EQ(step, 12345678901);
  EXPECT_EQ(generation, 18446744073709551615u);
}

TEST(ManifestTest, OtherFolderNamesAreRefused) {
  for (const char* name :
       {"", "step-", "step-50-g7", "step-000000050", "step-000000050-g",
        "step-000000050-g07", "step-000000050-g7/", "step-000000050-g7 ",
        "step--00000050-g7", "step-+00000050-g7", "step-00000005a-g7",
        "step-000000050-g-7", "xstep-000000050-g7", "-g7",
        "step-99999999999999999999-g1", "step-0000000050-g7"}) {
    int64_t step;
    uint64_t generation;
    const absl::Status status =
        ParseCheckpointFolderName(name, &step, &generation);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << name;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("no name of a checkpoint"));
  }
}

}  // namespace
}  // namespace deltapipe
