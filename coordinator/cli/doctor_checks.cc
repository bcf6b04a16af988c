#include "coordinator/cli/doctor_checks.h"

#include <dlfcn.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cstdlib>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/units.h"
#include "base/version.h"
#include "coordinator/launch/child_process.h"
#include "coordinator/launch/find_worker_binary.h"
#include "coordinator/service/listen_address.h"

namespace deltapipe {
namespace {

constexpr double kLittleRoom = 64e6;
constexpr double kScarceRoom = 1e9;
constexpr rlim_t kFewFiles = 1024;
constexpr int64_t kClockMillis = 1000;

CheckResult Ok(std::string name, std::string detail) {
  return {std::move(name), Health::kOk, std::move(detail), ""};
}

/// The nearest folder around `path` that there is.
std::string ExistingFolder(std::string path) {
  while (!path.empty() && access(path.c_str(), F_OK) != 0) {
    const size_t slash = path.rfind('/');
    path = slash == std::string::npos ? "" : path.substr(0, slash);
  }
  return path.empty() ? "." : path;
}

/// The coordinator tells its time in what it would make of a spec.
CheckResult CheckClock(JobClient* client) {
  v1::SubmitJobRequest request;
  request.mutable_spec()->set_name("doctor");
  request.mutable_spec()->mutable_model()->set_kind("synthetic");
  request.set_validate_only(true);
  const int64_t before = Clock::Real()->WallMillis();
  const auto job = client->Submit(request);
  const int64_t after = Clock::Real()->WallMillis();
  if (!job.ok()) {
    return {"clock", Health::kWarning,
            absl::StrCat("not compared: ", job.status().message()), ""};
  }
  const int64_t off = job->create_time_millis() - (before + after) / 2;
  const std::string detail =
      absl::StrCat("the coordinator's differs by ", off, " ms (answered in ",
                   after - before, " ms)");
  if (std::llabs(off) <= kClockMillis + (after - before)) {
    return Ok("clock", detail);
  }
  return {"clock", Health::kWarning, detail,
          "synchronise both machines, by NTP for example: certificates and "
          "times in logs depend on it"};
}

}  // namespace

std::string HealthWord(Health health) {
  switch (health) {
    case Health::kWarning:
      return "warn";
    case Health::kFailure:
      return "fail";
    default:
      return "ok";
  }
}

std::vector<CheckResult> CheckCoordinator(JobClient* client,
                                          const std::string& address,
                                          bool is_needed) {
  const auto version = client->GetVersion();
  if (!version.ok()) {
    const Health health = is_needed ? Health::kFailure : Health::kWarning;
    return {{"coordinator", health, std::string(version.status().message()),
             is_needed ? "start it, or correct the address"
                       : "only submit and what follows it need one; run does "
                         "not"}};
  }
  const std::string detail =
      absl::StrCat(address, " has version ", version->version());
  CheckResult result = Ok("coordinator", detail);
  if (version->version() != kVersion) {
    result = {"coordinator", Health::kFailure,
              absl::StrCat(detail, ", this program ", kVersion),
              "install the same version on both"};
  }
  return {result, CheckClock(client)};
}

CheckResult CheckWorkerProgram() {
  const std::string name = "worker program";
  const auto path = FindWorkerBinary();
  if (!path.ok()) {
    return {name, Health::kFailure, std::string(path.status().message()),
            "put deltapipe-worker beside this program, or name it in "
            "DELTAPIPE_WORKER"};
  }
  const absl::StatusOr<std::string> version = [&] {
    std::FILE* output = std::tmpfile();
    if (output == nullptr) {
      return absl::StatusOr<std::string>(
          absl::ResourceExhaustedError("no temporary file could be made"));
    }
    absl::StatusOr<std::string> text;
    auto child = SpawnChild({{*path, "--version"}, fileno(output), -1});
    const ChildExit exit = child.ok() ? child->Wait() : ChildExit();
    if (!child.ok()) {
      text = child.status();
    } else if (!exit.ok()) {
      text = absl::InternalError(
          absl::StrCat(*path, " --version ended with ", exit.ToString()));
    } else {
      char buffer[200] = {};
      std::rewind(output);
      const size_t size = std::fread(buffer, 1, sizeof(buffer) - 1, output);
      text = std::string(buffer, size);
    }
    std::fclose(output);
    return text;
  }();
  if (!version.ok()) {
    return {name, Health::kFailure, std::string(version.status().message()),
            "see that LibTorch lies where it was built with: scripts/setup"};
  }
  if (!absl::StrContains(*version, kVersion)) {
    return {name, Health::kFailure,
            absl::StrCat(*path, " has version ",
                         version->substr(0, version->find('\n')),
                         ", this program ", kVersion),
            "build or install both from one commit"};
  }
  return Ok(name, absl::StrCat(*path, " runs"));
}

CheckResult CheckPorts() {
  const absl::Status status = CheckListenAddress({"127.0.0.1", 0});
  if (status.ok()) return Ok("ports", "loopback can be listened on");
  return {"ports", Health::kFailure, std::string(status.message()),
          "let this user open TCP ports"};
}

CheckResult CheckRunsFolder(const std::string& folder) {
  const std::string existing = ExistingFolder(folder);
  if (access(existing.c_str(), W_OK | X_OK) != 0) {
    return {"run folder", Health::kFailure,
            absl::StrCat(existing, " cannot be written"),
            "name another with --runs, or correct its permissions"};
  }
  struct statvfs disk = {};
  if (statvfs(existing.c_str(), &disk) != 0) {
    return {"run folder", Health::kWarning,
            absl::StrCat("the room in ", existing, " is not known"), ""};
  }
  const double room =
      static_cast<double>(disk.f_bavail) * static_cast<double>(disk.f_frsize);
  const std::string detail =
      absl::StrCat(FormatBytes(room), " free in ", existing);
  if (room >= kScarceRoom) return Ok("run folder", detail);
  return {"run folder",
          room < kLittleRoom ? Health::kFailure : Health::kWarning, detail,
          "free some, or name a folder on another disk with --runs"};
}

CheckResult CheckOpenFiles() {
  rlimit limit = {};
  getrlimit(RLIMIT_NOFILE, &limit);
  const std::string detail = limit.rlim_cur == RLIM_INFINITY
                                 ? std::string("unlimited")
                                 : absl::StrCat(limit.rlim_cur, " open files");
  if (limit.rlim_cur >= kFewFiles) return Ok("ulimit", detail);
  return {"ulimit", Health::kWarning, detail,
          absl::StrCat("raise it: ulimit -n ", kFewFiles)};
}

CheckResult CheckDevices() {
  if (access("/proc/driver/nvidia/version", R_OK) != 0) {
    return Ok("devices", "no NVIDIA driver: jobs compute on the CPU");
  }
  void* nccl = dlopen("libnccl.so.2", RTLD_LAZY | RTLD_LOCAL);
  if (nccl == nullptr) {
    return {"devices", Health::kWarning,
            "an NVIDIA driver, but no libnccl.so.2",
            "scripts/setup --cuda unpacks NCCL; TCP works without it"};
  }
  dlclose(nccl);
  return Ok("devices", "an NVIDIA driver and NCCL");
}

std::vector<CheckResult> CheckTlsFiles(const std::vector<std::string>& files) {
  std::vector<CheckResult> results;
  for (const std::string& file : files) {
    const auto text = ReadFile(file);
    if (!text.ok()) {
      results.push_back({"TLS file", Health::kFailure,
                         std::string(text.status().message()),
                         "correct the path or its permissions"});
      continue;
    }
    if (!absl::StrContains(*text, "-----BEGIN ")) {
      results.push_back({"TLS file", Health::kFailure,
                         absl::StrCat(file, " is not PEM"),
                         "give a certificate or key that begins with "
                         "-----BEGIN"});
      continue;
    }
    struct stat facts = {};
    const bool is_open = stat(file.c_str(), &facts) == 0 &&
                         (facts.st_mode & (S_IRWXG | S_IRWXO)) != 0;
    if (absl::StrContains(*text, "PRIVATE KEY-----") && is_open) {
      results.push_back({"TLS file", Health::kWarning,
                         absl::StrCat(file, " is a key that others may read"),
                         absl::StrCat("chmod 600 ", file)});
      continue;
    }
    results.push_back(Ok("TLS file", file));
  }
  return results;
}

}  // namespace deltapipe
