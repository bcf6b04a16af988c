#include "coordinator/background/control_plane.h"

#include <utility>

#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<std::unique_ptr<ControlPlane>> ControlPlane::Create(
    ControlPlaneOptions options) {
  const Nanos interval = options.tick;
  const bool awaits_return = options.roster.awaits_return;
  std::unique_ptr<ControlPlane> plane(new ControlPlane(std::move(options)));
  DP_RETURN_IF_ERROR(plane->supervisor_->Recover(awaits_return));
  JobSupervisor* const supervisor = plane->supervisor_.get();
  plane->timekeeper_ = std::make_unique<Timekeeper>(
      plane->clock_, interval, [supervisor, interval](Nanos elapsed) {
        supervisor->OnTick(elapsed, interval);
      });
  return plane;
}

ControlPlane::ControlPlane(ControlPlaneOptions options)
    : clock_(options.clock),
      check_spec_(std::move(options.check_spec)),
      store_(std::make_unique<TimedJobStore>(std::move(options.store), clock_)),
      roster_(std::move(options.roster), clock_),
      events_(store_.get(), clock_),
      logs_(store_.get()),
      figures_(clock_),
      sinks_({&figures_, &traces_, options.metrics}) {
  JobServices services;
  services.store = store_.get();
  services.roster = &roster_;
  services.events = &events_;
  services.logs = &logs_;
  services.clock = clock_;
  services.metrics = metrics();
  services.supply = options.supply;
  services.host = std::move(options.host);
  services.data_roots = std::move(options.data_roots);
  services.plan = std::move(options.plan);
  supervisor_ = std::make_unique<JobSupervisor>(std::move(services),
                                                std::move(options.profiler));
}

ControlPlane::~ControlPlane() { Shutdown("destroyed"); }

void ControlPlane::Shutdown(const std::string& reason) {
  timekeeper_.reset();
  supervisor_->Stop();
  roster_.Close(reason);
  events_.Close(reason);
  logs_.Close(reason);
}

}  // namespace deltapipe
