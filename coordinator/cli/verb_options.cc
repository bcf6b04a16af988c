#include "coordinator/cli/verb_options.h"

#include <unistd.h>

#include <chrono>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/units.h"
#include "coordinator/cli/client_security.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/service/listen_address.h"
#include "coordinator/spec/corpus_check.h"

namespace deltapipe {

void AddJsonFlag(CLI::App* verb, bool* json) {
  verb->add_flag("--json", *json,
                 "Print JSON, one object a line, with a schema field");
}

CLI::Validator HostPort(int least_port) {
  const auto check = [least_port](std::string& text) -> std::string {
    const auto address = ParseListenAddress(text);
    if (address.ok() && address->port >= least_port) return "";
    return absl::StrCat("expected HOST:PORT with a port from ", least_port,
                        " to 65535, such as ", kDefaultCoordinator, ", got '",
                        text, "'");
  };
  return CLI::Validator(check, "");
}

CLI::Validator NotNegative() {
  const auto check = [](std::string& text) -> std::string {
    int number = 0;
    if (absl::SimpleAtoi(text, &number) && number >= 0) return "";
    return absl::StrCat("expected a whole number from 0 to ",
                        std::numeric_limits<int>::max(), ", got '", text, "'");
  };
  return CLI::Validator(check, "");
}

void AddCoordinatorOption(CLI::App* verb, std::string* address) {
  *address = kDefaultCoordinator;
  verb->add_option("--coordinator", *address, "Where the coordinator listens")
      ->envname("DELTAPIPE_COORDINATOR")
      ->check(HostPort(1))
      ->type_name("HOST:PORT")
      ->capture_default_str();
  AddSecurityOptions(verb);
}

CLI::Option* AddReconnectOption(CLI::App* verb, Nanos* limit) {
  *limit = std::chrono::seconds(60);
  const auto check = [](std::string& text) -> std::string {
    const auto duration = ParseDuration(text);
    return duration.ok() ? "" : std::string(duration.status().message());
  };
  const auto set = [limit](const std::string& text) {
    *limit = ParseDuration(text).value_or(*limit);  // it was checked
  };
  return verb
      ->add_option_function<std::string>(
          "--reconnect-for", set,
          "How long to try again when the coordinator goes away; 0 ends at "
          "once")
      ->check(CLI::Validator(check, ""))
      ->type_name("DURATION")
      ->default_str("60s");
}

void AddSecurityOptions(CLI::App* verb) {
  ClientSecurity* const security = CommandLineSecurity();
  CLI::Option* const ca_file =
      verb->add_option("--ca-file", security->ca_file,
                       "Certificate of the coordinator's authority: use TLS")
          ->envname("DELTAPIPE_CA_FILE")
          ->type_name("FILE");
  verb->add_option("--ca-hash", security->ca_hash,
                   "The authority's hash instead, as the coordinator printed "
                   "it")
      ->envname("DELTAPIPE_CA_HASH")
      ->type_name("HASH")
      ->excludes(ca_file);
  verb->add_option("--token-file", security->token_file,
                   "File with your token, readable for you alone")
      ->envname("DELTAPIPE_TOKEN_FILE")
      ->type_name("FILE");
}

void AddRunsOption(CLI::App* verb, std::string* runs) {
  *runs = kDefaultRuns;
  verb->add_option("--runs", *runs, "The folder that holds a folder per run")
      ->type_name("DIR")
      ->capture_default_str();
}

void AddSpecOptions(CLI::App* verb, SpecOptions* options) {
  verb->add_option("SPEC", options->path, "The job spec, YAML or JSON")
      ->required()
      ->type_name("FILE");
  verb->add_option("--set", options->overrides,
                   "Override a field of the spec; may be repeated")
      ->type_name("PATH=VALUE")
      ->allow_extra_args(false);
}

void AddInjectOption(CLI::App* verb, SpecOptions* options) {
  verb->add_option("--inject", options->inject,
                   "Make replicas slow, as in 'lab stragglers': "
                   "lognormal:1.0, slow:rank=3,x=1.5, input:rank=3,by=20ms "
                   "(stragglers.inject of the spec)")
      ->type_name("TEXT");
}

void SetExamples(CLI::App* verb, const std::string& examples) {
  verb->footer(absl::StrCat("Examples:\n", examples));
}

bool ExplainViolations(const SpecOptions& options, const SpecReading& reading) {
  const std::vector<SpecViolation> violations = reading.violations();
  if (violations.empty()) return true;
  for (const SpecViolation& violation : violations) {
    PrintNote(violation.ToString());
  }
  PrintNote(absl::StrCat(violations.size(),
                         violations.size() == 1 ? " mistake" : " mistakes",
                         " in ", options.path, "; nothing was started"));
  return false;
}

bool ReadSpecOrExplain(const SpecOptions& options, CorpusCheck check,
                       SpecReading* reading) {
  std::vector<std::string> overrides = options.overrides;
  if (!options.inject.empty()) {
    overrides.push_back(absl::StrCat("stragglers.inject=", options.inject));
  }
  auto read = ReadJobSpec(options.path, overrides);
  if (!read.ok()) {
    PrintError(std::string(read.status().message()));
    return false;
  }
  const bool is_corpus_due =
      check == CorpusCheck::kAlways ||
      (check == CorpusCheck::kIfHere &&
       access(read->spec.data().path().c_str(), F_OK) == 0);
  if (is_corpus_due && !read->is_refused("data.path") &&
      !read->is_refused("model.kind")) {
    read->Add(CheckCorpus(read->spec));
  }
  if (!ExplainViolations(options, *read)) return false;
  *reading = *std::move(read);
  return true;
}

int Fail(const absl::Status& status) {
  PrintError(std::string(status.message()));
  return ExitCodeOf(status);
}

}  // namespace deltapipe
