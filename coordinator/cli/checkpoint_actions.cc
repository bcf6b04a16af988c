// deltapipe checkpoint verify, export and rm.
#include <unistd.h>

#include <iostream>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "base/units.h"
#include "coordinator/cli/checkpoint_export.h"
#include "coordinator/cli/checkpoint_listing.h"
#include "coordinator/cli/checkpoint_verbs.h"
#include "coordinator/cli/checkpoint_verify.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"

namespace deltapipe {
namespace {

struct VerifyOptions {
  CheckpointChoice choice;
  bool this_host = false;
  bool json = false;
};

int Verify(const VerifyOptions& options) {
  const auto all = FindCheckpoints(options.choice);
  if (!all.ok()) return Fail(all.status());
  int exit_code = kExitOk;
  for (const ListedCheckpoint& listed : *all) {
    const CheckpointVerdict verdict =
        VerifyCheckpoint(listed, options.this_host);
    const bool is_good = verdict.defects.empty();
    if (!is_good) exit_code = kExitJobFailed;
    if (options.json) {
      Json object;
      object["schema"] = "deltapipe.cli.CheckpointVerdict";
      object["path"] = listed.path;
      object["step"] = listed.step;
      object["generation"] = listed.generation;
      object["ok"] = is_good;
      object["num_files"] = verdict.num_files;
      object["bytes"] = verdict.num_bytes;
      object["defects"] = verdict.defects;
      PrintData(JsonLine(object));
      continue;
    }
    PrintData(absl::StrCat(
        BaseName(listed.path), ": ",
        is_good
            ? "ok"
            : Plural(static_cast<int64_t>(verdict.defects.size()), "defect"),
        ", ", Plural(verdict.num_files, "file"), ", ",
        FormatBytes(static_cast<double>(verdict.num_bytes)), " read\n"));
    for (const std::string& defect : verdict.defects) PrintError(defect);
  }
  return exit_code;
}

struct ExportVerbOptions {
  CheckpointChoice choice;
  ExportOptions output;
  std::string max_shard;
  bool json = false;
};

int Export(const ExportVerbOptions& given) {
  ExportOptions options = given.output;
  if (!given.max_shard.empty()) {
    const auto bytes = ParseBytes(given.max_shard);
    if (!bytes.ok() || *bytes < 1) {
      PrintError(absl::StrCat("--max-shard: ", bytes.ok()
                                                   ? "expected a size above 0"
                                                   : bytes.status().message()));
      return kExitUsage;
    }
    options.max_shard_bytes = *bytes;
  }
  const auto listed = FindCheckpointToRead(given.choice);
  if (!listed.ok()) return Fail(listed.status());
  const auto model = ExportCheckpoint(*listed, options);
  if (!model.ok()) return Fail(model.status());
  if (given.json) {
    Json object;
    object["schema"] = "deltapipe.cli.CheckpointExport";
    object["path"] = listed->path;
    object["step"] = listed->step;
    object["files"] = model->files;
    object["num_tensors"] = model->num_tensors;
    object["bytes"] = model->num_bytes;
    PrintData(JsonLine(object));
    return kExitOk;
  }
  PrintNote(absl::StrCat("step ", listed->step, ": ",
                         Plural(model->num_tensors, "tensor"), ", ",
                         FormatBytes(static_cast<double>(model->num_bytes))));
  for (const std::string& file : model->files) {
    PrintData(absl::StrCat(file, "\n"));
  }
  return kExitOk;
}

struct RemoveOptions {
  CheckpointChoice choice;
  bool yes = false;
  bool force = false;
  bool json = false;
};

/// Whether `listed` is good and no other checkpoint beside it is.
bool IsOnlyGoodOne(const ListedCheckpoint& listed,
                   const std::vector<ListedCheckpoint>& all) {
  for (const ListedCheckpoint& other : all) {
    if (other.path == listed.path) continue;
    if (VerifyCheckpoint(other, false).defects.empty()) return false;
  }
  // Parts that lie on this host may be all there is of it here.
  return VerifyCheckpoint(listed, true).defects.empty();
}

/// Asks on the terminal; false without an answer that begins with y.
bool IsAgreed(const std::string& path) {
  std::cerr << "Remove " << path << "? [y/N] " << std::flush;
  std::string answer;
  std::getline(std::cin, answer);
  return !answer.empty() && (answer[0] == 'y' || answer[0] == 'Y');
}

int Remove(const RemoveOptions& options) {
  const auto chosen = FindCheckpoints(options.choice);
  if (!chosen.ok()) return Fail(chosen.status());
  const bool is_named = options.choice.step || chosen->size() == 1;
  if (chosen->size() > 1 || !is_named) {
    PrintError(absl::StrCat(
        "'", options.choice.job, "' has ",
        Plural(static_cast<int64_t>(chosen->size()), "checkpoint"),
        " to choose from: name one by its folder, or by --step and "
        "--generation"));
    return kExitUsage;
  }
  const ListedCheckpoint& listed = chosen->front();
  const auto folder = FindCheckpointsFolder(options.choice);
  if (!folder.ok()) return Fail(folder.status());
  const auto all = ListCheckpoints(*folder);
  if (!all.ok()) return Fail(all.status());
  if (!options.force && IsOnlyGoodOne(listed, *all)) {
    PrintError(absl::StrCat(
        listed.path,
        " is the only good checkpoint of this job: nothing could be resumed "
        "without it; --force removes it all the same"));
    return kExitWrongState;
  }
  if (!options.yes) {
    if (isatty(STDIN_FILENO) == 0) {
      PrintError(absl::StrCat("cannot ask whether to remove ", listed.path,
                              ": stdin is no terminal; give --yes"));
      return kExitUsage;
    }
    if (!IsAgreed(listed.path)) {
      PrintNote("nothing was removed");
      return kExitOk;
    }
  }
  const absl::Status status = RemoveCheckpoint(listed.path);
  if (!status.ok()) return Fail(status);
  if (options.json) {
    PrintData(
        JsonLine(CheckpointJson("deltapipe.cli.RemovedCheckpoint", listed)));
  } else {
    PrintNote(absl::StrCat("removed ", listed.path));
  }
  return kExitOk;
}

}  // namespace

void AddCheckpointVerifyVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<VerifyOptions>();
  CLI::App* verb = group->add_subcommand(
      "verify", "Read checkpoints in full and name every defect");
  verb->add_option("CHECKPOINT", options->choice.job,
                   "A checkpoint's folder, or a run's name: all it has")
      ->required();
  verb->add_flag("--this-host", options->this_host,
                 "Files that lie on other hosts may be missing");
  AddJsonFlag(verb, &options->json);
  AddChoiceOptions(verb, &options->choice);
  SetExamples(verb,
              "  deltapipe checkpoint verify text\n"
              "  deltapipe checkpoint verify "
              "runs/text/checkpoints/step-000000050-g1");
  verb->callback([=] { *chosen = [=] { return Verify(*options); }; });
}

void AddCheckpointExportVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<ExportVerbOptions>();
  CLI::App* verb = group->add_subcommand(
      "export", "Write the model of a checkpoint as one safetensors file");
  verb->add_option("CHECKPOINT", options->choice.job,
                   "A checkpoint's folder, or a run's name: its newest")
      ->required();
  verb->add_option("OUT", options->output.output,
                   "The file to write, such as model.safetensors")
      ->required();
  verb->add_option("--max-shard", options->max_shard,
                   "Spread it over files of at most this size, with an index")
      ->type_name("SIZE");
  verb->add_flag("--force", options->output.may_replace,
                 "Replace files that are there");
  AddJsonFlag(verb, &options->json);
  AddChoiceOptions(verb, &options->choice);
  SetExamples(verb,
              "  deltapipe checkpoint export text model.safetensors\n"
              "  deltapipe checkpoint export text model.safetensors --step 50 "
              "--max-shard 5GB");
  verb->callback([=] { *chosen = [=] { return Export(*options); }; });
}

void AddCheckpointRemoveVerb(CLI::App* group, VerbAction* chosen) {
  auto options = std::make_shared<RemoveOptions>();
  CLI::App* verb = group->add_subcommand("rm", "Remove one checkpoint");
  verb->add_option("CHECKPOINT", options->choice.job,
                   "A checkpoint's folder, or a run's name beside --step")
      ->required();
  verb->add_flag("--yes", options->yes, "Do not ask");
  verb->add_flag("--force", options->force,
                 "Remove it even if it is the only good one");
  AddJsonFlag(verb, &options->json);
  AddChoiceOptions(verb, &options->choice);
  SetExamples(verb,
              "  deltapipe checkpoint rm text --step 50\n"
              "  deltapipe checkpoint rm "
              "runs/text/checkpoints/step-000000050-g1 --yes");
  verb->callback([=] { *chosen = [=] { return Remove(*options); }; });
}

}  // namespace deltapipe
