// deltapipe ls
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_client.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

constexpr int kPageSize = 200;

struct ListOptions {
  std::string coordinator;
  bool json = false;
  bool active = false;
};

int List(const ListOptions& options) {
  JobClient client(options.coordinator);
  v1::ListJobsRequest request;
  request.set_page_size(kPageSize);
  request.set_include_finished(!options.active);
  Table table({"JOB", "STATE", "STEP", "LOSS", "CREATED", "REASON"},
              {Align::kLeft, Align::kLeft, Align::kRight, Align::kRight});
  while (true) {
    const auto page = client.List(request);
    if (!page.ok()) return Fail(page.status());
    for (const v1::Job& job : page->jobs()) {
      if (options.json) {
        PrintData(JsonLine(ToJson(job)));
        continue;
      }
      const double loss = job.result().train_loss();
      table.AddRow({job.id(), StateName(job.state()),
                    absl::StrCat(std::max(job.step(), job.result().steps()),
                                 "/", job.spec().train().steps()),
                    loss > 0 ? absl::StrFormat("%.4f", loss) : "-",
                    TimeText(job.create_time_millis()), job.reason()});
    }
    if (page->next_page_token().empty()) break;
    request.set_page_token(page->next_page_token());
  }
  if (!options.json) PrintData(table.ToString());
  return kExitOk;
}

}  // namespace

void AddListVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<ListOptions>();
  CLI::App* verb = app->add_subcommand("ls", "List the coordinator's jobs");
  verb->add_flag("--active", options->active, "Leave out jobs that have ended");
  AddJsonFlag(verb, &options->json);
  AddCoordinatorOption(verb, &options->coordinator);
  SetExamples(verb,
              "  deltapipe ls\n"
              "  deltapipe ls --json | jq -r .id");
  verb->callback([=] { *chosen = [=] { return List(*options); }; });
}

}  // namespace deltapipe
