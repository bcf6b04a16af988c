// deltapipe checkpoint ls|describe|verify|export|rm: checkpoints as they lie on
// the disk, whether or not their job runs or a coordinator is there.
#include <algorithm>
#include <chrono>
#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/clock.h"
#include "base/units.h"
#include "coordinator/cli/checkpoint_listing.h"
#include "coordinator/cli/checkpoint_verbs.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/job_report.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct LookOptions {
  CheckpointChoice choice;
  bool json = false;
};

std::string AgeText(int64_t time_millis) {
  if (time_millis <= 0) return "-";
  const int64_t age = Clock::Real()->WallMillis() - time_millis;
  const int64_t seconds = std::max<int64_t>(0, age) / 1000;
  constexpr int64_t kSecondsPerDay = 24 * 60 * 60;
  return seconds < 2 * kSecondsPerDay
             ? FormatDuration(std::chrono::seconds(seconds))
             : Plural(seconds / kSecondsPerDay, "day");
}

int List(const LookOptions& options) {
  const auto folder = FindCheckpointsFolder(options.choice);
  if (!folder.ok()) return Fail(folder.status());
  const auto all = ListCheckpoints(*folder);
  if (!all.ok()) return Fail(all.status());
  Table table({"STEP", "GENERATION", "AGE", "SIZE", "FILES", "STATE"},
              {Align::kRight, Align::kRight, Align::kRight, Align::kRight,
               Align::kRight});
  for (const ListedCheckpoint& listed : *all) {
    if (options.json) {
      PrintData(JsonLine(CheckpointJson("deltapipe.cli.Checkpoint", listed)));
      continue;
    }
    const bool is_known = listed.manifest.has_value();
    table.AddRow(
        {absl::StrCat(listed.step), absl::StrCat(listed.generation),
         is_known ? AgeText(listed.manifest->time_millis) : "-",
         is_known ? FormatBytes(static_cast<double>(listed.num_bytes())) : "-",
         is_known ? absl::StrCat(listed.num_files_here, "/",
                                 listed.manifest->files.size())
                  : "-",
         listed.state});
  }
  if (!options.json) PrintData(table.ToString());
  for (const ListedCheckpoint& listed : *all) {
    if (!options.json && !listed.is_ok()) PrintNote(listed.problem);
  }
  if (all->empty()) {
    PrintNote(absl::StrCat(*folder, " has no checkpoints yet"));
  }
  return kExitOk;
}

/// Proto JSON as an object; a text that is none stays one.
Json Parsed(const std::string& text) {
  Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
  return json.is_discarded() ? Json(text) : json;
}

std::string NameIn(const std::string& spec_json) {
  const Json spec = Parsed(spec_json);
  const bool is_named =
      spec.is_object() && spec.contains("name") && spec["name"].is_string();
  return is_named ? spec["name"].get<std::string>() : "-";
}

void PrintFacts(const ListedCheckpoint& listed) {
  const CheckpointManifest& manifest = *listed.manifest;
  Table facts({"", ""});
  facts.AddRow({"checkpoint", listed.path});
  facts.AddRow({"state", listed.state});
  facts.AddRow({"job", manifest.job_id});
  facts.AddRow({"spec", NameIn(manifest.spec_json)});
  facts.AddRow({"step", absl::StrCat(manifest.step)});
  facts.AddRow({"generation", absl::StrCat(manifest.generation)});
  facts.AddRow(
      {"shape", absl::StrCat(Plural(manifest.num_stages, "stage"), " x ",
                             Plural(manifest.num_replicas, "replica"))});
  facts.AddRow({"written", TimeText(manifest.time_millis)});
  facts.AddRow(
      {"samples",
       absl::StrCat(FormatCount(manifest.samples_applied), " applied, ",
                    FormatCount(manifest.samples_dropped), " dropped")});
  facts.AddRow({"tuning", Parsed(manifest.tuning_json).dump()});
  PrintData(facts.ToString() + "\n");
  Table files({"FILE", "SIZE", "DIGEST (XXH3-64)"},
              {Align::kLeft, Align::kRight});
  for (const ManifestFile& file : manifest.files) {
    files.AddRow({file.name, FormatBytes(static_cast<double>(file.bytes)),
                  absl::StrFormat("%016x", file.digest)});
  }
  PrintData(files.ToString());
}

