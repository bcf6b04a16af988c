// The program itself, as far as it goes without workers: usage, help, bad
// specs, exit codes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "absl/strings/string_view.h"
#include "base/file.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::IsSupersetOf;
using ::testing::StartsWith;

struct Outcome {
  int exit_code = -1;
  std::string output;
  std::string errors;
};

/// Where this test may write.
std::string Folder() {
  const char* folder = std::getenv("TEST_TMPDIR");
  return folder != nullptr ? folder : "/tmp";
}

/// Runs `deltapipe ARGUMENTS`, in shell syntax, from Folder(); its stdout goes
/// to the file `output` if one is named.
Outcome Deltapipe(const std::string& arguments,
                  const std::string& output = "") {
  char here[4096];
  EXPECT_NE(getcwd(here, sizeof(here)), nullptr);
  const std::string files = Folder() + "/" + std::to_string(getpid());
  const std::string command = "cd " + Folder() +
                              " && DELTAPIPE_COORDINATOR= " + here +
                              "/coordinator/cli/deltapipe " + arguments + " >" +
                              (output.empty() ? files + ".out" : output) +
                              " 2>" + files + ".err </dev/null";
  Outcome outcome;
  const int status = std::system(command.c_str());
  outcome.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : -1;
  if (output.empty()) {
    outcome.output = ReadFile(files + ".out").value_or("");
  }
  outcome.errors = ReadFile(files + ".err").value_or("");
  return outcome;
}

/// The verbs that a help lists, without those of verbs; none if it is no group.
std::vector<std::string> VerbsIn(const std::string& help) {
  std::vector<std::string> verbs;
  bool lists_verbs = false;
  for (const absl::string_view line : absl::StrSplit(help, '\n')) {
    if (line == "Subcommands:") {
      lists_verbs = true;
    } else if (!absl::StartsWith(line, "  ")) {
      lists_verbs = false;
    } else if (lists_verbs && line[2] != ' ') {
      const absl::string_view name = line.substr(2);
      verbs.emplace_back(name.substr(0, name.find(' ')));
    }
  }
  return verbs;
}

/// Every verb below `verb` ("" or "worker "), groups before what is in them.
void WalkVerbs(const std::string& verb, std::vector<std::string>* all) {
  // What lab knows is another program's (lab_test.cc).
  if (verb == "lab ") return;
  const Outcome outcome = Deltapipe(verb + "--help");
  EXPECT_EQ(outcome.exit_code, 0) << verb;
  for (const std::string& inner : VerbsIn(outcome.output)) {
    all->push_back(verb + inner);
    WalkVerbs(verb + inner + " ", all);
  }
}

TEST(CommandLineTest, HelpOfEveryVerbHasExamples) {
  std::vector<std::string> verbs;
  WalkVerbs("", &verbs);

  // Of each level of the tree.
  EXPECT_THAT(verbs, IsSupersetOf({"run", "worker", "worker drain", "trace",
                                   "checkpoint create", "token revoke",
                                   "job audit", "completion"}));
  for (const std::string& verb : verbs) {
    if (verb == "lab") continue;
    const Outcome outcome = Deltapipe(verb + " --help");
    EXPECT_EQ(outcome.exit_code, 0) << verb;
    EXPECT_THAT(outcome.output,
                AllOf(HasSubstr("Examples:"), HasSubstr("deltapipe " + verb)))
        << verb;
    EXPECT_THAT(outcome.errors, IsEmpty());
  }
}

TEST(CommandLineTest, EveryVerbHasJsonExceptThoseWithoutData) {
  std::vector<std::string> verbs;
  WalkVerbs("", &verbs);

  for (const std::string& verb : verbs) {
    const std::string help = Deltapipe(verb + " --help").output;
    // Groups; a script for a shell; and lab, whose verbs have it.
    if (!VerbsIn(help).empty() || verb == "completion" || verb == "lab") {
      continue;
    }
    EXPECT_THAT(help, HasSubstr("--json")) << verb;
  }
}

TEST(CommandLineTest, HelpListsVerbsAndExitCodes) {
  const Outcome outcome = Deltapipe("--help");

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("  run "), HasSubstr("  completion "),
                    HasSubstr("130 interrupted")));
}

