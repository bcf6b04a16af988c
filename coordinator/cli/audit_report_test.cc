#include "coordinator/cli/audit_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/sample_ledger.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ContainsRegex;
using ::testing::HasSubstr;

LedgerAudit Audit(int64_t num_steps_begun) {
  LedgerQuestion question;
  question.order.num_samples = 100000;
  question.order.num_slots = 8;
  question.order.microbatch = 4;
  question.ranges = {{1, 0, 100, 3190, 10}};
  question.num_steps_begun = num_steps_begun;
  return AuditLedger(question);
}

TEST(AuditReportTest, TextHasTheCountsAndTheVerdict) {
  EXPECT_THAT(
      AuditText(Audit(101)),
      AllOf(ContainsRegex("applied +3,190\n"), ContainsRegex("dropped +10\n"),
            ContainsRegex("pending +32\n"), ContainsRegex("consumed +3,232\n"),
            HasSubstr("100 steps of 32 samples: applied + dropped + "
                      "pending = consumed")));
}

TEST(AuditReportTest, TextCountsTheFindings) {
  EXPECT_THAT(AuditText(Audit(99)), HasSubstr("32 samples: 1 finding\n"));
}

TEST(AuditReportTest, JsonHasTheSame) {
  const Json good = AuditJson("text-1", Audit(101));
  const Json bad = AuditJson("text-1", Audit(99));

  EXPECT_EQ(good["schema"], "deltapipe.cli.Audit");
  EXPECT_EQ(good["ok"], true);
  EXPECT_EQ(good["samples_consumed"], 3232);
  EXPECT_EQ(bad["ok"], false);
  EXPECT_EQ(bad["findings"].size(), 1);
}

}  // namespace
}  // namespace deltapipe
