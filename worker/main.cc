// deltapipe-worker: computes one stage of one replica of a job.
#include <google/protobuf/util/json_util.h>
#include <sys/resource.h>
#include <sys/sysinfo.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <atomic>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iostream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/file.h"
#include "base/host_name.h"
#include "base/log.h"
#include "base/path_roots.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "base/tls/private_file.h"
#include "base/version.h"
#include "worker/control/assignment_paths.h"
#include "worker/control/worker.h"
#include "worker/control/worker_identity.h"
#include "worker/engine/nccl_upgrade.h"
#include "worker/stage/compare_saved.h"
#include "worker/stage/explain_saved.h"
#include "worker/stage/generate.h"
#include "worker/stage/profile.h"
#include "worker/stage/stage.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

/// It left, and its job can go on without it; or it was sent away and, being
/// there for one job, may be started again for as long as that needs workers.
constexpr int kExitResumable = 8;

struct Flags {
  std::string coordinator;
  std::string listen = "127.0.0.1:0";
  std::string advertise;
  bool insecure = false;
  bool nccl_plaintext = false;
  std::string launch_token;
  std::string join_token;
  std::string join_token_file;
  std::string ca_hash;
  std::string ca_file;
  std::string identity_folder;
  std::string name;
  std::string job;
  std::string device = "auto";
  std::string folder = "runs";
  std::vector<std::string> data_roots;
  std::vector<std::string> write_roots;
  std::string log_level = "info";
  std::string profile;
  std::string explain_saved;
  std::string layers;
  int rows = 20;
  bool json = false;
  std::vector<std::string> compare;
  bool finds_batch = false;
  int threads = 0;
  std::string sample;
  GenerateOptions generate;
};

bool IsLoopback(const std::string& address) {
  return absl::StartsWith(address, "127.") ||
         absl::StartsWith(address, "localhost:") ||
         absl::StartsWith(address, "[::1]");
}

int64_t MemoryBytes() {
  struct sysinfo info = {};
  sysinfo(&info);
  return static_cast<int64_t>(info.totalram) * info.mem_unit;
}

/// Every channel to a peer takes one.
void RaiseFileLimit() {
  rlimit files{};
  if (getrlimit(RLIMIT_NOFILE, &files) != 0) return;
  files.rlim_cur = files.rlim_max;
  setrlimit(RLIMIT_NOFILE, &files);  // where it fails, accept says so
}

/// NCCL opens ports of its own, by itself on any interface: those of a worker
/// that is on loopback stay there, unless the environment says where.
void KeepNcclOnLoopback() { setenv("NCCL_SOCKET_IFNAME", "lo", 0); }

/// The first SIGTERM or SIGINT lets the job go on without this worker, after a
/// checkpoint; the second ends the process at once. Made before other threads,
/// which inherit that these signals are blocked.
class LeaveSignals {
 public:
  static void Block() {
    const sigset_t signals = Signals();
    pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  }
  explicit LeaveSignals(Worker* worker)
      : thread_("signals", [this, worker] { Watch(worker); }) {}
  ~LeaveSignals() {
    is_over_ = true;
    thread_.Join();
  }

 private:
  static sigset_t Signals() {
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    return signals;
  }
  void Watch(Worker* worker) {
    const sigset_t signals = Signals();
    const timespec poll = {0, 100'000'000};
    int count = 0;
    while (!is_over_) {
      const int signal = sigtimedwait(&signals, nullptr, &poll);
      if (signal < 0) continue;
      if (++count > 1) _exit(128 + signal);
      LOG_INFO << strsignal(signal)
               << ": leaves after a checkpoint; once more ends at once";
      worker->Leave(strsignal(signal));
    }
  }

  std::atomic<bool> is_over_{false};
  Thread thread_;
};

/// The device for a job: what its spec says, else what this worker was started
/// with.
std::string DeviceFor(const v1::JobSpec& spec, const std::string& own) {
  const std::string& wanted = spec.parallel().device();
  return wanted.empty() || wanted == "auto" ? own : wanted;
}

absl::StatusOr<v1::JobSpec> ReadSpec(const std::string& path) {
  DP_ASSIGN_OR_RETURN(const std::string text, ReadFile(path));
  v1::JobSpec spec;
  const auto parsed = google::protobuf::util::JsonStringToMessage(text, &spec);
  if (!parsed.ok()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path,
                     " is not a job spec in JSON (`deltapipe plan SPEC` and "
                     "`deltapipe lab saved SPEC` take YAML and call this "
                     "program): ",
                     parsed.ToString()));
  }
  return spec;
}

