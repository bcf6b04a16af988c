#include "coordinator/cli/job_printer.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

v1::JobEvent StepEvent(int64_t index) {
  v1::JobEvent event;
  event.set_kind("step");
  event.mutable_step()->set_step(index);
  event.mutable_step()->set_total_steps(100);
  event.mutable_step()->set_loss(2.5);
  return event;
}

v1::JobEvent TextEvent(const std::string& kind, const std::string& text) {
  v1::JobEvent event;
  event.set_kind(kind);
  event.set_text(text);
  return event;
}

struct Written {
  std::string output;
  std::string errors;
};

/// What a printer writes for `events`, a second apart. Neither stream of a test
/// is a terminal.
Written Print(const std::vector<v1::JobEvent>& events, bool json) {
  FakeClock clock;
  ::testing::internal::CaptureStdout();
  ::testing::internal::CaptureStderr();
  {
    JobPrinter printer("text", json, &clock);
    for (const v1::JobEvent& event : events) {
      printer.OnEvent(event);
      clock.Advance(std::chrono::seconds(1));
    }
  }
  Written written;
  written.output = ::testing::internal::GetCapturedStdout();
  written.errors = ::testing::internal::GetCapturedStderr();
  return written;
}

TEST(JobPrinterTest, LinesGoToStdoutAndNotesToStderr) {
  const Written written =
      Print({TextEvent("state", "trains on 4 workers"), StepEvent(0),
             StepEvent(1), StepEvent(2), TextEvent("warning", "disk is full")},
            /*json=*/false);

  EXPECT_THAT(written.output,
              AllOf(HasSubstr("step=1/100 loss=2.5000"),
                    Not(HasSubstr("step=2/100")), HasSubstr("step=3/100")));
  EXPECT_EQ(written.errors, "trains on 4 workers\nwarning: disk is full\n");
}

TEST(JobPrinterTest, JsonHasEveryEventAndNothingElse) {
  const Written written =
      Print({TextEvent("state", "x"), StepEvent(0), StepEvent(1)},
            /*json=*/true);

  EXPECT_THAT(written.output,
              AllOf(HasSubstr("{\"event\":\"state\""), HasSubstr("\"step\":1,"),
                    HasSubstr("\"step\":2,")));
  EXPECT_THAT(written.output, Not(HasSubstr("step=")));
  EXPECT_THAT(written.errors, IsEmpty());
}

TEST(JobPrinterTest, ArrivingWorkersAreOneLineInAWhile) {
  const Written written =
      Print({TextEvent("worker", "0 idle"), TextEvent("worker", "1 idle"),
             TextEvent("worker", "2 idle"), TextEvent("state", "starts"),
             TextEvent("worker", "3 idle"), TextEvent("worker", "4 idle")},
            /*json=*/false);

  EXPECT_EQ(written.errors, "0 idle\nstarts\n4 idle\n");
}

}  // namespace
}  // namespace deltapipe
