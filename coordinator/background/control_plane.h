// ControlPlane: the coordinator without its network: store, roster, jobs,
// events and time, put together in the order in which they need each other.
//
// The RPC handlers and the worker streams work on it. Thread-safe.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_CONTROL_PLANE_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_CONTROL_PLANE_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/clock.h"
#include "base/path_roots.h"
#include "coordinator/background/event_log.h"
#include "coordinator/background/job_supervisor.h"
#include "coordinator/background/log_book.h"
#include "coordinator/background/timekeeper.h"
#include "coordinator/metrics/fan_out_sink.h"
#include "coordinator/metrics/live_figures.h"
#include "coordinator/metrics/rpc_counts.h"
#include "coordinator/metrics/trace_collector.h"
#include "coordinator/roster/roster.h"
#include "coordinator/store/job_store.h"
#include "coordinator/store/timed_job_store.h"

namespace deltapipe {

struct ControlPlaneOptions {
  std::unique_ptr<JobStore> store;
  RosterOptions roster;
  Clock* clock = Clock::Real();
  /// What workers on this machine call it; see JobServices.
  std::string host;
  /// What of data.path it may look at; see JobServices.
  PathRoots data_roots;
  Profiler profiler;
  std::function<absl::StatusOr<PlanAnswer>(const PlanRequest&)> plan;
  /// What is wrong with a spec, one sentence each; empty: nothing.
  std::function<std::vector<std::string>(const v1::JobSpec&)> check_spec;
  Nanos tick = std::chrono::milliseconds(250);
  /// Also told of what the jobs do; may be null, outlives the control plane.
  MetricSink* metrics = nullptr;
  /// Brings workers for the jobs; may be null, outlives the control plane,
  /// which begins and ends it.
  WorkerSupply* supply = nullptr;
};

class ControlPlane {
 public:
  /// The errors of the store.
  static absl::StatusOr<std::unique_ptr<ControlPlane>> Create(
      ControlPlaneOptions options);
  ~ControlPlane();

  TimedJobStore* store() { return store_.get(); }
  Roster* roster() { return &roster_; }
  EventLog* events() { return &events_; }
  LogBook* logs() { return &logs_; }
  JobSupervisor* jobs() { return supervisor_.get(); }
  LiveFigures* figures() { return &figures_; }
  TraceCollector* traces() { return &traces_; }
  /// Where jobs leave their figures: the two above and the option's sink.
  MetricSink* metrics() { return &sinks_; }
  /// Of the server that works on this.
  RpcCounts* rpcs() { return &rpcs_; }
  Clock* clock() { return clock_; }
  std::vector<std::string> CheckSpec(const v1::JobSpec& spec) const {
    return check_spec_(spec);
  }

  /// Ends runners, says goodbye to workers, ends watches. Stored jobs stay as
  /// they are. Idempotent.
  void Shutdown(const std::string& reason);

 private:
  explicit ControlPlane(ControlPlaneOptions options);

  Clock* const clock_;
  const std::function<std::vector<std::string>(const v1::JobSpec&)> check_spec_;
  const std::unique_ptr<TimedJobStore> store_;
  Roster roster_;
  EventLog events_;
  LogBook logs_;
  LiveFigures figures_;
  TraceCollector traces_;
  RpcCounts rpcs_;
  FanOutSink sinks_;
  std::unique_ptr<JobSupervisor> supervisor_;
  std::unique_ptr<Timekeeper> timekeeper_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_CONTROL_PLANE_H_
