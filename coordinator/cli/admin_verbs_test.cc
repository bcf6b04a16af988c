// Verbs for operators against a scripted coordinator: what they print, and
// their exit codes.
#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "base/file.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/rpc/fake_tuning_control.h"
#include "coordinator/service/tuning_service.h"
#include "coordinator/spec/job_spec.h"
#include "nlohmann/json.hpp"
#include "proto/deltapipe/v1/admin.grpc.pb.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

/// One job, text-1.
class ScriptedJobs : public v1::JobService::Service {
 public:
  grpc::Status refusal;
  std::string reason;
  bool is_sampled = true;

  grpc::Status PauseJob(grpc::ServerContext*,
                        const v1::PauseJobRequest* request,
                        v1::Job* job) override {
    reason = request->reason();
    return Answer(request->id(), job);
  }
  grpc::Status ResumeJob(grpc::ServerContext*,
                         const v1::ResumeJobRequest* request,
                         v1::Job* job) override {
    job->set_checkpoint_step(40);
    return Answer(request->id(), job);
  }
  grpc::Status DrainWorker(grpc::ServerContext*,
                           const v1::DrainWorkerRequest* request,
                           v1::Worker* worker) override {
    worker->set_id(request->worker_id());
    worker->set_job_id("text-1");
    return refusal;
  }
  grpc::Status WatchJob(grpc::ServerContext*,
                        const v1::WatchJobRequest* request,
                        grpc::ServerWriter<v1::JobEvent>* writer) override {
    v1::JobEvent event;
    for (int64_t i = request->after_sequence() + 1; i <= 3; ++i) {
      event.set_sequence(i);
      event.set_kind(i == 3 ? "tuning" : "worker");
      event.set_text("event " + std::to_string(i));
      if (i == 3) {
        event.mutable_tuning()->set_principal("ann");
        event.mutable_tuning()->set_old_value("gradients=none");
        event.mutable_tuning()->set_new_value("gradients=cast(bf16)");
        event.mutable_tuning()->set_effective_step(12);
        event.mutable_tuning()->set_reason("trial");
      }
      writer->Write(event);
    }
    return refusal;
  }
  grpc::Status GetMetrics(grpc::ServerContext*,
                          const v1::GetMetricsRequest* request,
                          v1::JobMetrics* metrics) override {
    metrics->set_id(request->id());
    metrics->set_state(v1::JOB_STATE_RUNNING);
    if (is_sampled) {
      metrics->set_num_stages(1);
      metrics->set_num_replicas(2);
      metrics->mutable_stragglers()->set_step(19);
      metrics->mutable_stragglers()->set_step_seconds(0.3);
      metrics->mutable_stragglers()->set_ideal_seconds(0.2);
      metrics->mutable_stragglers()->add_scores(1);
      metrics->mutable_stragglers()->add_scores(1.5);
    }
    return refusal;
  }

  grpc::Status TraceJob(grpc::ServerContext*, const v1::TraceJobRequest*,
                        v1::TraceJobResponse* trace) override {
    trace->set_chrome_json("{\"traceEvents\":[]}");
    return refusal;
  }
  grpc::Status RequestCheckpoint(grpc::ServerContext*,
                                 const v1::RequestCheckpointRequest* request,
                                 v1::Job* job) override {
    return Answer(request->id(), job);
  }
  grpc::Status GetLedger(grpc::ServerContext*, const v1::GetLedgerRequest*,
                         v1::JobLedger* answer) override {
    *answer = ledger;
    return refusal;
  }
  v1::JobLedger ledger;

 private:
  grpc::Status Answer(const std::string& id, v1::Job* job) {
    job->set_id(id);
    return refusal;
  }
};

v1::JobSpec Spec() {
  v1::JobSpec spec;
  spec.set_name("text");
  FillDefaults(&spec);
  return spec;
}

