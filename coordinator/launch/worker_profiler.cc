#include "coordinator/launch/worker_profiler.h"

#include <errno.h>
#include <fcntl.h>
#include <google/protobuf/util/json_util.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <limits>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/checksum.h"
#include "base/deadline.h"
#include "base/file.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "base/temporary_folder.h"
#include "base/units.h"
#include "coordinator/launch/child_process.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxOutput = 4 << 20;
constexpr size_t kMaxLastWords = 2000;

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  std::string json;
  const auto status =
      google::protobuf::util::MessageToJsonString(message, &json);
  if (status.ok()) return json;
  return absl::InternalError(
      absl::StrCat("cannot write ", message.GetTypeName(),
                   " as JSON: ", std::string(status.message())));
}

absl::StatusOr<v1::StageProfile> ParseProfile(const std::string& json) {
  v1::StageProfile profile;
  const auto status =
      google::protobuf::util::JsonStringToMessage(json, &profile);
  if (!status.ok() || profile.layers().empty()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "the worker printed no profile but '", json.substr(0, 200), "'"));
  }
  return profile;
}

/// The spec with the device and the threads to measure with.
v1::JobSpec WithResources(v1::JobSpec spec) {
  v1::ParallelSpec* const parallel = spec.mutable_parallel();
  if (parallel->device().empty()) parallel->set_device("auto");
  if (parallel->threads() < 1) {
    const int num_workers =
        std::max(1, parallel->stages() * parallel->replicas());
    const int cores = static_cast<int>(std::thread::hardware_concurrency());
    parallel->set_threads(std::max(1, cores / num_workers));
  }
  return spec;
}

/// Names what a profile depends on.
absl::StatusOr<std::string> KeyOf(const std::string& worker_binary,
                                  const v1::JobSpec& spec) {
  v1::JobSpec part;
  *part.mutable_model() = spec.model();
  *part.mutable_train() = spec.train();
  part.mutable_train()->clear_steps();
  part.mutable_train()->clear_batch();
  // What is packed takes time, and is in the profile.
  part.mutable_compression()->set_saved_activations(
      spec.compression().saved_activations());
  part.mutable_parallel()->set_device(spec.parallel().device());
  part.mutable_parallel()->set_threads(spec.parallel().threads());
  DP_ASSIGN_OR_RETURN(std::string text, ToJson(part));
  struct stat status;
  if (stat(worker_binary.c_str(), &status) == 0) {
    absl::StrAppend(&text, worker_binary, status.st_size, ".",
                    status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec);
  }
  return absl::StrFormat(
      "%016x",
      Checksum(absl::MakeConstSpan(
          reinterpret_cast<const uint8_t*>(text.data()), text.size())));
}

std::string LastWords(const std::string& path) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return "nothing";
  const absl::string_view words = absl::StripAsciiWhitespace(*text);
  if (words.empty()) return "nothing";
  const size_t start =
      words.size() > kMaxLastWords ? words.size() - kMaxLastWords : 0;
  return std::string(words.substr(start));
}

}  // namespace

absl::StatusOr<std::unique_ptr<WorkerProfiler>> WorkerProfiler::Create(
    WorkerProfilerOptions options) {
  const int cancel_file = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (cancel_file < 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make an eventfd: ", strerror(errno)));
  }
  return std::unique_ptr<WorkerProfiler>(
      new WorkerProfiler(std::move(options), cancel_file));
}

WorkerProfiler::~WorkerProfiler() { close(cancel_file_); }

void WorkerProfiler::Cancel() { eventfd_write(cancel_file_, 1); }

absl::StatusOr<v1::StageProfile> WorkerProfiler::Profile(
    const v1::JobSpec& job_spec) {
  v1::JobSpec spec = WithResources(job_spec);
  DP_ASSIGN_OR_RETURN(const std::string key,
                      KeyOf(options_.worker_binary, spec));
  MutexLock lock(&mutex_);
  const auto found = known_.find(key);
  if (found != known_.end()) return found->second;
  if (!options_.cache_folder.empty()) {
    const absl::StatusOr<std::string> json = ReadFile(CachePath(key));
    if (json.ok()) {
      absl::StatusOr<v1::StageProfile> profile = ParseProfile(*json);
      if (profile.ok()) return known_[key] = *std::move(profile);
    }
  }
  DP_ASSIGN_OR_RETURN(v1::StageProfile profile, Measure(spec));
  Remember(key, profile);
  // What was measured for `auto` holds for the device that it meant.
  if (spec.parallel().device() == "auto" && !profile.device().empty()) {
    spec.mutable_parallel()->set_device(profile.device());
    DP_ASSIGN_OR_RETURN(const std::string named_key,
                        KeyOf(options_.worker_binary, spec));
    Remember(named_key, profile);
  }
  return profile;
}