TEST(CommandLineTest, NoVerbIsAUsageErrorWithTheHelp) {
  const Outcome outcome = Deltapipe("");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(outcome.errors, HasSubstr("Subcommands:"));
}

struct Mistake {
  const char* arguments;
  const char* complaint;
};

class MistakeTest : public ::testing::TestWithParam<Mistake> {};

TEST_P(MistakeTest, IsAUsageErrorWithTheNearestName) {
  const Outcome outcome = Deltapipe(GetParam().arguments);

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(outcome.errors, StartsWith("error: "));
  EXPECT_THAT(outcome.errors, HasSubstr(GetParam().complaint));
}

INSTANTIATE_TEST_SUITE_P(
    All, MistakeTest,
    ::testing::Values(
        Mistake{"rnu", "unknown verb 'rnu' (did you mean 'run'?)"},
        Mistake{"run job.yaml --jsn",
                "unknown flag --jsn (did you mean '--json'?)"},
        Mistake{"run job.yaml --sett=a=b",
                "unknown flag --sett (did you mean '--set'?)"},
        Mistake{"run", "SPEC is required"},
        Mistake{"run a.yaml b.yaml", "unexpected argument 'b.yaml'"},
        Mistake{"worker lss", "unknown verb 'lss' (did you mean 'ls'?)"},
        Mistake{"logs job --tail -3",
                "--tail: expected a whole number from 0 to 2147483647, got "
                "'-3'; see deltapipe logs --help\n"},
        Mistake{"compare job.yaml --steps x", "--steps: expected a whole"},
        Mistake{"lab foo", "unknown verb 'foo'; see deltapipe lab --help"},
        Mistake{"lab codek", "unknown verb 'codek' (did you mean 'codec'?)"},
        Mistake{"ls --coordinator ''", "HOST:PORT with a port from 1 to 65535"},
        Mistake{"ls --coordinator host-a",
                "such as 127.0.0.1:7707, got 'host-"},
        Mistake{"describe x --coordinator host-a:99999", "got 'host-a:99999'"},
        Mistake{"version --coordinator host-a:0", "got 'host-a:0'"},
        Mistake{"coordinator --listen 7707", "such as 127.0.0.1:7707"},
        Mistake{"coordinator --launch docker", "--launch: "},
        Mistake{"coordinator --worker-image a:1", "--launch"},
        Mistake{"coordinator --launch kubernetes --kube-server "
                "http://127.0.0.1:1 --worker-image worker",
                "--launch kubernetes: image: expected a tag"},
        Mistake{"coordinator --launch kubernetes --kube-server "
                "http://127.0.0.1:1 --worker-checkpoint-time soon",
                "--worker-checkpoint-time: "},
        Mistake{"coordinator --launch kubernetes --kube-server "
                "http://10.0.0.1:80",
                "would get the token in plain text"},
        Mistake{"describe $(printf 'text-\\377')",
                "argument 2 is not UTF-8 at 'text-\\xff'"},
        Mistake{"cancel text-1 --reason=$(printf '\\377')",
                "argument 3 is not UTF-8"},
        Mistake{"run $(printf '\\377').yaml", "argument 2 is not UTF-8"},
        Mistake{"completion tcsh", "tcsh"},
        Mistake{"completion bash --json", "unknown flag --json"},
        Mistake{"events text-1 -w --reconnect-for soon",
                "--reconnect-for: duration 'soon': "},
        Mistake{"events text-1 --reconnect-for 5s", "--watch"},
        Mistake{"submit a.yaml -d --reconnect-for 5s", "--detach"},
        Mistake{"trace", "JOB is required"},
        Mistake{"trace text-1 --steps 101", "--steps: "},
        Mistake{"metrics", "JOB is required"},
        Mistake{"checkpoint create", "JOB is required"},
        Mistake{"job audit", "JOB is required"},
        Mistake{"token create", "--name is required"},
        Mistake{"token revoke", "TOKEN is required"},
        Mistake{"token create --name a --scope king", "king"},
        Mistake{"token create --name a --expires soon", "soon"},
        Mistake{"run nowhere.yaml", "cannot read nowhere.yaml"}));

