#include "coordinator/cli/job_report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace deltapipe {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::Job EndedJob() {
  v1::Job job;
  job.set_id("text-1");
  job.set_state(v1::JOB_STATE_SUCCEEDED);
  job.mutable_spec()->mutable_train()->set_steps(1000);
  v1::JobResult* result = job.mutable_result();
  result->set_steps(1000);
  result->set_train_loss(1.6543);
  result->set_validation_loss(1.7012);
  result->set_validation_accuracy(0.4825);
  result->set_tokens_per_second(16384.4);
  result->set_seconds_per_step(0.25);
  result->set_wall_seconds(250);
  result->set_activation_raw_bytes(8000000000);
  result->set_activation_wire_bytes(1000000000);
  result->set_gradient_raw_bytes(6000000);
  result->set_gradient_wire_bytes(2000000);
  result->set_evaluation_wire_bytes(5000);
  return job;
}

TEST(JobReportTest, SummaryIsATableOfTrafficAndOneOfFacts) {
  EXPECT_EQ(SummaryTable(EndedJob()),
            "              raw  on the wire  ratio\n"
            "activations  8 GB         1 GB   8.0x\n"
            "gradients    6 MB         2 MB   3.0x\n"
            "evaluation                5 kB\n"
            "other                      0 B\n"
            "\n"
            "state            SUCCEEDED\n"
            "steps            1,000 of 1,000\n"
            "train loss       1.6543\n"
            "validation loss  1.7012\n"
            "accuracy         48.25 %\n"
            "tokens/s         16,384\n"
            "s/step (median)  0.250\n"
            "wall time        4:10\n");
}

TEST(JobReportTest, ResultObjectHasTheDocumentedFields) {
  const Json result = ResultJson(EndedJob());

  EXPECT_EQ(result["event"], "result");
  EXPECT_EQ(result["state"], "SUCCEEDED");
  for (const char* field :
       {"steps", "train_loss", "validation_loss", "validation_accuracy",
        "tokens_per_second", "wall_seconds", "activation_raw_bytes",
        "activation_wire_bytes", "gradient_raw_bytes", "gradient_wire_bytes",
        "samples_applied", "samples_dropped", "saved_raw_bytes",
        "saved_stored_bytes"}) {
    EXPECT_TRUE(result[field].is_number()) << field;
  }
}

TEST(JobReportTest, SavedActivationsAreNamedWhereTheyWerePacked) {
  v1::Job job = EndedJob();
  EXPECT_THAT(SummaryTable(job), Not(HasSubstr("saved")));
  EXPECT_EQ(ResultJson(job)["saved_raw_bytes"], 0);
  job.mutable_result()->set_saved_raw_bytes(1'200'000'000);
  job.mutable_result()->set_saved_stored_bytes(160'000'000);

  EXPECT_THAT(SummaryTable(job),
              HasSubstr("saved            1.2 GB -> 160 MB (0.13)\n"));
  EXPECT_EQ(ResultJson(job)["saved_raw_bytes"], 1'200'000'000);
  EXPECT_EQ(ResultJson(job)["saved_stored_bytes"], 160'000'000);
}

TEST(JobReportTest, FaultsOfTheLinksAreNamedWhereThereWereSome) {
  v1::Job job = EndedJob();
  EXPECT_THAT(SummaryTable(job), Not(HasSubstr("link faults")));
  job.mutable_result()->mutable_faults()->set_frames_resent(1200);
  job.mutable_result()->mutable_faults()->set_refused(3);

  EXPECT_THAT(SummaryTable(job),
              HasSubstr("link faults      1,200 sent again, 3 refused\n"));
  EXPECT_EQ(ResultJson(job)["faults"]["frames_resent"], 1200);
}

TEST(JobReportTest, BannerNamesEmulatedLinks) {
  v1::JobSpec spec;
  spec.set_name("text");
  spec.mutable_model()->set_kind("gpt");
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_width(128);
  spec.mutable_parallel()->set_stages(2);
  spec.mutable_parallel()->set_replicas(1);
  spec.mutable_train()->set_steps(1000);
  spec.mutable_train()->set_batch(32);
  spec.mutable_train()->mutable_optimizer()->set_kind("lamb");
  EXPECT_EQ(JobBanner(spec),
            "text: gpt, 4 layers, width 128, 2 stages x 1 replica, 1,000 steps "
            "of 32 samples, lamb");

  spec.mutable_network()->mutable_emulate()->set_bandwidth("100Mbit/s");
  spec.mutable_network()->mutable_emulate()->set_latency("10ms");
  EXPECT_THAT(JobBanner(spec),
              HasSubstr("; emulated links: 100 Mbit/s, 10 ms each way "
                        "(network.emulate)"));

  spec.mutable_network()->mutable_emulate()->set_latency("0");
  EXPECT_EQ(EmulationText(spec),
            "emulated links: 100 Mbit/s (network.emulate)");
}

TEST(JobReportTest, EventsOfEveryKindBecomeObjects) {
  v1::JobEvent event;
  event.set_kind("validation");
  event.set_text("validation loss 1.75");
  event.mutable_step()->set_step(199);
  event.mutable_step()->set_validation_loss(1.75);

  const Json object = EventJson(event);

  EXPECT_EQ(object["event"], "validation");
  EXPECT_EQ(object["step"], 200);
  EXPECT_EQ(object["validation_loss"], 1.75);
  EXPECT_FALSE(object.contains("state"));
}

TEST(JsonLineTest, EveryFieldHasTheTypeThatItsValueHas) {
  v1::Job job = EndedJob();
  job.mutable_spec()->set_seed(18446744073709551615u);
  job.add_workers("worker-1 (10.77.0.2)");

  const Json object = ToJson(job);

  EXPECT_EQ(object["state"], "SUCCEEDED");
  EXPECT_EQ(object["result"]["activation_raw_bytes"], 8000000000);
  EXPECT_EQ(object["spec"]["seed"], 18446744073709551615u);
  EXPECT_EQ(object["workers"], Json::array({"worker-1 (10.77.0.2)"}));
  EXPECT_EQ(object["generation"], 0);
  EXPECT_FALSE(object["spec"].contains("model"));
}

TEST(JsonLineTest, ProtoNamesAreKeptBehindTheSchema) {
  const std::string line = JsonLine(ToJson(EndedJob()));

  EXPECT_THAT(line, ::testing::StartsWith(
                        "{\"schema\":\"deltapipe.v1.Job\",\"id\":\"text-1\""));
  EXPECT_THAT(line, HasSubstr("\"activation_raw_bytes\":8000000000,"));
  EXPECT_EQ(line.find('\n'), line.size() - 1);
}

TEST(JsonLineTest, WhatJsonCannotHoldIsReplaced) {
  Json object;
  object["loss"] = std::numeric_limits<double>::quiet_NaN();
  object["text"] =
      "a\xff"
      "b";

  EXPECT_EQ(JsonLine(object),
            "{\"loss\":null,\"text\":\"a\xef\xbf\xbd"
            "b\"}\n");
}

}  // namespace
}  // namespace deltapipe