std::string WorkerProfiler::CachePath(const std::string& key) const {
  return absl::StrCat(options_.cache_folder, "/profile-", key, ".json");
}

void WorkerProfiler::Remember(const std::string& key,
                              const v1::StageProfile& profile) {
  known_[key] = profile;
  if (options_.cache_folder.empty()) return;
  absl::Status kept = MakeDirectories(options_.cache_folder);
  const absl::StatusOr<std::string> json = ToJson(profile);
  if (kept.ok()) kept = json.status();
  if (kept.ok()) kept = WriteFileAtomically(CachePath(key), *json);
  // Without the cache the next run measures again.
  if (!kept.ok()) {
    LOG_WARNING << "the profile was not kept: " << kept.message();
  }
}

absl::StatusOr<v1::StageProfile> WorkerProfiler::Measure(
    const v1::JobSpec& spec) {
  DP_ASSIGN_OR_RETURN(const TemporaryFolder folder,
                      TemporaryFolder::Create("profile"));
  DP_ASSIGN_OR_RETURN(const std::string json, ToJson(spec));
  const std::string spec_path = folder.File("spec.json");
  DP_RETURN_IF_ERROR(WriteFileAtomically(spec_path, json));
  DP_ASSIGN_OR_RETURN(
      const std::string output,
      RunWorker(spec.parallel(), spec_path, folder.File("stderr")));
  return ParseProfile(output);
}

absl::StatusOr<std::string> WorkerProfiler::RunWorker(
    const v1::ParallelSpec& parallel, const std::string& spec_path,
    const std::string& stderr_path) {
  int output_pipe[2];
  if (pipe2(output_pipe, O_CLOEXEC) != 0) {
    return absl::ResourceExhaustedError(
        absl::StrCat("cannot make a pipe: ", strerror(errno)));
  }
  const int stderr_file =
      open(stderr_path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  ChildCommand command;
  command.argv = {options_.worker_binary,
                  "--profile",
                  spec_path,
                  "--device",
                  parallel.device(),
                  "--threads",
                  absl::StrCat(parallel.threads())};
  command.stdout_file = output_pipe[1];
  command.stderr_file = stderr_file;
  absl::StatusOr<ChildProcess> child = SpawnChild(command);
  close(output_pipe[1]);
  if (stderr_file >= 0) close(stderr_file);
  if (!child.ok()) {
    close(output_pipe[0]);
    return child.status();
  }
  const Deadline deadline = Deadline::After(options_.patience);
  std::string output;
  absl::Status status;
  for (;;) {
    pollfd files[] = {{output_pipe[0], POLLIN, 0}, {cancel_file_, POLLIN, 0}};
    const auto left = std::chrono::duration_cast<std::chrono::milliseconds>(
        deadline.remaining());
    const int num_ready =
        poll(files, 2,
             static_cast<int>(std::min<int64_t>(
                 left.count() + 1, std::numeric_limits<int>::max())));
    if (num_ready < 0 && errno == EINTR) continue;
    if (files[1].revents != 0) {
      status = absl::CancelledError("measuring was cancelled");
      break;
    }
    if (num_ready == 0 && deadline.has_passed()) {
      status = absl::DeadlineExceededError(
          absl::StrCat("the worker did not finish within ",
                       FormatDuration(options_.patience),
                       "; it said: ", LastWords(stderr_path)));
      break;
    }
    if (files[0].revents == 0) continue;
    char bytes[65536];
    const ssize_t size = read(output_pipe[0], bytes, sizeof(bytes));
    if (size < 0 && errno == EINTR) continue;
    if (size <= 0) break;
    output.append(bytes, static_cast<size_t>(size));
    if (output.size() > kMaxOutput) {
      status = absl::FailedPreconditionError(absl::StrCat(
          "the worker printed more than ", kMaxOutput, " bytes of profile"));
      break;
    }
  }
  close(output_pipe[0]);
  DP_RETURN_IF_ERROR(status);  // the child is killed on the way out
  const ChildExit exit = child->Wait();
  if (exit.ok()) return output;
  return absl::FailedPreconditionError(
      absl::StrCat("the worker ended with ", exit.ToString(),
                   "; it said: ", LastWords(stderr_path)));
}

absl::StatusOr<v1::StageProfile> RunProfiler(const std::string& worker_binary,
                                             const v1::JobSpec& spec) {
  WorkerProfilerOptions options;
  options.worker_binary = worker_binary;
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<WorkerProfiler> profiler,
                      WorkerProfiler::Create(std::move(options)));
  return profiler->Profile(spec);
}

}  // namespace deltapipe