v1::Plan ThreeStages() {
  v1::Plan plan;
  plan.set_num_stages(3);
  plan.set_num_replicas(1);
  plan.set_num_microbatches(4);
  plan.set_microbatch_samples(1);
  plan.set_activation_codec("int(4)");
  plan.set_activation_gradient_codec("int(8)");
  plan.set_gradient_codec("none");
  for (int b = 0; b < 2; ++b) {
    plan.add_links()->set_activation_raw_bytes(4e6);
    plan.mutable_links(b)->set_gradient_raw_bytes(4e6);
  }
  return plan;
}

struct Outcome {
  int exit_code = -1;
  std::string output;
  std::string errors;
};

class AdminVerbsTest : public ::testing::Test {
 protected:
  AdminVerbsTest()
      : control_("text-1", Spec(), ThreeStages()), tuning_(&control_) {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port_);
    builder.RegisterService(&jobs_);
    builder.RegisterService(&tuning_);
    server_ = builder.BuildAndStart();
  }

  Outcome Run(std::vector<std::string> words) {
    words.push_back("--coordinator");
    words.push_back("127.0.0.1:" + std::to_string(port_));
    return RunWords(words);
  }
  static Outcome RunWords(std::vector<std::string> words) {
    CLI::App app("", "deltapipe");
    VerbAction action = [] { return -2; };
    AddSetVerb(&app, &action);
    AddBudgetVerb(&app, &action);
    AddPauseVerb(&app, &action);
    AddResumeVerb(&app, &action);
    AddEventsVerb(&app, &action);
    AddStragglersVerb(&app, &action);
    AddTopVerb(&app, &action);
    AddDoctorVerb(&app, &action);
    AddMetricsVerb(&app, &action);
    AddTraceVerb(&app, &action);
    AddJobVerb(&app, &action);
    AddCheckpointCreateVerb(app.add_subcommand("checkpoint"), &action);
    AddWorkerVerb(&app, &action);
    std::reverse(words.begin(), words.end());
    Outcome outcome;
    ::testing::internal::CaptureStdout();
    ::testing::internal::CaptureStderr();
    try {
      app.parse(words);
      outcome.exit_code = action();
    } catch (const CLI::ParseError& error) {
      outcome.exit_code = kExitUsage;
    }
    outcome.output = ::testing::internal::GetCapturedStdout();
    outcome.errors = ::testing::internal::GetCapturedStderr();
    return outcome;
  }

  FakeTuningControl control_;
  ScriptedJobs jobs_;
  TuningServiceImpl tuning_;
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

TEST_F(AdminVerbsTest, SetChangesAndSaysFromWhichStep) {
  const Outcome outcome =
      Run({"set", "text-1", "activations=int(2)",
           "boundaries[1].rate_limit=100Mbit/s", "--reason", "trial"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_EQ(outcome.output,
            "boundaries[0].activations: int(4) -> int(2)\n"
            "boundaries[1].activations: int(4) -> int(2)\n"
            "boundaries[1].rate_limit: unlimited -> 100Mbit/s\n"
            "revision 2 holds from step 11 on\n");
  EXPECT_THAT(outcome.errors, IsEmpty());
}

TEST_F(AdminVerbsTest, SetWithoutEditsShowsAllKnobs) {
  const Outcome outcome = Run({"set", "text-1"});

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("boundaries[1].activations=int(4)\n"),
                    HasSubstr("budget=off\n"), HasSubstr("revision 1, ")));
}

TEST_F(AdminVerbsTest, SetDryRunChangesNothing) {
  const Outcome outcome =
      Run({"set", "text-1", "activations=int(2)", "--dry-run"});

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_THAT(outcome.errors, HasSubstr("nothing was changed"));
  EXPECT_EQ(control_.Get("text-1")->revision(), 1u);
}

TEST_F(AdminVerbsTest, SetThatChangesNothingSaysSo) {
  EXPECT_EQ(Run({"set", "text-1", "activations=int(4)"}).output,
            "nothing changes: revision 1 is that already\n");
}

