// deltapipe lab ...: runs deltapipe-lab beside this program.
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "compression/codec_spec.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/lab_saved.h"
#include "coordinator/cli/program_path.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

/// The verbs of deltapipe-lab (worker/lab/lab.cc), and `saved`, which is ours.
constexpr absl::string_view kLabVerbs[] = {"codec", "codecs",     "optimizer",
                                           "saved", "stragglers", "sweep"};

/// "" if `words` begin with a flag or a verb that deltapipe-lab has.
std::string UnknownLabVerb(const std::vector<std::string>& words) {
  if (words.empty() || absl::StartsWith(words[0], "-")) return "";
  for (const absl::string_view verb : kLabVerbs) {
    if (words[0] == verb) return "";
  }
  return absl::StrCat("unknown verb '", words[0], "'",
                      NearestNameHint(words[0], kLabVerbs),
                      "; see deltapipe lab --help");
}

}  // namespace

void AddLabVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* verb = app->add_subcommand(
      "lab",
      "Try codecs, optimizers, straggler policies and saved activations");
  // Everything after it is deltapipe-lab's, --help too.
  verb->prefix_command();
  verb->set_help_flag();
  SetExamples(verb,
              "  deltapipe lab codecs\n"
              "  deltapipe lab codec --codec \"int(4)\" --in x.safetensors "
              "--out y.safetensors\n"
              "  deltapipe lab sweep --in x.safetensors --plot x.svg\n"
              "  deltapipe lab optimizer --algorithm onebit_lamb --gradients "
              "g.safetensors \\\n"
              "      --parameters w.safetensors --ranks 4 --out "
              "trained.safetensors\n"
              "  deltapipe lab saved examples/text.yaml --policy "
              "\"fixed(int(4))\"\n"
              "  deltapipe lab stragglers --inject lognormal:1.0 --replicas 8 "
              "--microbatches 12");
  verb->callback([=] {
    *chosen = [verb]() -> int {
      const std::vector<std::string> words = verb->remaining();
      const std::string unknown = UnknownLabVerb(words);
      if (!unknown.empty()) {
        PrintError(unknown);
        return kExitUsage;
      }
      if (!words.empty() && words[0] == "saved") {
        return RunLabSaved({words.begin() + 1, words.end()});
      }
      return Fail(BecomeProgram(absl::StrCat(ProgramFolder(), "/deltapipe-lab"),
                                words));
    };
  });
}

}  // namespace deltapipe