TEST(CommandLineTest, BadSpecListsEverythingAndStartsNothing) {
  ASSERT_TRUE(WriteFileAtomically(Folder() + "/bad.yaml",
                                  "name: bad\n"
                                  "data: {path: missing.txt}\n"
                                  "train: {stepps: 3, batch: 0}\n")
                  .ok());

  const Outcome outcome =
      Deltapipe("run bad.yaml --set seed=x --runs bad-runs");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(
      outcome.errors,
      ContainsRegex("bad.yaml:2:14: error: data.path: .*'missing.txt', which "
                    "does not exist"));
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("bad.yaml:3:9: error: train.stepps: unknown"),
                    HasSubstr("bad.yaml:3:27: error: train.batch: expected"),
                    HasSubstr("--set seed=x: error: seed: expected a number"),
                    HasSubstr("4 mistakes in bad.yaml; nothing was started")));
  EXPECT_NE(access((Folder() + "/bad-runs").c_str(), F_OK), 0);
}

TEST(CommandLineTest, VersionIsDataOnStdout) {
  const Outcome text = Deltapipe("version");
  const Outcome json = Deltapipe("version --json");

  EXPECT_EQ(text.exit_code, 0);
  EXPECT_THAT(text.output, ContainsRegex("^deltapipe [0-9]+[.][0-9]+"));
  EXPECT_THAT(json.output,
              StartsWith("{\"schema\":\"deltapipe.v1.Version\",\"version\":"));
}

TEST(CommandLineTest, OutputThatDoesNotArriveIsAnError) {
  for (const char* arguments : {"version", "completion bash", "--help"}) {
    const Outcome outcome = Deltapipe(arguments, "/dev/full");

    EXPECT_EQ(outcome.exit_code, 1) << arguments;
    EXPECT_THAT(outcome.errors, StartsWith("error: cannot write to stdout"));
  }
}

TEST(CommandLineTest, PlanRefusesALimitThatLeavesTooLittleOfACorpus) {
  ASSERT_TRUE(WriteFileAtomically(Folder() + "/limited.txt",
                                  std::string(60000, 'a') + "\n")
                  .ok());
  ASSERT_TRUE(WriteFileAtomically(Folder() + "/limited.yaml",
                                  "name: limited\n"
                                  "data: {path: limited.txt, limit: 20B}\n")
                  .ok());

  const Outcome outcome = Deltapipe("plan limited.yaml");

  EXPECT_EQ(outcome.exit_code, 2);
  EXPECT_THAT(outcome.errors, HasSubstr("error: data.limit: "));
}

TEST(CommandLineTest, MissingRunIsNotFound) {
  EXPECT_EQ(Deltapipe("sample nobody --prompt x").exit_code, 3);
}

TEST(CommandLineTest, TokensOfNoCoordinatorAreNotFound) {
  for (const char* arguments :
       {"token ls", "token create --name ann", "token revoke 3f9c2a1b"}) {
    const Outcome outcome =
        Deltapipe(std::string(arguments) + " --store nowhere/coordinator.db");

    EXPECT_EQ(outcome.exit_code, 3) << arguments << ": " << outcome.errors;
    EXPECT_THAT(outcome.output, IsEmpty());
    EXPECT_THAT(outcome.errors, StartsWith("error: "));
  }
}

TEST(CommandLineTest, MissingLabProgramNamesTheRemedy) {
  const Outcome outcome = Deltapipe("lab codecs --json");

  EXPECT_EQ(outcome.exit_code, 3);
  EXPECT_THAT(outcome.errors,
              AllOf(HasSubstr("deltapipe-lab"), HasSubstr("scripts/build")));
}

TEST(CommandLineTest, CompletionKnowsEveryVerb) {
  const Outcome bash = Deltapipe("completion bash");
  const Outcome fish = Deltapipe("completion fish");

  EXPECT_EQ(bash.exit_code, 0);
  EXPECT_THAT(bash.output, AllOf(HasSubstr("words=\"run compare plan"),
                                 HasSubstr("complete -o filenames")));
  EXPECT_THAT(fish.output, HasSubstr("-a submit -d '"));
  EXPECT_THAT(Deltapipe("completion zsh").output,
              StartsWith("#compdef deltapipe"));
}

}  // namespace
}  // namespace deltapipe
