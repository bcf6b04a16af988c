// deltapipe plan SPEC
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/units.h"
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

/// Samples of the training split; 0 if the file is not here.
int64_t CountTrainSamples(const v1::JobSpec& spec) {
  if (spec.model().kind() == "synthetic") {
    return spec.model().synthetic().samples();
  }
  struct stat facts;
  if (stat(spec.data().path().c_str(), &facts) != 0) return 0;
  const auto limit = ParseBytes(spec.data().limit());
  const int64_t used =
      limit.ok() ? std::min<int64_t>(facts.st_size, *limit) : facts.st_size;
  const double train =
      static_cast<double>(used) * (1 - spec.data().validation());
  return static_cast<int64_t>(train) / spec.model().context();
}

int64_t MachineMemoryBytes() {
  return int64_t{sysconf(_SC_PHYS_PAGES)} * sysconf(_SC_PAGE_SIZE);
}

int MakePlan(const PlanOptions& options) {
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, /*check_corpus=*/false, &reading)) {
    return kExitUsage;
  }
  PlanInputs inputs;
  inputs.spec = reading.spec;
  if (!inputs.spec.data().path().empty()) {
    inputs.spec.mutable_data()->set_path(
        AbsolutePath(inputs.spec.data().path()));
  }
  inputs.train_samples = CountTrainSamples(inputs.spec);
  inputs.worker_memory_bytes = MachineMemoryBytes();
  const auto profiler = MakeProfiler();
  if (!profiler.ok()) return Fail(profiler.status());
  auto profile = (*profiler)->Profile(inputs.spec);
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
    PrintData(JsonLine(object));
    return kExitOk;
  }
  PrintData(absl::StrCat(JobBanner(inputs.spec), "\n\n",
                         RenderPlan(planned->plan, inputs.spec)));
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
