#include "worker/lab/lab.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <random>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/safetensors.h"
#include "base/tensor_view.h"
#include "compression/codec_registry.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "worker/lab/testing_lab.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::StartsWith;
using Json = nlohmann::json;

class LabTest : public ::testing::Test {
 protected:
  // "a" of 4x64, "b" of 100 elements, "ids" of integers.
  void WriteTensors(const std::string& name, uint32_t seed, float drift) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal;
    std::mt19937 drifts(99);
    HostTensor a(DType::kFloat32, {4, 64});
    HostTensor b(DType::kFloat32, {100});
    HostTensor ids(DType::kInt64, {3});
    for (float& value : a.Values<float>()) {
      value = normal(generator) + drift * normal(drifts);
    }
    for (float& value : b.Values<float>()) {
      value = normal(generator) + drift * normal(drifts);
    }
    ids.Values<int64_t>()[2] = 77;
    SafetensorsWriter writer;
    writer.Add("a", a.view());
    writer.Add("b", b.view());
    writer.Add("ids", ids.view());
    const absl::Status status = writer.WriteTo(LabPath(name), {{"step", "9"}});
    ASSERT_TRUE(status.ok()) << status;
  }

  std::vector<float> ReadValues(const std::string& name,
                                const std::string& tensor) {
    auto file = SafetensorsFile::Read(LabPath(name));
    EXPECT_TRUE(file.ok()) << file.status();
    if (!file.ok()) return {};
    auto values = file->FloatValues(tensor);
    EXPECT_TRUE(values.ok()) << values.status();
    return values.ok() ? *values : std::vector<float>();
  }
};

TEST_F(LabTest, CodecPrintsOneObjectATensorAndWritesWhatWasDecoded) {
  WriteTensors("x.safetensors", 1, 0);

  const LabOutcome outcome = RunLabProgram(
      {"codec", "--codec", "int(4)", "--in", LabPath("x.safetensors"), "--out",
       LabPath("y.safetensors"), "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.err, IsEmpty());
  const std::vector<Json> lines = outcome.objects();
  ASSERT_EQ(lines.size(), 2);
  EXPECT_EQ(lines[0]["tensor"], "a");
  EXPECT_EQ(lines[0]["elements"], 256);
  EXPECT_EQ(lines[0]["payload_bytes"], 1 + 4 + 128);
  EXPECT_DOUBLE_EQ(lines[0]["bits_per_element"].get<double>(),
                   8.0 * (1 + 4 + 128) / 256);
  EXPECT_GT(lines[0]["encode_gb_per_s"].get<double>(), 0);
  EXPECT_GT(lines[0]["decode_gb_per_s"].get<double>(), 0);
  // The error is that of the file that was written.
  const std::vector<float> x = ReadValues("x.safetensors", "a");
  const std::vector<float> y = ReadValues("y.safetensors", "a");
  ASSERT_EQ(y.size(), x.size());
  double error = 0, norm = 0, sum = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    error += std::pow(double{y[i]} - x[i], 2);
    norm += double{x[i]} * x[i];
    sum += double{y[i]} - x[i];
  }
  EXPECT_NEAR(lines[0]["relative_rms_error"].get<double>(),
              std::sqrt(error / norm), 1e-12);
  EXPECT_NEAR(lines[0]["mean_error"].get<double>(), sum / 256, 1e-12);
  EXPECT_LT(lines[0]["relative_rms_error"].get<double>(), 0.12);
  EXPECT_EQ(lines[1]["tensor"], "b");
  // Other tensors are carried over.
  auto written = SafetensorsFile::Read(LabPath("y.safetensors"));
  ASSERT_TRUE(written.ok());
  auto ids = written->Tensor("ids");
  ASSERT_TRUE(ids.ok()) << ids.status();
  EXPECT_EQ(ids->Values<int64_t>()[2], 77);
  EXPECT_EQ(written->metadata().at("step"), "9");
}

TEST_F(LabTest, CodecWithoutJsonPrintsOneLineATensor) {
  WriteTensors("x.safetensors", 1, 0);

  const LabOutcome outcome = RunLabProgram(
      {"codec", "--codec", "none", "--in", LabPath("x.safetensors")});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_THAT(outcome.out, StartsWith("tensor=a elements=256 "
                                      "payload_bytes=1024 bits_per_element=32 "
                                      "relative_rms_error=0 mean_error=0 "));
  EXPECT_THAT(outcome.out, HasSubstr("\ntensor=b elements=100 "));
}

TEST_F(LabTest, CodecPrintsWhatAnErrorBoundSaysOfItself) {
  WriteTensors("x.safetensors", 1, 0);
  WriteTensors("m.safetensors", 1, 0.01f);
  const std::string input = LabPath("x.safetensors");
  const auto run = [&](std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), {"codec", "--in", input, "--codec"});
    return RunLabProgram(arguments);
  };

  for (const std::vector<std::string>& arguments :
       std::vector<std::vector<std::string>>{
           {"error_bound(abs=0.125)", "--json"},
           {"ef(error_bound(abs=0.125))", "--json"},
           {"delta(int(4),first=error_bound(abs=0.125))", "--json"},
           {"delta(error_bound(abs=0.125))", "--previous",
            LabPath("m.safetensors"), "--json"}}) {
    SCOPED_TRACE(arguments[0]);
    const LabOutcome outcome = run(arguments);
    ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
    const Json object = outcome.objects()[0];
    EXPECT_EQ(object["bound"], 0.125);
    const double largest = object["largest_error"].get<double>();
    EXPECT_GT(largest, 0);
    EXPECT_LE(largest, 0.125);
    EXPECT_GT(object["mean_square_error"].get<double>(), 0);
    EXPECT_LT(object["mean_square_error"].get<double>(), largest * largest);
  }
  EXPECT_THAT(run({"error_bound(abs=0.125)"}).out,
              HasSubstr(" not_finite=0 decoded_not_finite=0 bound=0.125 "
                        "largest_error=0.1"));
  EXPECT_FALSE(run({"int(4)", "--json"}).objects()[0].contains("bound"));
}

