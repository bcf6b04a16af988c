#include "coordinator/cli/usage_hint.h"

#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

std::vector<std::string> VerbNames(const CLI::App& app) {
  std::vector<std::string> names;
  for (const CLI::App* verb : app.get_subcommands({})) {
    names.push_back(verb->get_name());
  }
  return names;
}

std::vector<std::string> FlagNames(const CLI::App& verb) {
  std::vector<std::string> names;
  for (const CLI::Option* option : verb.get_options()) {
    for (const std::string& name : option->get_lnames()) {
      names.push_back("--" + name);
    }
    for (const std::string& name : option->get_snames()) {
      names.push_back("-" + name);
    }
  }
  return names;
}

std::string Hint(const std::string& word,
                 const std::vector<std::string>& names) {
  const std::vector<absl::string_view> known(names.begin(), names.end());
  return NearestNameHint(word, known);
}

/// The verb that was parsed, as deep as it goes, and its words.
const CLI::App& ParsedVerb(const CLI::App& app, std::string* words) {
  const CLI::App* verb = &app;
  *words = app.get_name();
  while (true) {
    const std::vector<CLI::App*> parsed = verb->get_subcommands();
    if (parsed.empty()) return *verb;
    verb = parsed.back();
    absl::StrAppend(words, " ", verb->get_name());
  }
}

}  // namespace

std::string UnknownVerbMessage(const CLI::App& app, int argc,
                               const char* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return "";
  const std::string word = argv[1];
  const std::vector<std::string> names = VerbNames(app);
  for (const std::string& name : names) {
    if (name == word) return "";
  }
  return absl::StrCat("unknown verb '", word, "'", Hint(word, names), "; see ",
                      app.get_name(), " --help");
}

std::string UsageMessage(const CLI::App& app, const CLI::ParseError& error) {
  std::string words;
  const CLI::App& verb = ParsedVerb(app, &words);
  const std::string see = absl::StrCat("; see ", words, " --help");
  for (const std::string& extra : app.remaining(/*recurse=*/true)) {
    if (extra.empty() || extra == "--") continue;
    if (extra[0] == '-') {
      const std::string flag = extra.substr(0, extra.find('='));
      return absl::StrCat("unknown flag ", flag, Hint(flag, FlagNames(verb)),
                          see);
    }
    const std::vector<std::string> names = VerbNames(verb);
    return absl::StrCat(
        names.empty() ? "unexpected argument '" : "unknown verb '", extra, "'",
        Hint(extra, names), see);
  }
  return absl::StrCat(error.what(), see);
}

}  // namespace deltapipe
