#include "coordinator/cli/lab_saved.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/temporary_folder.h"
#include "compression/bit_plan/saved_policy.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/program_path.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "google/protobuf/util/json_util.h"

namespace deltapipe {
namespace {

struct Options {
  SpecOptions spec;
  std::string policy;
  std::vector<std::string> compare;
  bool finds_batch = false;
  int stage = 0;
  int rows = 20;
  bool json = false;
};

int ListPolicies(bool json) {
  for (const SavedPolicyInfo& info : AllSavedPolicies()) {
    if (json) {
      Json object;
      object["schema"] = "deltapipe.lab.SavedPolicy";
      object["policy"] = std::string(info.name);
      object["summary"] = std::string(info.summary);
      object["paper"] = std::string(info.source);
      object["parameters"] = Json::array();
      for (const CodecParameter& parameter : info.parameters) {
        Json entry;
        entry["name"] = std::string(parameter.name);
        entry["range"] = CodecParameterRange(parameter);
        entry["default"] = std::string(parameter.default_text);
        entry["summary"] = std::string(parameter.summary);
        object["parameters"].push_back(std::move(entry));
      }
      PrintData(JsonLine(object));
      continue;
    }
    std::string text = absl::StrCat(info.name, ": ", info.summary, "\n");
    for (const CodecParameter& parameter : info.parameters) {
      absl::StrAppend(
          &text, "  ", parameter.name, " = ", CodecParameterRange(parameter),
          parameter.default_text.empty()
              ? " (required)"
              : absl::StrCat(" (default ", parameter.default_text, ")"),
          ": ", parameter.summary, "\n");
    }
    if (!info.source.empty()) {
      absl::StrAppend(&text, "  from: ", info.source, "\n");
    }
    PrintData(text);
  }
  return kExitOk;
}

absl::Status Explain(const Options& options, v1::JobSpec spec) {
  const int num_stages = spec.parallel().stages();
  const int num_layers = spec.model().layers();
  if (options.stage < 0 || options.stage >= num_stages) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--stage: expected 0 to ", num_stages - 1, ", got ", options.stage));
  }
  if (!options.policy.empty()) {
    DP_ASSIGN_OR_RETURN(const auto policy, MakeSavedPolicy(options.policy));
    spec.mutable_compression()->set_saved_activations(policy->text());
  }
  for (const std::string& policy : options.compare) {
    DP_RETURN_IF_ERROR(MakeSavedPolicy(policy).status());
  }
  if (options.compare.empty() &&
      spec.compression().saved_activations() == "none") {
    return absl::InvalidArgumentError(
        "compression.saved_activations is none in this spec, which keeps "
        "everything as it is: name one to try, as in --policy "
        "\"fixed(int(4))\" "
        "(`deltapipe lab saved` lists them)");
  }
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(spec, &json).ok()) {
    return absl::InternalError("the spec cannot be written as JSON");
  }
  DP_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                      TemporaryFolder::Create("spec"));
  const std::string spec_path = folder.File("spec.json");
  DP_RETURN_IF_ERROR(WriteFileAtomically(spec_path, json));
  std::vector<std::string> arguments = {
      "--explain-saved",
      spec_path,
      "--layers",
      absl::StrCat(num_layers * options.stage / num_stages, ":",
                   num_layers * (options.stage + 1) / num_stages),
      "--rows",
      absl::StrCat(options.rows)};
  if (options.json) arguments.push_back("--json");
  for (const std::string& policy : options.compare) {
    arguments.push_back("--compare");
    arguments.push_back(policy);
  }
  if (options.finds_batch) arguments.push_back("--batch");
  if (spec.parallel().threads() > 0) {
    arguments.push_back("--threads");
    arguments.push_back(absl::StrCat(spec.parallel().threads()));
  }
  DP_ASSIGN_OR_RETURN(
      const std::string text,
      CaptureProgram(absl::StrCat(ProgramFolder(), "/deltapipe-worker"),
                     arguments));
  PrintData(text);
  return absl::OkStatus();
}

}  // namespace

int RunLabSaved(std::vector<std::string> words) {
  Options options;
  if (words.empty()) return ListPolicies(false);
  if (words.size() == 1 && words[0] == "--json") return ListPolicies(true);
  CLI::App app(
      "List the policies for saved activations, or show what a stage of SPEC "
      "keeps for its backward passes, tensor by tensor",
      "deltapipe lab saved");
  AddSpecOptions(&app, &options.spec);
  app.add_option("--policy", options.policy,
                 "in place of the spec's compression.saved_activations");
  app.add_option("--compare", options.compare,
                 "compare this policy with none on the whole model, in bytes, "
                 "time and error of the gradient; may be given more than once")
      ->take_all()
      ->expected(1);
  app.add_flag("--batch", options.finds_batch,
               "with --compare: look for the largest micro-batch that fits "
               "where train.microbatch fits without a policy");
  app.add_option("--stage", options.stage,
                 "which stage, the layers being cut evenly")
      ->capture_default_str();
  app.add_option("--explain", options.rows, "how many tensors to list")
      ->expected(0, 1)
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  AddJsonFlag(&app, &options.json);
  SetExamples(&app,
              "  deltapipe lab saved\n"
              "  deltapipe lab saved examples/text.yaml --policy "
              "\"fixed(int(4))\" --explain 10\n"
              "  deltapipe lab saved examples/text.yaml --compare "
              "\"fixed(int(8))\" --compare \"actnn(bits=2)\" --batch");
  std::reverse(words.begin(), words.end());
  try {
    app.parse(words);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? kExitOk : kExitUsage;
  }
  SpecReading reading;
  if (!ReadSpecOrExplain(options.spec, CorpusCheck::kIfHere, &reading)) {
    return kExitUsage;
  }
  const absl::Status status = Explain(options, reading.spec);
  return status.ok() ? kExitOk : Fail(status);
}

}  // namespace deltapipe
