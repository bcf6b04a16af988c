// deltapipe coordinator
#include <unistd.h>

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/host_name.h"
#include "base/mutex.h"
#include "base/path_roots.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/launch_options.h"
#include "coordinator/cli/make_profiler.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/launch/estimate_profile.h"
#include "coordinator/security/coordinator_security.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/listen_address.h"
#include "coordinator/service/status_server.h"

namespace deltapipe {
namespace {

constexpr std::chrono::seconds kLeastCertificateLifetime(5);

struct ServeOptions {
  std::string listen = kDefaultCoordinator;
  std::string store = "runs/coordinator.db";
  bool insecure = false;
  bool tls = false;
  std::vector<std::string> tls_hosts;
  std::string certificate_lifetime = "24h";
  int join_uses = 32;
  std::string join_lifetime = "24h";
  std::string metrics_listen;
  bool metrics_insecure = false;
  std::string tensorboard;
  std::vector<std::string> data_roots;
  std::string worker_lease = "10min";
  bool reflection = false;
  LaunchFlags launch;
  bool json = false;
};

/// Null where it serves plain text: on loopback, and where --insecure says so.
absl::StatusOr<std::unique_ptr<CoordinatorSecurity>> OpenSecurity(
    const ServeOptions& options, const std::string& store_path) {
  DP_ASSIGN_OR_RETURN(const ListenAddress listen,
                      ParseListenAddress(options.listen));
  if (!options.tls && (options.insecure || IsLoopback(listen.host))) {
    return nullptr;
  }
  // Before anything is made.
  DP_RETURN_IF_ERROR(CheckListenAddress(listen));
  SecurityOptions security;
  security.folder = SecurityFolderOf(store_path);
  DP_ASSIGN_OR_RETURN(const Nanos lifetime,
                      ParseDuration(options.certificate_lifetime));
  security.certificate_lifetime =
      std::chrono::duration_cast<std::chrono::milliseconds>(lifetime);
  if (security.certificate_lifetime < kLeastCertificateLifetime) {
    return absl::InvalidArgumentError(
        absl::StrCat("--certificate-lifetime ", options.certificate_lifetime,
                     " is too short to renew in: expected at least 5s"));
  }
  security.hosts = options.tls_hosts;
  if (listen.host != "0.0.0.0" && listen.host != "::") {
    security.hosts.push_back(listen.host);
  }
  return CoordinatorSecurity::Open(std::move(security));
}

/// What of a job's data.path it looks at: anything, as long as only this
/// machine can submit jobs and no flag says otherwise.
absl::StatusOr<PathRoots> RootsOf(const ServeOptions& options) {
  DP_ASSIGN_OR_RETURN(const ListenAddress listen,
                      ParseListenAddress(options.listen));
  const bool is_shared = options.tls || !IsLoopback(listen.host);
  if (!is_shared && options.data_roots.empty()) return PathRoots();
  return PathRoots::Beneath(options.data_roots, "--data-root");
}

/// The line that workers join with.
absl::StatusOr<std::string> MakeJoinLine(const ServeOptions& options,
                                         CoordinatorSecurity* security,
                                         const std::string& address) {
  NewToken wanted;
  wanted.name = "printed at the start";
  wanted.scope = TokenScope::kJoin;
  wanted.uses = options.join_uses;
  DP_ASSIGN_OR_RETURN(const Nanos lifetime,
                      ParseDuration(options.join_lifetime));
  wanted.lifetime =
      std::chrono::duration_cast<std::chrono::milliseconds>(lifetime);
  DP_ASSIGN_OR_RETURN(const IssuedToken issued,
                      security->tokens()->Create(wanted));
  // Nobody connects to 0.0.0.0.
  DP_ASSIGN_OR_RETURN(ListenAddress reached, ParseListenAddress(address));
  if (reached.host == "0.0.0.0" || reached.host == "::") {
    reached.host =
        options.tls_hosts.empty() ? HostName() : options.tls_hosts[0];
  }
  return absl::StrCat("deltapipe-worker --coordinator ", reached.ToString(),
                      " --join-token ", issued.secret, " --ca-hash ",
                      security->authority_hash());
}

int Serve(const ServeOptions& options) {
  SignalWatch signals([](int signal, int count) {
    // The second signal does not wait for anything.
    if (count > 1) _exit(ExitCodeOfSignal(signal));
  });
  CoordinatorOptions settings;
  settings.listen = options.listen;
  settings.insecure = options.insecure;
  settings.store_path = AbsolutePath(options.store);
  settings.metrics_listen = options.metrics_listen;
  settings.metrics_insecure = options.metrics_insecure;
  settings.tensorboard_folder = options.tensorboard;
  settings.keeps_workers = true;
  settings.reflection = options.reflection;
  const auto lease = ParseDuration(options.worker_lease);
  if (!lease.ok()) return Fail(lease.status());
  settings.worker_lease = *lease;
  const auto supply = MakeSupply(options.launch);
  if (!supply.ok()) return Fail(supply.status());
  settings.supply = supply->get();
  const auto profiler = MakeProfiler();
  if (profiler.ok()) {
    WorkerProfiler* const measuring = profiler->get();
    settings.profiler = [measuring](const v1::JobSpec& spec) {
      return measuring->Profile(spec);
    };
    settings.cancel_profiler = [measuring] { measuring->Cancel(); };
  } else if (absl::IsNotFound(profiler.status())) {
    PrintNote(
        "there is no deltapipe-worker beside this program: layer costs are "
        "estimated, not measured");
    settings.profiler =
        [](const v1::JobSpec& spec) -> absl::StatusOr<v1::StageProfile> {
      return EstimateProfile(spec);
    };
  } else {
    return Fail(profiler.status());
  }
  Mutex mutex;
  absl::Status taken_over;
  settings.on_taken_over = [&](const absl::Status& status) {
    {
      MutexLock lock(&mutex);
      taken_over = status;
    }
    signals.Wake();
  };
  const std::string folder =
      settings.store_path.substr(0, settings.store_path.rfind('/') + 1);
  const absl::Status made = MakeDirectories(folder);
  if (!made.ok()) return Fail(made);
  const auto security = OpenSecurity(options, settings.store_path);
  if (!security.ok()) return Fail(security.status());
  settings.security = security->get();
  const auto roots = RootsOf(options);
  if (!roots.ok()) return Fail(roots.status());
  settings.data_roots = *roots;
  if (*supply != nullptr && *security == nullptr) {
    PrintNote(
        "pods join with the token of the Secret deltapipe-join, which takes "
        "TLS: without --tls or an address off loopback they will not get in");
  }
  const auto coordinator = Coordinator::Start(settings);
  if (!coordinator.ok()) return Fail(coordinator.status());

  const std::string address = (*coordinator)->address();
  std::string join_line;
  if (*security != nullptr) {
    auto made = MakeJoinLine(options, security->get(), address);
    if (!made.ok()) return Fail(made.status());
    join_line = *std::move(made);
  }
  if (options.json) {
    Json object;
    object["event"] = "listening";
    object["schema"] = "deltapipe.cli.Listening";
    object["address"] = address;
    object["store"] = settings.store_path;
    if (*security != nullptr) {
      object["join_command"] = join_line;
      object["ca_file"] = (*security)->authority_pem_path();
      object["admin_token_file"] = (*security)->admin_token_path();
    }
    if (*supply != nullptr) object["launch"] = options.launch.kind;
    if (!options.metrics_listen.empty()) {
      object["metrics_address"] = (*coordinator)->metrics_address();
    }
    PrintData(JsonLine(object));
  } else {
    PrintData(absl::StrCat("listening on ", address, "; jobs are kept in ",
                           ShortPath(settings.store_path), "\n"));
    if (*security != nullptr) {
      PrintData(absl::StrCat(
          "TLS: users need --ca-file ",
          ShortPath((*security)->authority_pem_path()),
          " and a token (`deltapipe token create`), the first admin has ",
          ShortPath((*security)->admin_token_path()), "; workers join within ",
          options.join_lifetime, ", ", options.join_uses,
          " of them, with this line and --data-root DIR for the folder of "
          "their data\n",
          join_line, "\n"));
    }
    if (!options.metrics_listen.empty()) {
      PrintData(absl::StrCat("status page and metrics on http://",
                             (*coordinator)->metrics_address(), "/\n"));
    }
  }
  signals.AwaitSignal();
  absl::Status cause;
  {
    MutexLock lock(&mutex);
    cause = taken_over;
  }
  if (!cause.ok()) {
    (*coordinator)->Shutdown(std::string(cause.message()));
    return Fail(cause);
  }
  PrintNote("shutting down; jobs stay in the store");
  (*coordinator)->Shutdown("the coordinator was stopped");
  // To be stopped is a server's ordinary end.
  return signals.first_signal() == SIGTERM ? kExitOk : kExitInterrupted;
}

}  // namespace

void AddCoordinatorVerb(CLI::App* app, VerbAction* chosen) {
  auto options = std::make_shared<ServeOptions>();
  CLI::App* verb = app->add_subcommand(
      "coordinator", "Serve jobs to workers on this and other machines");
  verb->add_option("--listen", options->listen,
                   "Where to listen; port 0 takes a free one")
      ->check(HostPort(0))
      ->type_name("HOST:PORT")
      ->capture_default_str();
  verb->add_flag("--insecure", options->insecure,
                 "Allow listening off loopback, unencrypted and without "
                 "authentication");
  verb->add_flag("--tls", options->tls,
                 "Serve TLS and ask everybody who they are, also on loopback; "
                 "off loopback that is so without this flag")
      ->excludes("--insecure");
  verb->add_option("--tls-host", options->tls_hosts,
                   "Another name or address for the certificate; may be "
                   "repeated")
      ->type_name("HOST")
      ->allow_extra_args(false);
  verb->add_option("--certificate-lifetime", options->certificate_lifetime,
                   "How long certificates hold; they are renewed after two "
                   "thirds of it")
      ->type_name("TIME")
      ->capture_default_str();
  verb->add_option("--join-uses", options->join_uses,
                   "How many workers may join with the line that is printed")
      ->check(CLI::Range(1, 100000))
      ->capture_default_str();
  verb->add_option("--join-within", options->join_lifetime,
                   "How long that line holds")
      ->type_name("TIME")
      ->capture_default_str();
  verb->add_option("--store", options->store,
                   "The SQLite file with jobs, plans and events")
      ->type_name("FILE")
      ->capture_default_str();
  verb->add_option("--metrics-listen", options->metrics_listen,
                   "Where to serve a status page and Prometheus metrics over "
                   "HTTP; a port alone is one of 127.0.0.1")
      ->check([](const std::string& text) {
        return ParseStatusAddress(text).ok()
                   ? std::string()
                   : "expected HOST:PORT or a port, got '" + text + "'";
      })
      ->type_name("HOST:PORT");
  verb->add_flag("--metrics-insecure", options->metrics_insecure,
                 "Allow serving those off loopback, unencrypted, to everyone");
  verb->add_option("--tensorboard", options->tensorboard,
                   "Write event files for TensorBoard here, a folder a job")
      ->type_name("DIR");
  verb->add_option("--data-root", options->data_roots,
                   "Plan with the size of data that lies beneath this folder, "
                   "if it is here; may be repeated. Default: none off loopback "
                   "or with --tls, else any. Workers have their own")
      ->type_name("DIR")
      ->allow_extra_args(false);
  verb->add_option("--worker-lease", options->worker_lease,
                   "How long workers go on with their jobs, and look for a "
                   "coordinator here, when this one is gone")
      ->type_name("TIME")
      ->capture_default_str();
  verb->add_flag("--reflection", options->reflection,
                 "Let tools such as grpcurl ask for services and messages");
  AddLaunchOptions(verb, &options->launch);
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe coordinator\n"
              "  deltapipe coordinator --metrics-listen 9400 --tensorboard "
              "runs/tensorboard\n"
              "  deltapipe coordinator --listen 0.0.0.0:7707 --launch "
              "kubernetes --worker-image registry.example/deltapipe-worker:1\n"
              "  deltapipe coordinator --listen 10.77.0.1:7707\n"
              "Then, on each host, the line that it prints, and where to "
              "listen:\n"
              "  deltapipe-worker --coordinator 10.77.0.1:7707 --join-token "
              "TOKEN --ca-hash HASH --listen 10.77.0.2:0 --data-root /data");
  verb->callback([=] { *chosen = [=] { return Serve(*options); }; });
}

}  // namespace deltapipe
