// deltapipe coordinator
#include <unistd.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "coordinator/cli/exit_code.h"
#include "coordinator/cli/json_line.h"
#include "coordinator/cli/make_profiler.h"
#include "coordinator/cli/run_folder.h"
#include "coordinator/cli/signal_watch.h"
#include "coordinator/cli/terminal.h"
#include "coordinator/cli/verb_options.h"
#include "coordinator/cli/verbs.h"
#include "coordinator/service/coordinator.h"
#include "coordinator/service/status_server.h"

namespace deltapipe {
namespace {

struct ServeOptions {
  std::string listen = kDefaultCoordinator;
  std::string store = "runs/coordinator.db";
  bool insecure = false;
  std::string metrics_listen;
  bool metrics_insecure = false;
  std::string tensorboard;
  bool json = false;
};

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
  const auto profiler = MakeProfiler();
  if (!profiler.ok()) return Fail(profiler.status());
  WorkerProfiler* const measuring = profiler->get();
  settings.profiler = [measuring](const v1::JobSpec& spec) {
    return measuring->Profile(spec);
  };
  settings.cancel_profiler = [measuring] { measuring->Cancel(); };
  const std::string folder =
      settings.store_path.substr(0, settings.store_path.rfind('/') + 1);
  const absl::Status made = MakeDirectories(folder);
  if (!made.ok()) return Fail(made);
  const auto coordinator = Coordinator::Start(settings);
  if (!coordinator.ok()) return Fail(coordinator.status());

  const std::string address = (*coordinator)->address();
  if (options.json) {
    Json object;
    object["event"] = "listening";
    object["schema"] = "deltapipe.cli.Listening";
    object["address"] = address;
    object["store"] = settings.store_path;
    if (!options.metrics_listen.empty()) {
      object["metrics_address"] = (*coordinator)->metrics_address();
    }
    PrintData(JsonLine(object));
  } else {
    PrintData(absl::StrCat("listening on ", address, "; jobs are kept in ",
                           ShortPath(settings.store_path), "\n"));
    if (!options.metrics_listen.empty()) {
      PrintData(absl::StrCat("status page and metrics on http://",
                             (*coordinator)->metrics_address(), "/\n"));
    }
  }
  signals.AwaitSignal();
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
  AddJsonFlag(verb, &options->json);
  SetExamples(verb,
              "  deltapipe coordinator\n"
              "  deltapipe coordinator --metrics-listen 9400 --tensorboard "
              "runs/tensorboard\n"
              "  deltapipe coordinator --listen 10.77.0.1:7707 --insecure\n"
              "Then, on each host:\n"
              "  deltapipe-worker --coordinator 10.77.0.1:7707 "
              "--listen 10.77.0.2:0 --insecure");
  verb->callback([=] { *chosen = [=] { return Serve(*options); }; });
}

}  // namespace deltapipe
