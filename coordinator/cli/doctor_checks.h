// What `deltapipe doctor` looks at, one function each: nothing is changed, but
// for a spec that the coordinator is asked to check.
//
// Blocking, some seconds at most each.
#ifndef DELTAPIPE_COORDINATOR_CLI_DOCTOR_CHECKS_H_
#define DELTAPIPE_COORDINATOR_CLI_DOCTOR_CHECKS_H_

#include <string>
#include <vector>

#include "coordinator/cli/job_client.h"

namespace deltapipe {

enum class Health { kOk, kWarning, kFailure };

struct CheckResult {
  std::string name;
  Health health = Health::kOk;
  std::string detail;
  /// What to do about it; empty if all is well.
  std::string remedy;
};

/// Reachable, of this version, and its clock: `is_needed` makes silence a
/// failure.
std::vector<CheckResult> CheckCoordinator(JobClient* client,
                                          const std::string& address,
                                          bool is_needed);
/// The worker program is found, runs and has this version.
CheckResult CheckWorkerProgram();
/// A free port of loopback can be listened on.
CheckResult CheckPorts();
/// Room and permission to write where runs are kept.
CheckResult CheckRunsFolder(const std::string& folder);
/// Open files that a process may have.
CheckResult CheckOpenFiles();
/// NVIDIA's driver, and NCCL where there is one.
CheckResult CheckDevices();
/// That each file can be read, is PEM, and no key is readable by others.
std::vector<CheckResult> CheckTlsFiles(const std::vector<std::string>& files);

/// "ok", "warn" or "fail".
std::string HealthWord(Health health);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_DOCTOR_CHECKS_H_
