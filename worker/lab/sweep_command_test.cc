#include "worker/lab/sweep_command.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "base/tensor_view.h"
#include "compression/codec_registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/lab/testing_lab.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;
using Json = nlohmann::json;

// "a" of 16 x 64, "b" of 300 and integers; `drift` is added to each value.
std::string WriteTensors(const std::string& name, float drift) {
  std::mt19937 generator(3);
  std::mt19937 drifts(4);
  std::normal_distribution<float> normal;
  HostTensor a(DType::kFloat32, {16, 64});
  HostTensor b(DType::kFloat32, {300});
  HostTensor none(DType::kFloat32, {0, 4});
  HostTensor ids(DType::kInt64, {3});
  for (HostTensor* tensor : {&a, &b}) {
    for (float& value : tensor->Values<float>()) {
      value = normal(generator) + drift * normal(drifts);
    }
  }
  SafetensorsWriter writer;
  writer.Add("a", a.view());
  writer.Add("b", b.view());
  writer.Add("none", none.view());
  writer.Add("ids", ids.view());
  const std::string path = LabPath(name);
  EXPECT_TRUE(writer.WriteTo(path, {}).ok());
  return path;
}

std::string Contents(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

LabOutcome RunCommand(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "sweep");
  return RunLabProgram(arguments);
}

SweepResult Measured(const std::string& codec, double bits, double error) {
  SweepResult result;
  result.codec = codec;
  result.bits_per_element = bits;
  result.relative_rms_error = error;
  return result;
}

TEST(ParetoFrontTest, IsWhatNothingBeatsInBoth) {
  std::vector<SweepResult> results = {
      Measured("d", 8, 0.01),
      Measured("beaten", 8, 0.2),
      Measured("a", 1, 0.6),
      Measured("same as a", 1, 0.6),
      Measured("nan", 0.5, std::numeric_limits<double>::quiet_NaN()),
      Measured("b", 4, 0.1),
      Measured("no better", 5, 0.1),
      Measured("exact", 32, 0),
  };

  MarkParetoFront(&results);

  std::vector<std::string> order, front;
  for (const SweepResult& result : results) {
    order.push_back(result.codec);
    if (result.is_on_pareto_front) front.push_back(result.codec);
  }
  EXPECT_THAT(order, ElementsAre("nan", "a", "same as a", "b", "no better", "d",
                                 "beaten", "exact"));
  EXPECT_THAT(front, ElementsAre("a", "b", "d", "exact"));
}