absl::Status Profile(const Flags& flags) {
  DP_ASSIGN_OR_RETURN(const v1::JobSpec spec, ReadSpec(flags.profile));
  DP_ASSIGN_OR_RETURN(const auto device,
                      ResolveDevice(DeviceFor(spec, flags.device)));
  SetComputeThreads(flags.threads > 0 ? flags.threads
                                      : std::max(spec.parallel().threads(), 1));
  DP_ASSIGN_OR_RETURN(const v1::StageProfile profile,
                      ProfileModel(spec, device.first));
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(profile, &json).ok()) {
    return absl::InternalError("the profile cannot be written as JSON");
  }
  std::cout << json << std::endl;
  return absl::OkStatus();
}

/// A budget that is too small is a mistake in the spec or on the command line.
absl::Status AsUsage(const absl::Status& status) {
  return absl::IsResourceExhausted(status) &&
                 absl::StrContains(status.message(),
                                   "compression.saved_activations")
             ? absl::InvalidArgumentError(status.message())
             : status;
}

absl::Status Explain(const Flags& flags) {
  DP_ASSIGN_OR_RETURN(const v1::JobSpec spec, ReadSpec(flags.explain_saved));
  DP_ASSIGN_OR_RETURN(const auto device,
                      ResolveDevice(DeviceFor(spec, flags.device)));
  SetComputeThreads(std::max(flags.threads, 1));
  const std::pair<std::string, std::string> layers =
      absl::StrSplit(flags.layers, absl::MaxSplits(':', 1));
  int first = 0;
  int end = spec.model().layers();
  if (!flags.layers.empty() && (!absl::SimpleAtoi(layers.first, &first) ||
                                !absl::SimpleAtoi(layers.second, &end))) {
    return absl::InvalidArgumentError(absl::StrCat(
        "--layers: expected FIRST:END, as in 0:2, got ", flags.layers));
  }
  if (first < 0 || end <= first || end > spec.model().layers()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--layers: expected layers of 0 to ",
                     spec.model().layers(), ", got ", flags.layers));
  }
  if (!flags.compare.empty()) {
    SavedComparisonOptions options;
    options.policies = flags.compare;
    options.device = device.first;
    options.finds_batch = flags.finds_batch;
    const auto rows = CompareSaved(spec, options);
    DP_RETURN_IF_ERROR(AsUsage(rows.status()));
    std::cout << ComparisonText(*rows) << std::flush;
    return absl::OkStatus();
  }
  const auto explanation = ExplainSaved(spec, first, end, device.first);
  DP_RETURN_IF_ERROR(AsUsage(explanation.status()));
  std::cout << (flags.json ? ExplanationJson(*explanation)
                           : ExplanationText(*explanation, flags.rows))
            << std::flush;
  return absl::OkStatus();
}

absl::Status Sample(Flags flags) {
  flags.generate.model_path = absl::StrCat(flags.sample, "/model.safetensors");
  // One byte at a time leaves little to share among threads.
  SetComputeThreads(std::max(flags.threads, 1));
  std::fputs(flags.generate.prompt.c_str(), stdout);
  DP_RETURN_IF_ERROR(GenerateText(flags.generate, [](char byte) {
    std::fputc(byte, stdout);
    std::fflush(stdout);
  }));
  std::fputc('\n', stdout);
  return absl::OkStatus();
}

/// Null where nothing asks for TLS.
absl::StatusOr<std::unique_ptr<WorkerIdentity>> ObtainIdentity(
    const Flags& flags) {
  if (flags.join_token.empty() && flags.join_token_file.empty() &&
      flags.ca_hash.empty() && flags.ca_file.empty() &&
      flags.identity_folder.empty()) {
    return nullptr;
  }
  IdentityOptions options;
  options.coordinator = flags.coordinator;
  options.join_token = flags.join_token;
  if (!flags.join_token_file.empty()) {
    DP_ASSIGN_OR_RETURN(const std::string text,
                        ReadPrivateFile(flags.join_token_file));
    options.join_token = std::string(absl::StripAsciiWhitespace(text));
  }
  if (!flags.ca_file.empty()) {
    DP_ASSIGN_OR_RETURN(options.authority_pem,
                        ReadFile(flags.ca_file, int64_t{1} << 20));
  }
  options.authority_hash = flags.ca_hash;
  options.folder = flags.identity_folder;
  options.wanted_name = flags.name;
  return WorkerIdentity::Obtain(std::move(options));
}

