// What a user gets for a mistake: every violation at once, exit code 2, and
// nothing started.
#include <chrono>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/support/process.h"
#include "tests/support/workbench.h"

namespace deltapipe {
namespace {

using std::chrono::seconds;
using testing::AllOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::IsEmpty;

/// `run` refuses, says all of `parts`, and has touched nothing.
void ExpectRefused(Workbench* bench, const std::vector<std::string>& arguments,
                   const std::vector<std::string>& parts) {
  std::vector<std::string> command = {"run"};
  command.insert(command.end(), arguments.begin(), arguments.end());
  const Outcome outcome = bench->Run(command);
  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  for (const std::string& part : parts) {
    EXPECT_THAT(outcome.errors, HasSubstr(part));
  }
  EXPECT_FALSE(bench->Has("runs")) << outcome.text;
  EXPECT_THAT(WaitForNoneMarked(bench->mark(), seconds(1)), IsEmpty());
}

struct Mistake {
  const char* name;
  const char* setting;
  const char* complaint;
};

class BadSettingTest : public testing::TestWithParam<Mistake> {};

TEST_P(BadSettingTest, IsRefusedByNameBeforeAnythingStarts) {
  Workbench bench;
  ExpectRefused(&bench, {"job.yaml", "--set", GetParam().setting},
                {GetParam().complaint});
}

INSTANTIATE_TEST_SUITE_P(
    Mistakes, BadSettingTest,
    testing::Values(
        Mistake{"UnknownField", "train.stepps=3", "did you mean"},
        Mistake{"WrongType", "train.steps=many", "train.steps"},
        Mistake{"ImpossibleValue", "train.batch=0", "train.batch"},
        Mistake{"BatchNotDivisible", "train.batch=15", "batch"},
        Mistake{"MoreStagesThanLayers", "parallel.stages=5", "parallel.stages"},
        Mistake{"WidthNotDivisibleByHeads", "model.heads=3", "model"},
        Mistake{"CodecTypo", "compression.activations=delta(imt(4))", "int"},
        Mistake{"CodecRange", "compression.activations=int(9)", "1..8"},
        Mistake{"BareMbps", "network.emulate.bandwidth=100mbps", "Mbit/s"},
        Mistake{"UnknownOptimizer", "train.optimizer.kind=adamx", "adamw"},
        Mistake{"MissingCorpus", "data.path=nowhere.txt", "nowhere.txt"}),
    [](const testing::TestParamInfo<Mistake>& info) {
      return info.param.name;
    });

TEST(BadSpecTest, AnInjectionIntoAReplicaThatIsNotThereIsRefused) {
  Workbench bench;
  ExpectRefused(&bench, {"job.yaml", "--inject", "slow:rank=9,x=2"},
                {"stragglers.inject", "9"});
}

TEST(BadSpecTest, AllViolationsComeAtOnceWithTheirPlaces) {
  Workbench bench;
  bench.Write("bad.yaml", R"yaml(name: bad
model: {kind: gpt, layers: 4, width: 32, heads: 2, context: 32}
data: {path: text.txt}
train:
  stepps: 8
  batch: 0
  optimizer: {kind: adamv}
compression: {activations: "intt(4)"}
)yaml");

  ExpectRefused(&bench, {"bad.yaml"},
                {"bad.yaml:5:3: error: train.stepps", "bad.yaml:6:10: error:",
                 "train.batch", "train.optimizer.kind", "adamw",
                 "bad.yaml:8:", "compression.activations", "did you mean"});
}

TEST(BadSpecTest, AFileThatIsNoYamlIsNamedWithLineAndColumn) {
  Workbench bench;
  bench.Write("broken.yaml", "name: x\nmodel: {kind: gpt\n");

  const Outcome outcome = bench.Run({"run", "broken.yaml"});

  EXPECT_EQ(outcome.exit_code, 2) << outcome.text;
  EXPECT_THAT(outcome.errors, ContainsRegex("broken.yaml:[0-9]+:[0-9]+: "));
}

TEST(BadSpecTest, AMissingFileIsNamed) {
  Workbench bench;

  const Outcome outcome = bench.Run({"run", "absent.yaml"});

  EXPECT_THAT(outcome.exit_code, testing::AnyOf(2, 3)) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("absent.yaml"));
}

TEST(BadSpecTest, AnEmptyCorpusIsRefused) {
  Workbench bench;
  bench.Write("text.txt", "");
  ExpectRefused(&bench, {"job.yaml"}, {"text.txt", "empty"});
}

TEST(BadSpecTest, ATinyCorpusIsRefused) {
  Workbench bench;
  bench.Write("text.txt", "short");
  ExpectRefused(&bench, {"job.yaml"}, {"data.path", "at least", "got 5"});
}

TEST(BadSpecTest, BinaryGarbageIsNotTakenForText) {
  Workbench bench;
  std::string garbage(30000, '\0');
  for (size_t i = 0; i < garbage.size(); ++i) {
    garbage[i] = static_cast<char>((i * i * 2654435761u) >> 7);
  }
  bench.Write("text.txt", garbage);
  ExpectRefused(&bench, {"job.yaml"}, {"text.txt"});
}

TEST(BadSpecTest, AnUnwritableFolderIsNamedWithTheRemedy) {
  Workbench bench;
  // A file where the folder of runs belongs: refused whoever asks, root too.
  bench.Write("runs", "in the way");

  const Outcome outcome = bench.Run({"run", "job.yaml"});

  EXPECT_NE(outcome.exit_code, 0) << outcome.text;
  EXPECT_THAT(outcome.errors, HasSubstr("runs"));
  EXPECT_THAT(outcome.errors, HasSubstr("choose another path"));
  EXPECT_THAT(WaitForNoneMarked(bench.mark(), seconds(2)), IsEmpty());
}

TEST(BadUsageTest, UnknownVerbsAndFlagsAreUsageErrors) {
  Workbench bench;

  EXPECT_EQ(bench.Run({"rum", "job.yaml"}).exit_code, 2);
  EXPECT_EQ(bench.Run({"run", "job.yaml", "--jsn"}).exit_code, 2);
  EXPECT_EQ(bench.Run({"run"}).exit_code, 2);
  EXPECT_EQ(bench.Run({"run", "job.yaml", "--set", "nonsense"}).exit_code, 2);
}

TEST(BadUsageTest, ACoordinatorThatIsNotThereIsUnreachable) {
  Workbench bench;

  const Outcome outcome = bench.Run({"ls", "--coordinator", "127.0.0.1:1"});

  EXPECT_EQ(outcome.exit_code, 5) << outcome.text;
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("127.0.0.1:1"),
                    HasSubstr("start one with 'deltapipe coordinator'")));
}

}  // namespace
}  // namespace deltapipe
