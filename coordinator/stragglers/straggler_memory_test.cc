#include "coordinator/stragglers/straggler_memory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::SizeIs;

StragglerMemory Memory() {
  StragglerMemory memory;
  memory.generation = 7;
  memory.last_step = 120;
  StragglerFinding finding;
  finding.scope = {1, 0};
  finding.cause = StragglerCause::kInput;
  finding.shift = 0.1 + 0.2;
  finding.seconds_lost_per_step = 1.0 / 3;
  finding.since_step = 80;
  memory.findings = {finding};
  memory.found_millis = {1700000000123};
  memory.baselines = {
      {{0, 0}, StragglerCause::kGradientLink, {0.25, 1e-9}},
  };
  WhatIfReport report;
  report.step_seconds = 2.5;
  report.ideal_seconds = 2;
  report.stage_scores = {1, 1.25};
  report.replica_scores = {1.125};
  report.worst = {1, 0};
  report.best_fix = {1, -1};
  report.best_fix_seconds = 0.5;
  memory.report = report;
  return memory;
}

TEST(StragglerMemoryTest, TextHoldsAllToTheLastBit) {
  const StragglerMemory memory = Memory();

  const auto read = ReadStragglerMemory(StragglerMemoryText(memory), 2, 1);

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->generation, 7u);
  EXPECT_EQ(read->last_step, 120);
  ASSERT_THAT(read->findings, SizeIs(1));
  EXPECT_EQ(read->findings[0].scope, (WorkerScope{1, 0}));
  EXPECT_EQ(read->findings[0].cause, StragglerCause::kInput);
  EXPECT_EQ(read->findings[0].shift, 0.1 + 0.2);
  EXPECT_EQ(read->findings[0].seconds_lost_per_step, 1.0 / 3);
  EXPECT_EQ(read->findings[0].since_step, 80);
  EXPECT_THAT(read->found_millis, ElementsAre(1700000000123));
  ASSERT_THAT(read->baselines, SizeIs(1));
  EXPECT_EQ(read->baselines[0].cause, StragglerCause::kGradientLink);
  EXPECT_THAT(read->baselines[0].seconds, ElementsAre(0.25, 1e-9));
  ASSERT_TRUE(read->report.has_value());
  EXPECT_THAT(read->report->stage_scores, ElementsAre(1, 1.25));
  EXPECT_EQ(read->report->best_fix, (WorkerScope{1, -1}));
  EXPECT_EQ(StragglerMemoryText(*read), StragglerMemoryText(memory));
}

TEST(StragglerMemoryTest, NothingKnownIsNoText) {
  EXPECT_EQ(StragglerMemoryText(StragglerMemory()), "");
}

TEST(StragglerMemoryTest, WhatDoesNotFitIsNamed) {
  const std::string good = StragglerMemoryText(Memory());
  const auto changed = [&good](const char* from, const char* to) {
    const std::string text = absl::StrReplaceAll(good, {{from, to}});
    EXPECT_NE(text, good) << from;
    return text;
  };
  const std::pair<std::string, const char*> cases[] = {
      {"", "'generation'"},
      {"[1]", "'generation'"},
      {good.substr(0, good.size() / 2), "'generation'"},
      {changed("\"last_step\":120", "\"last_step\":1.5"), "'last_step'"},
      {changed("\"findings\":[", "\"findings\":[3,"), "'scope'"},
      {changed("\"scope\":[1,0]", "\"scope\":[2,0]"), "'scope'"},
      {changed("\"scope\":[1,0]", "\"scope\":[1]"), "'scope'"},
      {changed("\"cause\":3", "\"cause\":6"), "'cause'"},
      {changed("\"seconds\":[0.25", "\"seconds\":[null"), "'seconds'"},
      {changed("[1.0,1.25]", "[1.0]"), "'stage_scores'"},
      {changed("\"best_fix\":[1,-1]", "\"best_fix\":[1,-2]"), "'best_fix'"},
  };
  for (const auto& [text, why] : cases) {
    const absl::Status status = ReadStragglerMemory(text, 2, 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
    EXPECT_THAT(std::string(status.message()), HasSubstr(why)) << text;
  }
}

}  // namespace
}  // namespace deltapipe