int Describe(const LookOptions& options) {
  const auto listed = FindCheckpointToRead(options.choice);
  if (!listed.ok()) return Fail(listed.status());
  if (!options.json) {
    PrintFacts(*listed);
    if (!listed->is_ok()) PrintNote(listed->problem);
    return kExitOk;
  }
  Json object = CheckpointJson("deltapipe.cli.CheckpointDetails", *listed);
  object["spec"] = Parsed(listed->manifest->spec_json);
  object["tuning"] = Parsed(listed->manifest->tuning_json);
  object["files"] = Json::array();
  for (const ManifestFile& file : listed->manifest->files) {
    object["files"].push_back(
        {{"name", file.name},
         {"bytes", file.bytes},
         {"digest", absl::StrFormat("%016x", file.digest)}});
  }
  PrintData(JsonLine(object));
  return kExitOk;
}

void AddCheckpointListVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<LookOptions>();
  CLI::App* verb = group->add_subcommand("ls", "List a job's checkpoints");
  verb->add_option("JOB", options->choice.job,
                   "A run's name below runs/, or a folder of checkpoints")
      ->required();
  AddJsonFlag(verb, &options->json);
  AddRunsOption(verb, &options->choice.runs);
  SetExamples(verb,
              "  deltapipe checkpoint ls text\n"
              "  deltapipe checkpoint ls runs/text-2 --json | jq .step");
  verb->callback([=] { *chosen = [=] { return List(*options); }; });
}

void AddCheckpointDescribeVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<LookOptions>();
  CLI::App* verb = group->add_subcommand(
      "describe", "Show what a checkpoint is of and its files");
  verb->add_option("CHECKPOINT", options->choice.job,
                   "A checkpoint's folder, or a run's name: its newest")
      ->required();
  AddJsonFlag(verb, &options->json);
  AddChoiceOptions(verb, &options->choice);
  SetExamples(verb,
              "  deltapipe checkpoint describe text\n"
              "  deltapipe checkpoint describe text --step 50");
  verb->callback([=] { *chosen = [=] { return Describe(*options); }; });
}

}  // namespace

void AddChoiceOptions(CLI::App* verb, CheckpointChoice* choice) {
  verb->add_option("--step", choice->step, "The one of this step")
      ->type_name("N")
      ->check(NotNegative());
  verb->add_option("--generation", choice->generation,
                   "The one of this generation, where a step has several")
      ->type_name("N")
      ->check(NotNegative());
  AddRunsOption(verb, &choice->runs);
}

Json CheckpointJson(const std::string& schema, const ListedCheckpoint& listed) {
  Json object;
  object["schema"] = schema;
  object["path"] = listed.path;
  object["step"] = listed.step;
  object["generation"] = listed.generation;
  object["state"] = listed.state;
  object["problem"] = listed.problem;
  if (!listed.manifest) return object;
  object["job_id"] = listed.manifest->job_id;
  object["time_millis"] = listed.manifest->time_millis;
  object["num_stages"] = listed.manifest->num_stages;
  object["num_replicas"] = listed.manifest->num_replicas;
  object["samples_applied"] = listed.manifest->samples_applied;
  object["samples_dropped"] = listed.manifest->samples_dropped;
  object["bytes"] = listed.num_bytes();
  object["num_files"] = listed.manifest->files.size();
  object["num_files_here"] = listed.num_files_here;
  return object;
}

void AddCheckpointVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* group = app->add_subcommand(
      "checkpoint", "Make, look at, verify, export and remove checkpoints");
  group->require_subcommand(1);
  SetExamples(group,
              "  deltapipe checkpoint ls text-1\n"
              "  deltapipe checkpoint verify text-1");
  AddCheckpointListVerb(group, chosen);
  AddCheckpointCreateVerb(group, chosen);
  AddCheckpointDescribeVerb(group, chosen);
  AddCheckpointVerifyVerb(group, chosen);
  AddCheckpointExportVerb(group, chosen);
  AddCheckpointRemoveVerb(group, chosen);
}

}  // namespace deltapipe
