// deltapipe plan SPEC
#include <unistd.h>

#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/background/assignments.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/make_profiler.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/schedule/build_plan.h"
#include "coordinator/schedule/render_plan.h"

namespace deltapipe {
namespace {

struct PlanOptions {
  SpecOptions spec;
  bool json = false;
};

int64_t MachineMemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
}

/// What the layers cost with the threads that `run` would give each worker
/// (the profiler fills them in). A synthetic model's costs are in its spec.
absl::StatusOr<v1::StageProfile> LayerCosts(const v1::JobSpec& spec) {
  if (spec.model().kind() == "synthetic") return v1::StageProfile();
  DP_ASSIGN_OR_RETURN(const auto profiler, MakeProfiler());
  return profiler->Profile(spec);
}

/// [{"stage":0,"in_flight":2,"raw_bytes":...,"stored_bytes":...,
/// "recomputed_bytes":...,"host_bytes":...,"classes":[...]}], bytes per
/// micro-batch.
Json SavedJson(const std::vector<SavedMemory>& saved) {
  Json stages = Json::array();
  for (const SavedMemory& memory : saved) {
    Json stage;
    stage["stage"] = memory.stage;
    stage["in_flight"] = memory.in_flight;
    stage["raw_bytes"] = memory.raw_bytes;
    stage["stored_bytes"] = memory.stored_bytes;
    stage["recomputed_bytes"] = memory.recomputed_bytes;
    stage["host_bytes"] = memory.host_bytes;
    stage["classes"] = Json::array();
    for (const v1::SavedClass& part : memory.classes) {
      Json object;
      object["name"] = part.name();
      object["raw_bytes"] = part.raw_bytes();
      object["stored_bytes"] = part.stored_bytes();
      stage["classes"].push_back(std::move(object));
    }
    stages.push_back(std::move(stage));
  }
  return stages;
}

int MakePlan(const PlanOptions& options) {
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, CorpusCheck::kIfHere, &reading)) {
    return kExitUsage;
  }
  PlanInputs inputs;
  inputs.spec = reading.spec;
  if (!inputs.spec.data().path().empty()) {
    inputs.spec.mutable_data()->set_path(
        AbsolutePath(inputs.spec.data().path()));
  }
  inputs.train_samples = EstimateTrainSamples(inputs.spec);
  // As `run` would place them: all on this machine.
  WorkerInfo worker;
  worker.cores = static_cast<int>(std::thread::hardware_concurrency());
  worker.memory_bytes = MachineMemoryBytes();
  const std::vector<WorkerInfo> workers(
      static_cast<size_t>(inputs.spec.parallel().stages() *
                          inputs.spec.parallel().replicas()),
      worker);
  inputs.worker_memory_bytes = LeastWorkerMemory(workers);
  inputs.compute_slowdown = ComputeSlowdown(inputs.spec, workers);
  auto profile = LayerCosts(inputs.spec);
  if (!profile.ok()) return Fail(profile.status());
  inputs.profile = *std::move(profile);
  const auto planned = BuildPlan(inputs);
  if (!planned.ok()) {
    PrintError(std::string(planned.status().message()));
    return kExitUsage;
  }
  if (options.json) {
    Json object = ToJson(planned->plan);
    object["notes"] = planned->notes;
    object["saved_activations"] = SavedJson(planned->saved);
    PrintData(JsonLine(object));
    return kExitOk;
  }
  v1::JobSpec nameless = inputs.spec;  // the first line has the name
  nameless.clear_name();
  PrintData(absl::StrCat(JobBanner(inputs.spec), "\n\n",
                         RenderPlan(planned->plan, nameless)));
  if (!planned->saved.empty()) {
    PrintData(
        absl::StrCat("\n", RenderSavedMemory(planned->saved, inputs.spec)));
  }
  for (const std::string& note : planned->notes) PrintNote(note);
  if (inputs.train_samples == 0) {
    PrintNote(absl::StrCat("data.path '", inputs.spec.data().path(),
                           "' is not on this machine: the memory of delta "
                           "state is not in the plan"));
  }
  return kExitOk;
}

}  // namespace

void AddPlanVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<PlanOptions>();
  CLI::App* verb = app->add_subcommand(
      "plan", "Show what would run where, and what it would cost");
  AddSpecOptions(verb, &options->spec);
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe plan examples/text.yaml\n"
              "  deltapipe plan examples/text.yaml --set parallel.stages=4\n"
              "Layer costs are measured on this machine by deltapipe-worker.");
  verb->callback([=] { *chosen = [=] { return MakePlan(*options); }; });
}

}  // namespace deltapipe
