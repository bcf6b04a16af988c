// deltapipe completion bash|zsh|fish: scripts made from the verbs themselves.
#include <algorithm>
#include <memory>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"

namespace deltapipe {
namespace {

struct VerbWords {
  std::string name;
  std::string description;
  std::vector<std::string> words;  // flags; of groups, verbs and their flags
};

/// Each once: the verbs of a group share some.
void AddFlags(const CLI::App& verb, std::vector<std::string>* words) {
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      const std::string flag = "--" + name;
      if (std::find(words->begin(), words->end(), flag) == words->end()) {
        words->push_back(flag);
      }
    }
  }
}

std::vector<VerbWords> AllWords(const CLI::App& app) {
  std::vector<VerbWords> all;
  for (const CLI::App* verb : app.get_subcommands({})) {
    VerbWords entry = {verb->get_name(), verb->get_description(), {}};
    for (const CLI::App* inner : verb->get_subcommands({})) {
      entry.words.push_back(inner->get_name());
      AddFlags(*inner, &entry.words);
    }
    AddFlags(*verb, &entry.words);
    all.push_back(std::move(entry));
  }
  return all;
}

std::string JoinNames(const std::vector<VerbWords>& verbs) {
  return absl::StrJoin(verbs, " ", [](std::string* out, const VerbWords& verb) {
    out->append(verb.name);
  });
}

/// Files complete wherever a word does not begin with '-'.
std::string BashScript(const std::vector<VerbWords>& verbs) {
  std::string script = absl::StrCat(
      "_deltapipe() {\n"
      "  local word=\"${COMP_WORDS[COMP_CWORD]}\" words=\"\"\n"
      "  if [ \"$COMP_CWORD\" -eq 1 ]; then\n"
      "    words=\"",
      JoinNames(verbs),
      " --help --version\"\n"
      "  else\n"
      "    case \"${COMP_WORDS[1]}\" in\n");
  for (const VerbWords& verb : verbs) {
    absl::StrAppend(&script, "      ", verb.name, ") words=\"",
                    absl::StrJoin(verb.words, " "), "\" ;;\n");
  }
  return script +
         "    esac\n"
         "  fi\n"
         "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
         "  if [ \"${#COMPREPLY[@]}\" -eq 0 ]; then\n"
         "    COMPREPLY=($(compgen -f -- \"$word\"))\n"
         "  fi\n"
         "}\n"
         "complete -o filenames -F _deltapipe deltapipe\n";
}

std::string ZshScript(const std::vector<VerbWords>& verbs) {
  return "#compdef deltapipe\n"
         "autoload -U +X bashcompinit && bashcompinit\n" +
         BashScript(verbs);
}

std::string FishScript(const std::vector<VerbWords>& verbs) {
  std::string script;
  for (const VerbWords& verb : verbs) {
    const std::string description =
        absl::StrReplaceAll(verb.description, {{"'", "\\'"}});
    absl::StrAppend(&script,
                    "complete -c deltapipe -n __fish_use_subcommand -f -a ",
                    verb.name, " -d '", description, "'\n");
    for (const std::string& word : verb.words) {
      const bool is_flag = word[0] == '-';
      absl::StrAppend(&script,
                      "complete -c deltapipe -n '__fish_seen_subcommand_from ",
                      verb.name, "' ", is_flag ? "-l " : "-f -a ",
                      is_flag ? word.substr(2) : word, "\n");
    }
  }
  return script;
}

}  // namespace

void AddCompletionVerb(CLI::App* app, VerbAction* chosen) {
  auto shell = std::make_shared<std::string>();
  CLI::App* verb = app->add_subcommand(
      "completion", "Print a script that completes verbs and flags");
  verb->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  SetExamples(verb,
              "  source <(deltapipe completion bash)\n"
              "  deltapipe completion zsh > ~/.zfunc/_deltapipe\n"
              "  deltapipe completion fish > "
              "~/.config/fish/completions/deltapipe.fish");
  verb->callback([=] {
    *chosen = [=] {
      const std::vector<VerbWords> verbs = AllWords(*app);
      PrintData(*shell == "bash"  ? BashScript(verbs)
                : *shell == "zsh" ? ZshScript(verbs)
                                  : FishScript(verbs));
      return kExitOk;
    };
  });
}

}  // namespace deltapipe
