// How a job finds out whether compressing its gradients helps, with scripted
// workers.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "coordinator/background/job_actor_fixture.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::SizeIs;

constexpr double kFast = 1e10;  // bytes per second
constexpr double kSlow = 1e7;

class JobActorCompressionTest : public JobActorFixture {
 protected:
  JobActorCompressionTest() {
    spec_.mutable_train()->set_steps(1000);
    spec_.mutable_train()->mutable_optimizer()->set_kind("onebit_lamb");
    spec_.mutable_compression()->set_gradients("auto");
    spec_.mutable_compression()->set_verdict("auto");
    plan_->plan.set_num_stages(2);
    plan_->plan.set_gradient_codec("sign(block=0)");
  }

  /// A step of ten transactions, over links of this rate. Workers prepare and
  /// apply what they are told to.
  void Run(int steps, double bytes_per_second) {
    for (int i = 0; i < steps; ++i, ++next_step_) {
      Report(bytes_per_second);
      ApplyTuning();
    }
  }
  void Report(double bytes_per_second) {
    for (int rank = 0; rank < 4; ++rank) {
      v1::WorkerMessage message = StepOf(rank, next_step_);
      v1::SyncReport& sync = *message.mutable_step()->mutable_sync();
      sync.set_ranks(2);
      sync.set_elements(1'000'000);
      sync.set_transactions(10);
      sync.set_sent_bytes(1'250'000);
      sync.set_wire_seconds(1'250'000 / bytes_per_second);
      sync.set_plan_bits(1);
      sync.set_plan_kernel_seconds(4e-3);
      sync.set_bf16_kernel_seconds(1e-3);
      Say(rank, message);
    }
  }
  void ApplyTuning() {
    for (const v1::CoordinatorMessage& message : SentTo(0)) {
      if (!message.has_prepare_tuning()) continue;
      const v1::Tuning& tuning = message.prepare_tuning().tuning();
      gradients_.push_back(tuning.gradients());
      v1::WorkerMessage answer;
      Fill(answer.mutable_tuning());
      answer.mutable_tuning()->set_revision(tuning.revision());
      for (int rank = 0; rank < 4; ++rank) Say(rank, answer);
      v1::WorkerMessage applied;
      Fill(applied.mutable_tuning_applied());
      applied.mutable_tuning_applied()->set_revision(tuning.revision());
      applied.mutable_tuning_applied()->set_effective_step(next_step_ + 1);
      Say(0, applied);
    }
  }
  void Set(const std::string& gradients) {
    TuningRequested request;
    request.principal = "ann";
    request.make_next = [gradients](const v1::Tuning& current,
                                    const v1::JobSpec&, const v1::Plan&) {
      v1::Tuning next = current;
      next.set_gradients(gradients);
      MakeNextRevision(current, &next);
      return next;
    };
    request.reply = [](const absl::StatusOr<v1::Tuning>& tuning) {
      ASSERT_TRUE(tuning.ok()) << tuning.status();
    };
    actor_->Handle(request);
    ApplyTuning();
  }

  int64_t next_step_ = 0;
  std::vector<std::string> gradients_;  // as the workers were told
};

TEST_F(JobActorCompressionTest, OnSlowLinksItHelpsAndIsSaidOnce) {
  StartTraining();
  Run(50, kSlow);

  EXPECT_THAT(EventTexts("compression"),
              ElementsAre(HasSubstr("compression helps: gradients take ")));
  EXPECT_THAT(gradients_, IsEmpty());
}

TEST_F(JobActorCompressionTest, OnFastLinksTheJobTurnsToBf16AndSaysWhy) {
  StartTraining();
  Run(3, kFast);

  EXPECT_THAT(gradients_, ElementsAre("cast(bf16)"));
  EXPECT_THAT(
      EventTexts("tuning"),
      ElementsAre(
          AllOf(HasSubstr("the verdict set gradients=cast(bf16) (was "
                          "gradients=sign(block=0)) from step "),
                HasSubstr("compression does not help: gradients take 4.01 ms a "
                          "step, 1.2 ms in bf16"))));
}

TEST_F(JobActorCompressionTest, WhereLinksBecomeSlowItCompressesAgain) {
  StartTraining();
  Run(10, kFast);
  Run(10, kSlow);

  EXPECT_THAT(gradients_, ElementsAre("cast(bf16)", "sign(block=0)"));
  EXPECT_THAT(EventTexts("tuning").back(),
              HasSubstr("compression helps again: "));
}

TEST_F(JobActorCompressionTest, ACodecThatWasNamedIsKeptButToldOf) {
  spec_.mutable_compression()->set_gradients("sign(block=0)");
  StartTraining();
  Run(10, kFast);

  EXPECT_THAT(gradients_, IsEmpty());
  const std::vector<std::string> told = EventTexts("compression");
  ASSERT_THAT(told, SizeIs(2));
  EXPECT_THAT(told[0], HasSubstr("compression does not help so far: "));
  EXPECT_THAT(told[1],
              AllOf(HasSubstr("compression does not help: "),
                    HasSubstr("`deltapipe set text-1 gradients=cast(bf16)`")));
}

TEST_F(JobActorCompressionTest, ApplyHoldsForANamedCodecToo) {
  spec_.mutable_compression()->set_gradients("sign(block=0)");
  spec_.mutable_compression()->set_verdict("apply");
  StartTraining();
  Run(10, kFast);

  EXPECT_THAT(gradients_, ElementsAre("cast(bf16)"));
}

TEST_F(JobActorCompressionTest, TellNeverChangesAnything) {
  spec_.mutable_compression()->set_verdict("tell");
  StartTraining();
  Run(20, kFast);

  EXPECT_THAT(gradients_, IsEmpty());
}

TEST_F(JobActorCompressionTest, WhoSetsTheCodecHimselfHasTheLastWord) {
  StartTraining();
  Run(5, kFast);
  ASSERT_THAT(gradients_, ElementsAre("cast(bf16)"));
  Set("sign(block=0)");
  Run(50, kFast);

  EXPECT_THAT(gradients_, ElementsAre("cast(bf16)", "sign(block=0)"));
  EXPECT_THAT(EventTexts("compression").back(),
              HasSubstr("`deltapipe set text-1 gradients=cast(bf16)`"));
}

TEST_F(JobActorCompressionTest, AChangeThatAWorkerRefusesIsTriedAgainLater) {
  StartTraining();
  Run(2, kFast);
  Report(kFast);
  ++next_step_;
  v1::WorkerMessage refusal;
  Fill(refusal.mutable_tuning());
  refusal.mutable_tuning()->set_revision(2);
  refusal.mutable_tuning()->set_error_code(9);
  refusal.mutable_tuning()->set_error_message("not now");
  Say(1, refusal);
  ASSERT_THAT(EventTexts("tuning"), IsEmpty());
  SentTo(0);
  Run(5, kFast);

  EXPECT_THAT(gradients_, ElementsAre("cast(bf16)"));
}

}  // namespace
}  // namespace deltapipe