/// What jobs may name: whatever this user may, as long as only this machine can
/// submit them; else, or where flags say so, what lies beneath roots.
absl::StatusOr<WorkerRoots> MakeRoots(const Flags& flags) {
  const bool has_identity = !flags.join_token.empty() ||
                            !flags.join_token_file.empty() ||
                            !flags.ca_hash.empty() || !flags.ca_file.empty() ||
                            !flags.identity_folder.empty();
  const bool is_shared = flags.launch_token.empty() &&
                         (has_identity || !IsLoopback(flags.coordinator));
  WorkerRoots roots;
  if (is_shared || !flags.data_roots.empty()) {
    roots.reads = PathRoots::Beneath(flags.data_roots, "--data-root");
    for (const auto& [name, path] :
         {std::pair("--identity", flags.identity_folder),
          std::pair("--join-token-file", flags.join_token_file)}) {
      if (path.empty() || !roots.reads.Resolve(name, path).ok()) continue;
      return absl::InvalidArgumentError(
          absl::StrCat(name, " ", path,
                       " lies beneath a --data-root, where jobs may read it: "
                       "keep secrets and data in different folders"));
    }
  }
  if (is_shared || !flags.write_roots.empty()) {
    std::vector<std::string> folders = {flags.folder};
    folders.insert(folders.end(), flags.write_roots.begin(),
                   flags.write_roots.end());
    roots.writes = PathRoots::Beneath(folders, "--write-root");
    DP_RETURN_IF_ERROR(MakeDirectories(flags.folder));
  }
  return roots;
}

absl::StatusOr<WorkerEnd> Serve(const Flags& flags) {
  DP_ASSIGN_OR_RETURN(const WorkerRoots roots, MakeRoots(flags));
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerIdentity> identity,
                      ObtainIdentity(flags));
  if (!flags.insecure && identity == nullptr && !IsLoopback(flags.listen)) {
    return absl::PermissionDeniedError(absl::StrCat(
        "--listen ", flags.listen,
        " is not on loopback, and the data channels "
        "are plain text: join with --join-token and --ca-hash, as the "
        "coordinator printed them, or give --insecure if everybody on that "
        "network may read and write them"));
  }
  DP_ASSIGN_OR_RETURN(const auto device, ResolveDevice(flags.device));
  TcpOptions tcp;
  tcp.advertised_host = flags.advertise;
  if (identity != nullptr) {
    tcp.tls = [own = identity.get()] { return own->context(); };
  }
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Transport> transport,
                      CreateTcpTransport(flags.listen, tcp));
  if (IsLoopback(transport->address()) && !IsLoopback(flags.coordinator)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "workers on other hosts cannot reach this one at ",
        transport->address(), ", and the coordinator is at ", flags.coordinator,
        ": give --listen HOST:0 with an address of this machine (and "
        "--insecure, if it has not joined with --join-token)"));
  }
  RaiseFileLimit();
  if (IsLoopback(transport->address())) KeepNcclOnLoopback();
  WorkerOptions options;
  options.coordinator = flags.coordinator;
  options.run_folder = flags.folder;
  options.roots = roots;
  if (roots.writes.is_restricted()) {
    LOG_INFO << "jobs may read their data from " << roots.reads.ToString()
             << " (--data-root) and write to " << roots.writes.ToString()
             << " (--folder, --write-root)";
  }
  options.transport = transport.get();
  options.hello.set_version(kVersion);
  options.hello.set_host(HostName());
  options.hello.set_pid(getpid());
  std::string address = transport->address();
  // Listening on every address, this worker cannot know which one its peers
  // reach; the coordinator sees it on the control connection.
  if (absl::StartsWith(address, "0.0.0.0:") ||
      absl::StartsWith(address, "[::]:")) {
    address = address.substr(address.rfind(':'));
  }
  options.hello.set_data_address(address);
  options.hello.set_device(device.second);
  options.hello.set_cores(
      static_cast<int>(std::max(1u, std::thread::hardware_concurrency())));
  options.hello.set_memory_bytes(MemoryBytes());
  options.hello.set_launch_token(flags.launch_token);
  options.hello.set_worker_id(flags.name);
  options.hello.set_job_id(flags.job);
  if (identity != nullptr) {
    options.hello.set_worker_id(identity->worker_id());
    options.credentials = [own = identity.get()] { return own->credentials(); };
  }
  options.set_threads = &SetComputeThreads;
  options.make_stage = [own_device =
                            flags.device](const v1::Assignment& assignment)
      -> absl::StatusOr<std::unique_ptr<Stage>> {
    const v1::Plan& plan = assignment.plan();
    const int stage = assignment.rank() / plan.num_replicas();
    if (assignment.spec().model().kind() == "synthetic") {
      return MakeSyntheticStage(assignment.spec(), stage, plan.num_stages());
    }
    DP_ASSIGN_OR_RETURN(const auto device, ResolveDevice(DeviceFor(
                                               assignment.spec(), own_device)));
    return MakeTorchStage(assignment.spec(), plan.stages(stage).first_layer(),
                          plan.stages(stage).end_layer(), device.first);
  };
  NcclUpgradeOptions nccl;
  nccl.is_secured = identity != nullptr;
  nccl.allows_plain_text = flags.nccl_plaintext;
  options.make_nccl = NcclUpgrades(nccl);
  const std::unique_ptr<Worker> worker = Worker::Create(options);
  // Those that a run has started end with it, by whatever signal.
  std::unique_ptr<LeaveSignals> signals;
  if (flags.launch_token.empty()) {
    signals = std::make_unique<LeaveSignals>(worker.get());
  }
  return worker->Serve();
}