TEST(SweepCommandTest, AllTensorsAreTakenTogether) {
  const std::string input = WriteTensors("x.safetensors", 0);

  const LabOutcome outcome =
      RunCommand({"--in", input, "--codecs", "int(4)", "none", "--json"});
  const LabOutcome alone =
      RunLabProgram({"codec", "--codec", "int(4)", "--in", input, "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<Json> rows = outcome.objects();
  ASSERT_EQ(rows.size(), 2);
  EXPECT_EQ(rows[0]["schema"], "deltapipe.lab.SweepResult");
  EXPECT_EQ(rows[0]["codec"], "int(4)");
  EXPECT_EQ(rows[0]["elements"], 16 * 64 + 300);
  const std::vector<Json> tensors = alone.objects();
  ASSERT_EQ(tensors.size(), 3);
  EXPECT_EQ(rows[0]["payload_bytes"],
            tensors[0]["payload_bytes"].get<int>() +
                tensors[1]["payload_bytes"].get<int>());
  const double error = rows[0]["relative_rms_error"];
  const double a = tensors[0]["relative_rms_error"];
  const double b = tensors[1]["relative_rms_error"];
  EXPECT_GE(error, std::min(a, b));
  EXPECT_LE(error, std::max(a, b));
  EXPECT_NEAR(rows[0]["mean_error"].get<double>(),
              (1024 * tensors[0]["mean_error"].get<double>() +
               300 * tensors[1]["mean_error"].get<double>()) /
                  1324,
              1e-9);
  EXPECT_GT(rows[0]["encode_gb_per_s"].get<double>(), 0);
  EXPECT_GT(rows[0]["decode_gb_per_s"].get<double>(), 0);
  EXPECT_EQ(rows[1]["codec"], "none");
  EXPECT_EQ(rows[1]["relative_rms_error"], 0);
  EXPECT_EQ(rows[1]["bits_per_element"], 32);
  EXPECT_EQ(rows[1]["is_on_pareto_front"], true);
}

TEST(SweepCommandTest, TheDefaultIsEveryRowOfTheList) {
  const std::string input = WriteTensors("x.safetensors", 0);

  const LabOutcome outcome = RunCommand({"--in", input, "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<Json> rows = outcome.objects();
  for (const CodecInfo& info : AllCodecs()) {
    const bool is_there =
        std::any_of(rows.begin(), rows.end(), [&](const Json& row) {
          const std::string codec = row["codec"];
          return codec == info.name ||
                 absl::StartsWith(codec, absl::StrCat(info.name, "("));
        });
    EXPECT_EQ(is_there, !info.is_wrapper()) << info.name;
  }
  double bits = 0;
  for (const Json& row : rows) {
    EXPECT_GE(row["bits_per_element"].get<double>(), bits) << row;
    bits = row["bits_per_element"];
  }
}

TEST(SweepCommandTest, PreviousTensorsBringDeltas) {
  const std::string input = WriteTensors("x.safetensors", 0.05f);
  const std::string previous = WriteTensors("m.safetensors", 0);

  const LabOutcome outcome =
      RunCommand({"--in", input, "--previous", previous, "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  double plain = 0, delta = 0;
  for (const Json& row : outcome.objects()) {
    if (row["codec"] == "int(4)") plain = row["relative_rms_error"];
    if (row["codec"] == "delta(int(4))") delta = row["relative_rms_error"];
  }
  EXPECT_GT(delta, 0);
  EXPECT_LT(delta, plain / 5);
}

TEST(SweepCommandTest, TheTableMarksTheFront) {
  const std::string input = WriteTensors("x.safetensors", 0);

  const LabOutcome outcome = RunCommand(
      {"--in", input, "--codecs", "int(8)", "cast(bf16)", "none", "aqsgd(8)"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const std::vector<std::string> lines = outcome.lines();
  ASSERT_EQ(lines.size(), 5);
  EXPECT_THAT(lines[0], StartsWith("  codec "));
  EXPECT_THAT(lines[0], HasSubstr("bits"));
  EXPECT_THAT(lines[4], StartsWith("* none "));
  const auto is_marked = [&](const char* codec) {
    return absl::StrContains(outcome.out, absl::StrCat("* ", codec, " "));
  };
  EXPECT_TRUE(is_marked("cast(bf16)"));
  EXPECT_TRUE(is_marked("int(8)"));
}

TEST(SweepCommandTest, WritesTheTableAndThePlot) {
  const std::string input = WriteTensors("x.safetensors", 0);
  const std::string table = LabPath("table.json");
  const std::string plot = LabPath("plot.svg");

  const LabOutcome outcome =
      RunCommand({"--in", input, "--codecs", "int(4)", "luq", "--out", table,
                  "--plot", plot, "--seed", "7", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  const Json written = Json::parse(Contents(table), nullptr, false);
  EXPECT_EQ(written["schema"], "deltapipe.lab.Sweep");
  EXPECT_EQ(written["input"], input);
  EXPECT_EQ(written["previous"], nullptr);
  EXPECT_EQ(written["seed"], 7);
  EXPECT_EQ(written["results"], Json(outcome.objects()));
  const std::string svg = Contents(plot);
  EXPECT_THAT(svg, StartsWith("<svg "));
  EXPECT_THAT(svg, HasSubstr(">Codecs on x.safetensors<"));
  EXPECT_THAT(svg, HasSubstr(">int(4)<"));
  EXPECT_THAT(svg, HasSubstr(">luq<"));
}

// `count` ones, all but the first `num_infinite` of them.
std::string WriteInfinities(int64_t count, int64_t num_infinite) {
  HostTensor a(DType::kFloat32, {count});
  for (int64_t i = 0; i < count; ++i) {
    a.Values<float>()[static_cast<size_t>(i)] =
        i < num_infinite ? std::numeric_limits<float>::infinity() : 1.0f;
  }
  SafetensorsWriter writer;
  writer.Add("a", a.view());
  const std::string path = LabPath("infinite.safetensors");
  EXPECT_TRUE(writer.WriteTo(path, {}).ok());
  return path;
}

TEST(SweepCommandTest, ErrorsOfNothingAreNullAndNeverOnTheFront) {
  const std::string input = WriteInfinities(64, 64);

  const LabOutcome outcome =
      RunCommand({"--in", input, "--codecs", "int(4)", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["relative_rms_error"], nullptr);
  EXPECT_EQ(outcome.json()["mean_error"], nullptr);
  EXPECT_EQ(outcome.json()["is_on_pareto_front"], false);
}

TEST(SweepCommandTest, ValuesThatAreNotFiniteAreCountedAndErrorsOfTheOthers) {
  const std::string input = WriteInfinities(256, 3);

  const LabOutcome outcome =
      RunCommand({"--in", input, "--codecs", "int(4)", "--json"});
  const LabOutcome table = RunCommand({"--in", input, "--codecs", "int(4)"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.json()["not_finite"], 3);
  // Their block of 64 is lost.
  EXPECT_EQ(outcome.json()["decoded_not_finite"], 64);
  EXPECT_LT(outcome.json()["relative_rms_error"].get<double>(), 0.15);
  EXPECT_EQ(outcome.json()["is_on_pareto_front"], true);
  EXPECT_THAT(table.out, HasSubstr("3 of 256 values are not finite; errors"));
}

TEST(SweepCommandTest, MistakesAreOneSentenceAndExitCode2) {
  const std::string input = WriteTensors("x.safetensors", 0);
  const auto expect = [&](const std::vector<std::string>& arguments,
                          const std::string& text) {
    const LabOutcome outcome = RunCommand(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, StartsWith("deltapipe-lab: "));
    EXPECT_THAT(outcome.err, HasSubstr(text));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
  };

  expect({}, "--in");
  expect({"--in", LabPath("missing.safetensors")}, "missing.safetensors");
  expect({"--in", input, "--codecs", "none", "itn(4)"}, "did you mean 'int'?");
  expect({"--in", input, "--codecs", "int(9)"}, "expected 1..8, got 9");
  expect({"--in", input, "--codecs", "none", "--previous", input},
         "--previous needs a delta(...) codec");
  expect({"--in", input, "--previous", LabPath("missing.safetensors")},
         "missing.safetensors");
}

TEST(SweepCommandTest, AnUnwritableFileIsExitCode2) {
  const std::string input = WriteTensors("x.safetensors", 0);

  for (const char* option : {"--out", "--plot"}) {
    const LabOutcome outcome =
        RunCommand({"--in", input, "--codecs", "none", option,
                    LabPath("no/such/folder/file")});
    EXPECT_EQ(outcome.exit_code, 2);
    EXPECT_THAT(outcome.err, HasSubstr("no/such/folder"));
  }
}

}  // namespace
}  // namespace deltapipe
