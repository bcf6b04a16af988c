// `deltapipe lab`: codecs on files.
#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class LabTest : public testing::Test {
 protected:
  void SetUp() override {
    // Real tensors: the weights of a short run.
    const Outcome run =
        bench_.Run({"run", "job.yaml", "--set", "parallel.replicas=1", "--set",
                    "train.steps=2"});
    ASSERT_EQ(run.exit_code, 0) << run.text;
    model_ = "runs/small/model.safetensors";
  }

  Workbench bench_;
  std::string model_;
};

TEST_F(LabTest, CodecPrintsOneObjectPerTensorAndWritesTheResult) {
  const Outcome outcome =
      bench_.Run({"lab", "codec", "--codec", "int(4)", "--in", model_, "--out",
                  "restored.safetensors", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const std::vector<nlohmann::json> objects = outcome.Objects();
  ASSERT_THAT(objects, Not(IsEmpty())) << outcome.text;
  for (const nlohmann::json& object : objects) {
    if (!object.contains("tensor")) continue;
    for (const char* field :
         {"elements", "payload_bytes", "bits_per_element", "relative_rms_error",
          "mean_error", "encode_gb_per_s", "decode_gb_per_s"}) {
      EXPECT_TRUE(object.contains(field)) << field << " in " << object;
    }
    EXPECT_LT(object.value("relative_rms_error", 1.0), 0.25) << object;
  }
  EXPECT_TRUE(bench_.Has("restored.safetensors"));
}

TEST_F(LabTest, NoneRestoresEveryBit) {
  const Outcome outcome =
      bench_.Run({"lab", "codec", "--codec", "none", "--in", model_, "--out",
                  "same.safetensors", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  for (const nlohmann::json& object : outcome.Objects()) {
    if (!object.contains("tensor")) continue;
    EXPECT_EQ(object.value("relative_rms_error", 1.0), 0) << object;
    EXPECT_EQ(object.value("bits_per_element", 0.0), 32) << object;
  }
}

TEST_F(LabTest, CodecsListsEveryRowWithItsSource) {
  const Outcome outcome = bench_.Run({"lab", "codecs"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
  for (const char* part : {"none", "cast", "int", "sign", "delta", "ef", "1..8",
                           "2206.01299", "2104.06069"}) {
    EXPECT_THAT(outcome.output, HasSubstr(part));
  }
}

TEST_F(LabTest, SavedListsPoliciesAndShowsAStage) {
  const Outcome policies = bench_.Run({"lab", "saved"});
  const Outcome stage =
      bench_.Run({"lab", "saved", "job.yaml", "--policy", "fixed(int(4))",
                  "--stage", "1", "--explain", "3"});
  const Outcome objects = bench_.Run(
      {"lab", "saved", "job.yaml", "--policy", "fixed(int(4))", "--json"});
  const Outcome compared =
      bench_.Run({"lab", "saved", "job.yaml", "--compare", "fixed(int(4))",
                  "--compare", "recompute(every=1)", "--batch"});
  const Outcome wrong =
      bench_.Run({"lab", "saved", "job.yaml", "--policy", "fixd(int(4))"});

  EXPECT_EQ(policies.exit_code, 0) << policies.text;
  EXPECT_THAT(policies.output, HasSubstr("2104.14129"));
  EXPECT_EQ(stage.exit_code, 0) << stage.text;
  EXPECT_THAT(stage.output, HasSubstr("the 3 largest"));
  EXPECT_THAT(stage.output, HasSubstr(" gelu/0 "));
  ASSERT_EQ(objects.exit_code, 0) << objects.text;
  EXPECT_EQ(objects.Objects().back()["schema"], "deltapipe.lab.SavedSums");
  EXPECT_EQ(compared.exit_code, 0) << compared.text;
  EXPECT_THAT(compared.output, HasSubstr("BATCH   PACE"));
  // What fits without computing again fits with it.
  EXPECT_THAT(compared.output,
              ::testing::ContainsRegex("recompute.every=1.[^\n]* [1-9][0-9]* "
                                       "+[0-9]+[.][0-9][0-9]\n"));
  EXPECT_EQ(wrong.exit_code, 2) << wrong.text;
  EXPECT_THAT(wrong.text, HasSubstr("did you mean 'fixed'"));
}

TEST_F(LabTest, SavedShowsBitsAndProbedErrorsWithinAHundredColumns) {
  const Outcome table = bench_.Run(
      {"lab", "saved", "job.yaml", "--policy", "fixed(int(4))", "--explain"});
  const Outcome objects = bench_.Run(
      {"lab", "saved", "job.yaml", "--policy", "fixed(int(4))", "--json"});

  ASSERT_EQ(table.exit_code, 0) << table.text;
  EXPECT_THAT(table.output,
              ::testing::ContainsRegex("\nLAYER +OPERATOR +SHAPE +CLASS +BITS +"
                                       "RAW +KEPT +ERROR +SHARED HOW\n"));
  EXPECT_THAT(table.output,
              ::testing::ContainsRegex(
                  "\nblocks.[0-9]+ +gelu/0 +[0-9x]+ +activation +4[.][0-9]+ "
                  "+[0-9.]+ [kM]?B +[0-9.]+ [kM]?B +[0-9.e-]+ +[0-9]+"));
  std::istringstream lines(table.output);
  for (std::string line; std::getline(lines, line);) {
    EXPECT_LE(line.size(), 100u) << line;
  }
  ASSERT_EQ(objects.exit_code, 0) << objects.text;
  int num_packed = 0;
  for (const nlohmann::json& object : objects.Objects()) {
    if (object["schema"] != "deltapipe.lab.SavedTensor") continue;
    ASSERT_TRUE(object.contains("error")) << object;
    if (object["operator"] != "gelu") continue;
    ++num_packed;
    EXPECT_NEAR(object.value("bits", 0.0), 4, 0.5) << object;
    EXPECT_GT(object.value("error", 0.0), 0) << object;
  }
  EXPECT_GT(num_packed, 0);
}

TEST_F(LabTest, SavedNamesTheStageThatABudgetIsTooSmallFor) {
  const Outcome outcome =
      bench_.Run({"lab", "saved", "job.yaml", "--policy", "auto(0.001)",
                  "--stage", "1", "--explain"});

  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("stage 1: "));
  EXPECT_THAT(outcome.errors, HasSubstr("auto(0.001) is too small"));
  EXPECT_THAT(outcome.errors, HasSubstr("is the smallest budget that works"));
}

TEST_F(LabTest, SweepPrintsARowPerCodecAndWritesTableAndPlot) {
  const Outcome outcome =
      bench_.Run({"lab", "sweep", "--in", model_, "--codecs", "int(4)", "none",
                  "--out", "table.json", "--plot", "plot.svg", "--json"});

  ASSERT_EQ(outcome.exit_code, 0) << outcome.text;
  const std::vector<nlohmann::json> objects = outcome.Objects();
  ASSERT_EQ(objects.size(), 2u) << outcome.text;
  EXPECT_EQ(objects[0].value("codec", ""), "int(4)");
  EXPECT_EQ(objects[1].value("codec", ""), "none");
  EXPECT_EQ(objects[1].value("relative_rms_error", 1.0), 0);
  EXPECT_TRUE(bench_.Has("table.json"));
  EXPECT_TRUE(bench_.Has("plot.svg"));
}

TEST_F(LabTest, ATypoInACodecIsAUsageError) {
  const Outcome outcome =
      bench_.Run({"lab", "codec", "--codec", "imt(4)", "--in", model_, "--out",
                  "y.safetensors"});

  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("int"));
  EXPECT_FALSE(bench_.Has("y.safetensors"));
}

}  // namespace
}  // namespace deltapipe
