// `deltapipe render` as a program: exit codes, streams, help. What it renders
// is checked by deploy/kubernetes:render_test.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <string>

#include "base/file.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

struct Outcome {
  int exit_code = -1;
  std::string output;
  std::string errors;
};

/// Runs `deltapipe render ARGUMENTS`, in shell syntax.
Outcome Render(const std::string& arguments) {
  const char* const folder = std::getenv("TEST_TMPDIR");
  const std::string files = std::string(folder != nullptr ? folder : "/tmp") +
                            "/" + std::to_string(getpid());
  const std::string command = "coordinator/cli/deltapipe render " + arguments +
                              " >" + files + ".out 2>" + files +
                              ".err </dev/null";
  Outcome outcome;
  const int status = std::system(command.c_str());
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  outcome.output = ReadFile(files + ".out").value_or("");
  outcome.errors = ReadFile(files + ".err").value_or("");
  return outcome;
}

TEST(RenderTest, PrintsYamlForKubectlAndDoubtsBesideIt) {
  const Outcome outcome = Render("examples/text.yaml");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(StartsWith("apiVersion: v1\nkind: ConfigMap\n"),
                    HasSubstr("\n---\napiVersion: batch/v1\nkind: Job\n"),
                    HasSubstr("\n  completions: 4\n")));
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("data.path 'corpus/austen.txt' is relative"),
                    HasSubstr("parallel.threads is 0")));
}

TEST(RenderTest, WellPreparedJobRaisesNoDoubt) {
  const Outcome outcome = Render(
      "examples/text.yaml --data-claim corpus "
      "--set data.path=/data/austen.txt --set parallel.threads=1");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST(RenderTest, JsonIsOneListThatKubectlReadsToo) {
  const Outcome outcome = Render(
      "examples/text.yaml --json --checkpoint-time 90500ms --queue research");

  EXPECT_EQ(outcome.exit_code, 0);
  const auto list = nlohmann::json::parse(outcome.output, nullptr, false);
  ASSERT_TRUE(list.is_object()) << outcome.output;
  EXPECT_EQ(list["schema"], "deltapipe.cli.Manifests");
  EXPECT_EQ(list["kind"], "List");
  ASSERT_EQ(list["items"].size(), 4u);
  EXPECT_EQ(list["items"][3]["spec"]["template"]["spec"]
                ["terminationGracePeriodSeconds"],
            182);
}

TEST(RenderTest, MistakesInTheSpecAreNamedAndNothingIsPrinted) {
  const Outcome outcome = Render("examples/text.yaml --set train.batch=0");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(outcome.errors, HasSubstr("train.batch"));
}

TEST(RenderTest, OptionsThatKubernetesWouldRefuseAreNamed) {
  const Outcome outcome =
      Render("examples/text.yaml --image worker:latest --memory lots");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("image: expected a tag other than 'latest'"),
                    HasSubstr("memory: expected a quantity such as 16Gi")));
}

TEST(RenderTest, TimeWithoutAUnitIsRefused) {
  const Outcome outcome = Render("examples/text.yaml --checkpoint-time soon");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("--checkpoint-time: "));
}

TEST(RenderTest, MissingSpecIsNamed) {
  const Outcome outcome = Render("nowhere.yaml");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("nowhere.yaml"));
}

TEST(RenderTest, HelpHasExamples) {
  const Outcome outcome = Render("--help");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("Examples:"), HasSubstr("| kubectl apply -f -")));
}

}  // namespace
}  // namespace deltapipe