TEST_F(LabTest, DeltaAgainstPreviousTensorsIsSentAsTheSmallChange) {
  WriteTensors("m.safetensors", 1, 0);
  WriteTensors("x.safetensors", 1, 0.1f);

  const LabOutcome first =
      RunLabProgram({"codec", "--codec", "delta(int(4),first=int(8))", "--in",
                     LabPath("x.safetensors"), "--out",
                     LabPath("first.safetensors"), "--json"});
  const LabOutcome later = RunLabProgram(
      {"codec", "--codec", "delta(int(4),first=int(8))", "--in",
       LabPath("x.safetensors"), "--out", LabPath("later.safetensors"),
       "--previous", LabPath("m.safetensors"), "--json"});

  ASSERT_EQ(first.exit_code, 0) << first.err;
  ASSERT_EQ(later.exit_code, 0) << later.err;
  EXPECT_EQ(first.objects()[0]["payload_bytes"], 1 + 4 + 256);
  EXPECT_EQ(later.objects()[0]["payload_bytes"], 1 + 4 + 128);
  // 10 % change at 4 bits: about 1 % of error, bf16 storage included.
  EXPECT_LT(later.objects()[0]["relative_rms_error"].get<double>(), 0.02);
  // What is used is what is stored: bf16, on a first visit, too.
  for (const char* name : {"first.safetensors", "later.safetensors"}) {
    for (const float value : ReadValues(name, "a")) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      ASSERT_EQ(bits & 0xFFFF, 0u) << name;
    }
  }
}