TEST_F(AdminVerbsTest, SetHasAnExitCodeForEachMistake) {
  const Outcome path = Run({"set", "text-1", "activatons=int(4)"});
  const Outcome codec =
      Run({"set", "text-1", "activations=int(9)", "gradients=sign"});
  const Outcome job = Run({"set", "text-2", "activations=int(2)"});
  const Outcome etag =
      Run({"set", "text-1", "activations=int(2)", "--etag", "7-x"});

  EXPECT_EQ(path.exit_code, kExitUsage);
  EXPECT_THAT(path.errors, HasSubstr("did you mean 'activations'?"));
  EXPECT_EQ(codec.exit_code, kExitUsage);
  EXPECT_THAT(codec.errors,
              AllOf(HasSubstr("boundaries[0].activations: codec \"int(9)\""),
                    HasSubstr("gradients: expected auto, none")));
  EXPECT_EQ(job.exit_code, kExitNotFound);
  EXPECT_EQ(etag.exit_code, kExitWrongState);
  EXPECT_THAT(etag.errors, HasSubstr("has changed: its etag is 1-"));
  EXPECT_EQ(control_.Get("text-1")->revision(), 1u);
}

TEST_F(AdminVerbsTest, BudgetChoosesBitsAndEnds) {
  const Outcome set = Run({"budget", "text-1", "1MB/step"});
  const Outcome off = Run({"budget", "text-1", "off"});
  const Outcome little = Run({"budget", "text-1", "1kB"});
  const Outcome nonsense = Run({"budget", "text-1", "12"});

  EXPECT_EQ(set.exit_code, 0) << set.errors;
  EXPECT_THAT(set.output, HasSubstr("budget_bytes_per_step: 0 -> 1000000\n"));
  EXPECT_THAT(off.output, StartsWith("budget_bytes_per_step: 1000000 -> 0\n"));
  EXPECT_EQ(little.exit_code, kExitUsage);
  EXPECT_THAT(little.errors, HasSubstr("expected at least"));
  EXPECT_EQ(nonsense.exit_code, kExitUsage);
}

TEST_F(AdminVerbsTest, PauseAndResumeSayWhatHappens) {
  const Outcome pause = Run({"pause", "text-1", "--reason", "lunch"});
  const Outcome resume = Run({"resume", "text-1"});

  EXPECT_EQ(pause.exit_code, 0);
  EXPECT_EQ(jobs_.reason, "lunch");
  EXPECT_THAT(pause.output, StartsWith("text-1 pauses: "));
  EXPECT_EQ(resume.output,
            "text-1 waits for workers and goes on after step 40\n");
}

TEST_F(AdminVerbsTest, WrongStateIsExitCodeFour) {
  jobs_.refusal = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION,
                               "job 'text-1' is SUCCEEDED");

  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"pause", "text-1"},
                                             {"resume", "text-1"},
                                             {"top", "text-1"},
                                             {"stragglers", "text-1"},
                                             {"worker", "drain", "worker-1"}}) {
    const Outcome outcome = Run(words);
    EXPECT_EQ(outcome.exit_code, kExitWrongState) << words[0];
    EXPECT_EQ(outcome.errors, "error: job 'text-1' is SUCCEEDED\n");
    EXPECT_THAT(outcome.output, IsEmpty());
  }
}

TEST_F(AdminVerbsTest, EventsComeInOrderWithTheirChanges) {
  const Outcome all = Run({"events", "text-1"});
  const Outcome rest = Run({"events", "text-1", "--since", "2"});

  EXPECT_EQ(all.exit_code, 0);
  EXPECT_THAT(all.output, StartsWith("1  "));
  EXPECT_THAT(rest.output, StartsWith("3  "));
  EXPECT_THAT(rest.output, HasSubstr("  tuning  event 3\n"
                                     "    gradients: none -> cast(bf16)\n"
                                     "    by ann, from step 13 on: trial\n"));
}

TEST_F(AdminVerbsTest, JobThatThereIsNotIsExitCodeThree) {
  jobs_.refusal = grpc::Status(grpc::StatusCode::NOT_FOUND, "no job");

  EXPECT_EQ(Run({"events", "text-9", "--since", "3"}).exit_code, kExitNotFound);
  EXPECT_EQ(Run({"top", "text-9"}).exit_code, kExitNotFound);
  EXPECT_EQ(Run({"stragglers", "text-9"}).exit_code, kExitNotFound);
}

