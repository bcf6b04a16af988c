// deltapipe lab ...: runs deltapipe-lab beside this program.
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/cli/program_path.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {

void AddLabVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* verb = app->add_subcommand(
      "lab", "Try codecs and other parts on files (deltapipe-lab)");
  // Everything after it is deltapipe-lab's, --help too.
  verb->prefix_command();
  verb->set_help_flag();
  SetExamples(verb,
              "  deltapipe lab codecs\n"
              "  deltapipe lab codec --codec \"int(4)\" --in x.safetensors "
              "--out y.safetensors");
  verb->callback([=] {
    *chosen = [verb] {
      return Fail(BecomeProgram(absl::StrCat(ProgramFolder(), "/deltapipe-lab"),
                                verb->remaining()));
    };
  });
}

}  // namespace deltapipe