TEST_F(LabTest, DeltaThatDoesNotPayIsSentAsTheValue) {
  WriteTensors("m.safetensors", 1, 0);
  WriteTensors("x.safetensors", 2, 0);  // has nothing to do with m

  const LabOutcome outcome =
      RunLabProgram({"codec", "--codec", "delta(int(4),first=int(8))", "--in",
                     LabPath("x.safetensors"), "--previous",
                     LabPath("m.safetensors"), "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.err;
  EXPECT_EQ(outcome.objects()[0]["payload_bytes"], 1 + 4 + 256);
  EXPECT_LT(outcome.objects()[0]["relative_rms_error"].get<double>(), 0.02);
}

TEST_F(LabTest, RecordsInFp32AreNotRounded) {
  WriteTensors("x.safetensors", 1, 0);
  const auto decode = [&](const std::string& codec) {
    const LabOutcome outcome = RunLabProgram({"codec", "--codec", codec, "--in",
                                              LabPath("x.safetensors"), "--out",
                                              LabPath("y.safetensors")});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return ReadValues("y.safetensors", "a");
  };

  EXPECT_EQ(decode("delta(int(4),first=int(8),store=fp32)"), decode("int(8)"));
  EXPECT_NE(decode("delta(int(4),first=int(8))"), decode("int(8)"));
}

TEST_F(LabTest, FirstErrorFeedbackIsTheCodecAlone) {
  WriteTensors("x.safetensors", 1, 0);

  const LabOutcome plain = RunLabProgram(
      {"codec", "--codec", "int(4)", "--in", LabPath("x.safetensors"), "--out",
       LabPath("plain.safetensors"), "--json"});
  const LabOutcome feedback = RunLabProgram(
      {"codec", "--codec", "ef(int(4))", "--in", LabPath("x.safetensors"),
       "--out", LabPath("feedback.safetensors"), "--json"});

  ASSERT_EQ(feedback.exit_code, 0) << feedback.err;
  EXPECT_EQ(feedback.objects()[0]["payload_bytes"],
            plain.objects()[0]["payload_bytes"]);
  EXPECT_EQ(ReadValues("feedback.safetensors", "a"),
            ReadValues("plain.safetensors", "a"));
}

TEST_F(LabTest, StochasticRoundingFollowsTheSeed) {
  WriteTensors("x.safetensors", 1, 0);
  const auto decode = [&](const std::string& seed) {
    const LabOutcome outcome =
        RunLabProgram({"codec", "--codec", "int(4,round=stochastic)", "--in",
                       LabPath("x.safetensors"), "--out",
                       LabPath("s.safetensors"), "--seed", seed});
    EXPECT_EQ(outcome.exit_code, 0) << outcome.err;
    return ReadValues("s.safetensors", "a");
  };

  const std::vector<float> first = decode("1");

  EXPECT_EQ(decode("1"), first);
  EXPECT_NE(decode("2"), first);
}

TEST_F(LabTest, CodecsListsEveryCodecWithParametersAndPaper) {
  const LabOutcome outcome = RunLabProgram({"codecs", "--json"});

  ASSERT_EQ(outcome.exit_code, 0);
  std::set<std::string> names;
  for (const Json& line : outcome.objects()) {
    names.insert(line["codec"]);
    EXPECT_FALSE(line["paper"].get<std::string>().empty()) << line;
    EXPECT_TRUE(line["parameters"].is_array()) << line;
    if (line["codec"] == "int") {
      EXPECT_EQ(line["parameters"][0]["range"], "1..8");
      EXPECT_EQ(line["parameters"][1]["default"], "64");
      EXPECT_EQ(line["parameters"][2]["range"], "nearest|stochastic");
    }
  }
  std::set<std::string> expected;
  for (const CodecInfo& info : AllCodecs()) {
    expected.insert(std::string(info.name));
  }
  EXPECT_EQ(names, expected);
  EXPECT_THAT(names, IsSupersetOf({"none", "int", "delta", "ef"}));
  EXPECT_THAT(RunLabProgram({"codecs"}).out,
              HasSubstr("bits = 1..8 (required): bits per value"));
}

TEST_F(LabTest, HelpOfEveryVerbHasExamples) {
  for (const std::string verb :
       {"codec", "codecs", "optimizer", "stragglers", "sweep"}) {
    const LabOutcome outcome = RunLabProgram({verb, "--help"});

    EXPECT_EQ(outcome.exit_code, 0) << verb;
    EXPECT_THAT(outcome.out, HasSubstr("Examples:")) << verb;
    EXPECT_THAT(outcome.out, HasSubstr("deltapipe lab " + verb));
  }
}

TEST_F(LabTest, MistakesAreOneSentenceAndExitCode2) {
  WriteTensors("x.safetensors", 1, 0);
  std::ofstream(LabPath("bad.safetensors"), std::ios::binary) << "not a tensor";
  const auto expect = [&](const std::vector<std::string>& arguments,
                          const std::string& text) {
    const LabOutcome outcome = RunLabProgram(arguments);
    EXPECT_EQ(outcome.exit_code, 2) << outcome.err;
    EXPECT_THAT(outcome.out, IsEmpty());
    EXPECT_THAT(outcome.err, StartsWith("deltapipe-lab: "));
    EXPECT_THAT(outcome.err, HasSubstr(text));
    EXPECT_EQ(std::count(outcome.err.begin(), outcome.err.end(), '\n'), 1);
  };

  expect({}, "--help");
  expect({"codek"}, "--help");
  expect({"codec", "--in", LabPath("x.safetensors")}, "--codec");
  expect({"codec", "--codec", "itn(4)", "--in", LabPath("x.safetensors")},
         "did you mean 'int'?");
  expect({"codec", "--codec", "int(4)", "--in", LabPath("none.safetensors")},
         "none.safetensors");
  expect({"codec", "--codec", "int(4)", "--in", LabPath("bad.safetensors")},
         "bad.safetensors");
  expect({"codec", "--codec", "int(4)", "--in", LabPath("x.safetensors"),
          "--previous", LabPath("x.safetensors")},
         "--previous needs a delta(...) codec");
  expect({"codec", "--codec", "delta(int(4))", "--in", LabPath("x.safetensors"),
          "--previous", LabPath("bad.safetensors")},
         "bad.safetensors");
}

TEST_F(LabTest, AnUnwritableOutputIsExitCode2) {
  WriteTensors("x.safetensors", 1, 0);

  const LabOutcome outcome = RunLabProgram(
      {"codec", "--codec", "int(4)", "--in", LabPath("x.safetensors"), "--out",
       LabPath("no/such/folder/y.safetensors")});

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.err, HasSubstr("no/such/folder"));
}

}  // namespace
}  // namespace deltapipe