TEST_F(AdminVerbsTest, TopPrintsOneFrameWithoutATerminal) {
  const Outcome outcome = Run({"top", "text-1"});

  EXPECT_EQ(outcome.exit_code, 0);
  EXPECT_EQ(outcome.output, "text-1  RUNNING  no step has been made yet\n");
}

TEST_F(AdminVerbsTest, StragglersShowsScoresOfWhatWasSampled) {
  const Outcome outcome = Run({"stragglers", "text-1"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, StartsWith("text-1, step 20: "));
  EXPECT_THAT(outcome.output, HasSubstr("    0       1.00       1.50\n"));
}

TEST_F(AdminVerbsTest, StragglersOfAJobThatIsNotSampledIsAWrongState) {
  jobs_.is_sampled = false;

  const Outcome outcome = Run({"stragglers", "text-1"});

  EXPECT_EQ(outcome.exit_code, kExitWrongState);
  EXPECT_THAT(outcome.output, IsEmpty());
  EXPECT_THAT(outcome.errors,
              HasSubstr("deltapipe set text-1 straggler_policy=detect"));
}

TEST_F(AdminVerbsTest, DrainSaysWhenTheWorkerLeaves) {
  EXPECT_THAT(Run({"worker", "drain", "worker-3"}).output,
              StartsWith("worker-3 leaves as soon as text-1 has written"));
}

TEST_F(AdminVerbsTest, MetricsPrintsTables) {
  const Outcome outcome = Run({"metrics", "text-1"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, StartsWith("text-1"));
}

TEST_F(AdminVerbsTest, TraceWritesAFile) {
  const std::string path = ::testing::TempDir() + "/trace.json";
  const Outcome outcome = Run({"trace", "text-1", "--out", path});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output, StartsWith("wrote " + path + ": open it with"));
  EXPECT_EQ(ReadFile(path).value_or(""), "{\"traceEvents\":[]}");
}

TEST_F(AdminVerbsTest, TraceThatCannotBeWrittenIsNotFound) {
  const Outcome outcome =
      Run({"trace", "text-1", "--out", "/nowhere/trace.json"});

  EXPECT_EQ(outcome.exit_code, kExitNotFound) << outcome.errors;
  EXPECT_THAT(outcome.output, IsEmpty());
}

TEST_F(AdminVerbsTest, CheckpointCreateSaysWhenItIsWritten) {
  const Outcome outcome = Run({"checkpoint", "create", "text-1"});

  EXPECT_EQ(outcome.exit_code, 0) << outcome.errors;
  EXPECT_THAT(outcome.output,
              StartsWith("text-1 writes a checkpoint after its next step; "));
}

TEST_F(AdminVerbsTest, AuditThatFindsAMistakeIsExitCodeOne) {
  jobs_.ledger.set_train_samples(64);
  jobs_.ledger.set_num_slots(4);
  jobs_.ledger.set_microbatch_samples(2);
  jobs_.ledger.set_steps_begun(4);
  v1::CommittedRange* range = jobs_.ledger.add_ranges();
  range->set_generation(1);
  range->set_end_step(4);
  range->set_samples_applied(31);  // of 32

  const Outcome outcome = Run({"job", "audit", "text-1"});

  EXPECT_EQ(outcome.exit_code, kExitJobFailed) << outcome.output;
  EXPECT_THAT(outcome.errors, StartsWith("error: "));
}

/// What the coordinator answers, and the exit code of every verb that asks it.
struct Refusal {
  grpc::StatusCode code;
  int exit_code;
};

class RefusalTest : public AdminVerbsTest,
                    public ::testing::WithParamInterface<Refusal> {};

TEST_P(RefusalTest, HasItsExitCodeForEveryVerb) {
  jobs_.refusal = grpc::Status(GetParam().code, "not this time");
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"pause", "text-1"},
           {"resume", "text-1"},
           // From the last event on: none comes before the refusal.
           {"events", "text-1", "--since", "3"},
           {"top", "text-1"},
           {"stragglers", "text-1"},
           {"metrics", "text-1"},
           {"trace", "text-1", "--out", "/nowhere/trace.json"},
           {"job", "audit", "text-1"},
           {"checkpoint", "create", "text-1"},
           {"worker", "drain", "worker-1"}}) {
    const Outcome outcome = Run(words);
    EXPECT_EQ(outcome.exit_code, GetParam().exit_code) << words[0];
    EXPECT_THAT(outcome.errors, HasSubstr("not this time")) << words[0];
    EXPECT_THAT(outcome.output, IsEmpty()) << words[0];
  }
}