int Main(int argc, char** argv) {
  // A peer that closes a socket is an error to handle, not a signal.
  std::signal(SIGPIPE, SIG_IGN);
  Flags flags;
  CLI::App app(
      "Computes one stage of one replica for a deltapipe coordinator.\n"
      "Example: deltapipe-worker --coordinator 10.77.0.1:7707 --listen "
      "10.77.0.2:0 --insecure");
  app.set_version_flag("--version",
                       absl::StrCat("deltapipe-worker ", kVersion));
  auto* coordinator = app.add_option("--coordinator", flags.coordinator,
                                     "HOST:PORT of the coordinator to serve");
  app.add_option("--listen", flags.listen,
                 "HOST:PORT for the data of other workers; port 0 takes a free "
                 "one")
      ->capture_default_str();
  app.add_option("--advertise", flags.advertise,
                 "host that other workers reach this one by, if not the one "
                 "listened on");
  app.add_flag("--insecure", flags.insecure,
               "allow listening off loopback, in plain text");
  app.add_flag("--nccl-plaintext", flags.nccl_plaintext,
               "allow jobs with network.transport: nccl, which encrypts "
               "nothing, although this worker's other connections are TLS");
  auto* join_token = app.add_option(
      "--join-token", flags.join_token,
      "secret that the coordinator printed: this worker asks for a "
      "certificate, and all its connections are TLS");
  app.add_option("--join-token-file", flags.join_token_file,
                 "the same from a file that only this user can read")
      ->excludes(join_token);
  auto* ca_hash =
      app.add_option("--ca-hash", flags.ca_hash,
                     "hash of the coordinator's authority, as it printed it");
  app.add_option("--ca-file", flags.ca_file,
                 "certificate of the coordinator's authority")
      ->excludes(ca_hash);
  app.add_option("--identity", flags.identity_folder,
                 "folder of this worker alone that keeps its certificate, with "
                 "which it comes back without a token");
  app.add_option("--launch-token", flags.launch_token,
                 "given by the program that started this one")
      ->group("");
  app.add_option("--name", flags.name,
                 "what the coordinator should call this worker")
      ->group("");
  app.add_option("--job", flags.job,
                 "serve this job of the coordinator and no other");
  app.add_option("--device", flags.device,
                 "auto, cpu or cuda; for jobs whose parallel.device is auto")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->capture_default_str();
  app.add_option("--folder", flags.folder,
                 "below which jobs leave their models, in a folder named like "
                 "the job, unless `run` or `submit --run-folder` named another")
      ->capture_default_str();
  app.add_option("--data-root", flags.data_roots,
                 "let jobs read their data beneath this folder; may be given "
                 "more than once. Without it: nothing for a worker whose "
                 "coordinator is off loopback or asks who it is, anything for "
                 "others")
      ->take_all()
      ->expected(1);
  app.add_option("--write-root", flags.write_roots,
                 "let jobs write models and checkpoints beneath this folder, "
                 "too, besides --folder; may be given more than once. Others "
                 "than those workers may write anywhere without it")
      ->take_all()
      ->expected(1);
  app.add_option("--log-level", flags.log_level,
                 "debug, info, warning or error")
      ->capture_default_str();
  auto* profile = app.add_option(
      "--profile", flags.profile,
      "measure the layers of this job spec (JSON), print them as JSON and end");
  auto* explain = app.add_option("--explain-saved", flags.explain_saved,
                                 "list what one micro-batch of this job spec "
                                 "(JSON) keeps for its backward "
                                 "pass, and end");
  app.add_option("--layers", flags.layers,
                 "FIRST:END, the layers to look at (default: all)")
      ->needs(explain);
  app.add_option("--rows", flags.rows, "how many tensors to list")
      ->needs(explain)
      ->capture_default_str();
  app.add_option("--compare", flags.compare,
                 "compare this policy with none, in bytes, time and error; may "
                 "be given more than once")
      ->needs(explain)
      ->take_all()
      ->expected(1);
  app.add_flag("--batch", flags.finds_batch,
               "with --compare: look for the largest micro-batch that fits "
               "where the spec's fits without a policy")
      ->needs(explain);
  app.add_flag("--json", flags.json, "one JSON object a line")->needs(explain);
  app.add_option("--threads", flags.threads,
                 "threads for --profile (default: what the spec says, or 1) "
                 "and --sample (default 1)");
  auto* sample =
      app.add_option("--sample", flags.sample,
                     "write text with the model in this run folder and end");
  app.add_option("--prompt", flags.generate.prompt, "text to go on from")
      ->needs(sample);
  app.add_option("--bytes", flags.generate.num_bytes, "bytes to write")
      ->needs(sample)
      ->check(CLI::Range(int64_t{0}, int64_t{1} << 30))
      ->capture_default_str();
  app.add_option("--temperature", flags.generate.temperature,
                 "0 takes the most probable byte, 1 draws as the model says")
      ->needs(sample)
      ->check(CLI::Range(0.0, 10.0))
      ->capture_default_str();
  app.add_option("--seed", flags.generate.seed, "of the draws")->needs(sample);
  coordinator->excludes(profile)->excludes(sample);
  profile->excludes(sample)->excludes(explain);
  explain->excludes(sample)->excludes(coordinator);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  LogLevel level;
  absl::Status status = ParseLogLevel(flags.log_level, &level);
  if (status.ok()) {
    ConfigureLog(level, "worker");
    if (!flags.profile.empty()) {
      status = Profile(flags);
    } else if (!flags.explain_saved.empty()) {
      status = Explain(flags);
    } else if (!flags.sample.empty()) {
      status = Sample(flags);
    } else if (!flags.coordinator.empty()) {
      if (flags.launch_token.empty()) LeaveSignals::Block();
      const auto end = Serve(flags);
      if (end.ok() && (*end == WorkerEnd::kLeftJob || !flags.job.empty())) {
        return kExitResumable;
      }
      status = end.status();
    } else {
      status = absl::InvalidArgumentError(
          "one of --coordinator, --profile, --explain-saved or --sample is "
          "needed: see --help");
    }
  }
  if (status.ok()) return 0;
  std::cerr << "deltapipe-worker: " << status.message() << std::endl;
  switch (status.code()) {
    case absl::StatusCode::kInvalidArgument:
      return 2;
    case absl::StatusCode::kNotFound:
      return 3;
    case absl::StatusCode::kFailedPrecondition:
    case absl::StatusCode::kAlreadyExists:
      return 4;
    case absl::StatusCode::kUnavailable:
      return 5;
    case absl::StatusCode::kPermissionDenied:
    case absl::StatusCode::kUnauthenticated:
      return 6;
    default:
      return 1;
  }
}

}  // namespace
}  // namespace deltapipe

int main(int argc, char** argv) { return deltapipe::Main(argc, argv); }
