// TuningControl: the knobs of running jobs, as the admin API sees them.
//
// JobSupervisor is the real one; FakeTuningControl stands in for it in tests.
// Implementations are thread-safe. Update and SetBudget block until the change
// is in force or refused.
#ifndef DELTAPIPE_COORDINATOR_RPC_TUNING_CONTROL_H_
#define DELTAPIPE_COORDINATOR_RPC_TUNING_CONTROL_H_

#include <functional>
#include <string>

#include "absl/status/statusor.h"
#include "base/deadline.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// Who asks for a change, and how long they wait.
struct TuningCaller {
  /// As the event log names them.
  std::string principal;
  Deadline deadline = Deadline::Infinite();
  /// Whether the caller has gone; asked while waiting. Never null.
  std::function<bool()> is_cancelled = [] { return false; };
};

class TuningControl {
 public:
  virtual ~TuningControl() = default;

  /// NOT_FOUND: no such job; FAILED_PRECONDITION: it has no plan yet.
  virtual absl::StatusOr<v1::Tuning> Get(const std::string& job_id) = 0;

  /// The job is request.tuning().job_id(). A request that is sent again, by its
  /// request_id, is answered as it was and changes nothing, whatever its etag,
  /// as long as the job remembers it (TuningAnswers), also after a restart of
  /// the coordinator; so is, later, one that comes while the first is on its
  /// way. Those that only validate are no such requests. INVALID_ARGUMENT: the
  /// id was that of another request. The errors of Get and of
  /// ApplyUpdate; FAILED_PRECONDITION naming the worker that cannot make the
  /// change; DEADLINE_EXCEEDED or CANCELLED: the caller did not wait for the
  /// outcome, which the job's events tell.
  virtual absl::StatusOr<v1::Tuning> Update(
      const v1::UpdateTuningRequest& request, const TuningCaller& caller) = 0;

  /// The same, with the errors of ApplyBudget.
  virtual absl::StatusOr<v1::Tuning> SetBudget(
      const v1::SetBudgetRequest& request, const TuningCaller& caller) = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_TUNING_CONTROL_H_