INSTANTIATE_TEST_SUITE_P(
    Codes, RefusalTest,
    ::testing::Values(
        Refusal{grpc::StatusCode::INVALID_ARGUMENT, kExitUsage},
        Refusal{grpc::StatusCode::NOT_FOUND, kExitNotFound},
        Refusal{grpc::StatusCode::FAILED_PRECONDITION, kExitWrongState},
        Refusal{grpc::StatusCode::ABORTED, kExitWrongState},
        Refusal{grpc::StatusCode::PERMISSION_DENIED, kExitNotAllowed},
        Refusal{grpc::StatusCode::UNAUTHENTICATED, kExitNotAllowed}));

TEST_F(AdminVerbsTest, EveryVerbHasJsonWithASchema) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{
           {"set", "text-1", "activations=int(2)", "--json"},
           {"budget", "text-1", "off", "--json"},
           {"pause", "text-1", "--json"},
           {"resume", "text-1", "--json"},
           {"events", "text-1", "--since", "2", "--json"},
           {"top", "text-1", "--json"},
           {"stragglers", "text-1", "--json"},
           {"metrics", "text-1", "--json"},
           {"checkpoint", "create", "text-1", "--json"},
           {"trace", "text-1", "--json", "--out",
            ::testing::TempDir() + "/traced.json"},
           {"worker", "drain", "worker-1", "--json"}}) {
    const Outcome outcome = Run(words);
    EXPECT_EQ(outcome.exit_code, 0) << words[0] << ": " << outcome.errors;
    const auto json = nlohmann::json::parse(outcome.output, nullptr, false);
    ASSERT_FALSE(json.is_discarded()) << outcome.output;
    EXPECT_THAT(json["schema"].get<std::string>(), StartsWith("deltapipe."));
  }
}

TEST_F(AdminVerbsTest, UnreachableCoordinatorIsExitCodeFive) {
  for (const std::vector<std::string>& words :
       std::vector<std::vector<std::string>>{{"set", "text-1"},
                                             {"budget", "text-1", "off"},
                                             {"pause", "text-1"},
                                             {"resume", "text-1"},
                                             {"events", "text-1"},
                                             {"top", "text-1"},
                                             {"stragglers", "text-1"},
                                             {"metrics", "text-1"},
                                             {"trace", "text-1"},
                                             {"job", "audit", "text-1"},
                                             {"checkpoint", "create", "text-1"},
                                             {"worker", "drain", "w"}}) {
    std::vector<std::string> all = words;
    all.push_back("--coordinator=127.0.0.1:1");
    const Outcome outcome = RunWords(all);
    EXPECT_EQ(outcome.exit_code, kExitUnreachable) << words[0];
    EXPECT_THAT(outcome.errors, HasSubstr("cannot reach a coordinator"));
  }
}

TEST_F(AdminVerbsTest, DoctorFailsIfTheCoordinatorIsSilent) {
  const Outcome outcome =
      RunWords({"doctor", "--json", "--coordinator", "127.0.0.1:1"});

  EXPECT_EQ(outcome.exit_code, kExitJobFailed);
  EXPECT_THAT(outcome.output,
              AllOf(HasSubstr("{\"schema\":\"deltapipe.cli.Check\",\"check\":"
                              "\"coordinator\",\"health\":\"fail\""),
                    HasSubstr("\"check\":\"run folder\"")));
}

}  // namespace
}  // namespace deltapipe
