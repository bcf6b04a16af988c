#include "worker/stragglers/step_observation.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// The index of the first time that cannot follow the one before it, or the
/// number of times.
size_t FirstBadTime(absl::Span<const double> times) {
  double previous = 0;
  for (size_t i = 0; i < times.size(); ++i) {
    if (!std::isfinite(times[i]) || times[i] < previous) return i;
    previous = times[i];
  }
  return times.size();
}

}  // namespace

double ReplicaObservation::PaceSeconds() const {
  if (executed == 1) return done_seconds[0];
  return (done_seconds[executed - 1] - done_seconds[0]) / (executed - 1);
}

double ReplicaObservation::FinishSeconds(int count) const {
  if (count <= executed) return done_seconds[count - 1];
  return done_seconds[executed - 1] + (count - executed) * PaceSeconds();
}

int StepObservation::num_planned() const {
  int total = 0;
  for (const ReplicaObservation& replica : replicas) total += replica.planned;
  return total;
}

int StepObservation::num_executed() const {
  int total = 0;
  for (const ReplicaObservation& replica : replicas) total += replica.executed;
  return total;
}

double StepObservation::StepSeconds() const {
  double total = 0;
  for (const ReplicaObservation& replica : replicas) {
    total += replica.step_seconds;
  }
  return replicas.empty() ? 0 : total / static_cast<double>(replicas.size());
}

void EncodeObservation(const ReplicaObservation& observation,
                       absl::Span<double> out) {
  std::fill(out.begin(), out.end(), 0);
  const size_t capacity = (out.size() - 3) / 2;
  out[0] = observation.planned;
  out[1] = observation.executed;
  out[2] = observation.step_seconds;
  std::copy(observation.ready_seconds.begin(), observation.ready_seconds.end(),
            out.begin() + 3);
  std::copy(observation.done_seconds.begin(), observation.done_seconds.end(),
            out.begin() + 3 + capacity);
}

absl::StatusOr<ReplicaObservation> DecodeObservation(
    absl::Span<const double> values) {
  if (values.size() < 3 || values.size() % 2 == 0) {
    return absl::InvalidArgumentError(absl::StrCat("observation of a step has ",
                                                   values.size(),
                                                   " values, expected 3 + 2n"));
  }
  const size_t capacity = (values.size() - 3) / 2;
  const double planned = values[0], executed = values[1];
  if (!(planned >= 0 && planned <= static_cast<double>(capacity)) ||
      !(executed >= 0 && executed <= planned) ||
      planned != std::floor(planned) || executed != std::floor(executed)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "observation of a step: ", executed, " of ", planned,
        " micro-batches executed, expected counts up to ", capacity));
  }
  ReplicaObservation observation;
  observation.planned = static_cast<int>(planned);
  observation.executed = static_cast<int>(executed);
  observation.step_seconds = values[2];
  const size_t num_ready =
      observation.executed + (observation.is_cut() ? 1 : 0);
  const absl::Span<const double> ready = values.subspan(3, num_ready);
  const absl::Span<const double> done =
      values.subspan(3 + capacity, observation.executed);
  for (const absl::Span<const double> times :
       {ready, done, values.subspan(2, 1)}) {
    const size_t bad = FirstBadTime(times);
    if (bad < times.size()) {
      return absl::InvalidArgumentError(
          absl::StrCat("observation of a step: time ", times[bad], " of ",
                       "micro-batch ", bad, " cannot be"));
    }
  }
  observation.ready_seconds.assign(ready.begin(), ready.end());
  observation.done_seconds.assign(done.begin(), done.end());
  return observation;
}

}  // namespace deltapipe
