// deltapipe token create|ls|revoke, on the coordinator's machine: whoever can
// write its folder is its admin.
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/tls/certificate.h"
#include "base/units.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/table.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/security/coordinator_security.h"

namespace deltapipe {
namespace {

struct TokenOptions {
  std::string store = "runs/coordinator.db";
  std::string name;
  std::string scope = "viewer";
  std::string lifetime = "720h";
  int uses = 1;
  std::string id;
  bool json = false;
};

std::string StateOf(const TokenRecord& record) {
  if (record.is_revoked) return "revoked";
  if (record.expire_millis <= Clock::Real()->WallMillis()) return "expired";
  if (record.scope != TokenScope::kJoin) return "valid";
  return record.uses_left > 0 ? absl::StrCat(record.uses_left, " uses left")
                              : "used up";
}

Json ToJson(const TokenRecord& record) {
  Json object;
  object["schema"] = "deltapipe.cli.Token";
  object["id"] = record.id;
  object["name"] = record.name;
  object["scope"] = ScopeName(record.scope);
  object["state"] = StateOf(record);
  object["create_time_millis"] = record.create_millis;
  object["expire_time_millis"] = record.expire_millis;
  return object;
}

absl::StatusOr<std::unique_ptr<CoordinatorSecurity>> OpenSecurity(
    const TokenOptions& options) {
  SecurityOptions security;
  security.folder = SecurityFolderOf(options.store);
  return CoordinatorSecurity::OpenExisting(std::move(security));
}

int Create(const TokenOptions& options) {
  NewToken wanted;
  wanted.name = options.name;
  wanted.uses = options.uses;
  const auto scope = ParseScope(options.scope);
  if (!scope.ok()) return Fail(scope.status());
  wanted.scope = *scope;
  const auto lifetime = ParseDuration(options.lifetime);
  if (!lifetime.ok()) return Fail(lifetime.status());
  wanted.lifetime =
      std::chrono::duration_cast<std::chrono::milliseconds>(*lifetime);
  const auto security = OpenSecurity(options);
  if (!security.ok()) return Fail(security.status());
  const auto issued = (*security)->tokens()->Create(wanted);
  if (!issued.ok()) return Fail(issued.status());
  AuditEntry entry;
  entry.who = "the machine's user";
  entry.from = "localhost";
  entry.what = "token create";
  entry.object =
      absl::StrCat(issued->record.id, " ", options.scope, " ", options.name);
  entry.result = "OK";
  (*security)->audit()->Add(entry);
  if (options.json) {
    Json object = ToJson(issued->record);
    object["token"] = issued->secret;
    PrintData(JsonLine(object));
  } else {
    PrintData(issued->secret + "\n");
    PrintNote(absl::StrCat("token ", issued->record.id, " for ", options.name,
                           ", ", options.scope, ", until ",
                           UtcText(issued->record.expire_millis),
                           ": it is shown this once; keep it in a file that "
                           "only its user can read"));
  }
  return kExitOk;
}

int List(const TokenOptions& options) {
  const auto security = OpenSecurity(options);
  if (!security.ok()) return Fail(security.status());
  const auto records = (*security)->tokens()->List();
  if (!records.ok()) return Fail(records.status());
  Table table(
      {"TOKEN", "NAME", "SCOPE", "STATE", "EXPIRES"},
      {Align::kLeft, Align::kLeft, Align::kLeft, Align::kLeft, Align::kLeft});
  for (const TokenRecord& record : *records) {
    if (options.json) {
      PrintData(JsonLine(ToJson(record)));
    } else {
      table.AddRow({record.id, record.name, ScopeName(record.scope),
                    StateOf(record), UtcText(record.expire_millis)});
    }
  }
  if (!options.json) PrintData(table.ToString());
  return kExitOk;
}

int Revoke(const TokenOptions& options) {
  const auto security = OpenSecurity(options);
  if (!security.ok()) return Fail(security.status());
  const absl::Status revoked = (*security)->tokens()->Revoke(options.id);
  if (!revoked.ok()) return Fail(revoked);
  AuditEntry entry;
  entry.who = "the machine's user";
  entry.from = "localhost";
  entry.what = "token revoke";
  entry.object = options.id;
  entry.result = "OK";
  (*security)->audit()->Add(entry);
  if (options.json) {
    Json object;
    object["schema"] = "deltapipe.cli.RevokedToken";
    object["id"] = options.id;
    PrintData(JsonLine(object));
  } else {
    PrintData(absl::StrCat(options.id, " is revoked\n"));
  }
  return kExitOk;
}

void AddStore(CLI::App* verb, TokenOptions* options) {
  verb->add_option("--store", options->store,
                   "The coordinator's store; tokens lie beside it")
      ->type_name("FILE")
      ->capture_default_str();
  AddJsonFlag(verb, &options->json);
}

}  // namespace

void AddTokenVerb(CLI::App* app, VerbAction* chosen) {
  CLI::App* group = app->add_subcommand(
      "token", "Let users and workers in, on the coordinator's machine");
  group->require_subcommand(1);
  SetExamples(group,
              "  (umask 077; deltapipe token create --name alice > "
              "alice.token)\n"
              "  deltapipe token ls");
  auto options = std::make_shared<TokenOptions>();
  CLI::App* create = group->add_subcommand("create", "Make a token, show it");
  create->add_option("--name", options->name, "Whom it is for")->required();
  create
      ->add_option("--scope", options->scope,
                   "viewer, operator, admin, or join for workers")
      ->capture_default_str();
  create->add_option("--expires", options->lifetime, "How long it holds")
      ->type_name("TIME")
      ->capture_default_str();
  create->add_option("--uses", options->uses, "How many workers may join")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  AddStore(create, options.get());
  SetExamples(create,
              "  (umask 077; deltapipe token create --name alice --scope "
              "operator > alice.token)");
  create->callback([=] { *chosen = [=] { return Create(*options); }; });
  CLI::App* list =
      group->add_subcommand("ls", "List tokens, not their secrets");
  AddStore(list, options.get());
  SetExamples(list, "  deltapipe token ls");
  list->callback([=] { *chosen = [=] { return List(*options); }; });
  CLI::App* revoke =
      group->add_subcommand("revoke", "End a token from the next call on");
  revoke->add_option("TOKEN", options->id, "The token's id")->required();
  AddStore(revoke, options.get());
  SetExamples(revoke, "  deltapipe token revoke 3f9c2a1b");
  revoke->callback([=] { *chosen = [=] { return Revoke(*options); }; });
}

}  // namespace deltapipe
