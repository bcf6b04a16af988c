// The tuner: from what links and workers measure to the finest setting whose
// sending hides behind compute, within an error budget.
//
// A setting hides if a step of the simulated pipeline, with the measured rates
// and compute, takes at most 3 % longer than with the fewest bits that the
// error budget allows. Of those that do, it proposes the one of least error;
// if only the fewest bits do, or not even they, those.
//
// It does not flap: bits fall when a step would be 5 % faster for it, and rise
// only if they would still hide with links a sixth slower; both only after the
// same finding in some steps in a row, not within some steps of a change, and
// never twice for the same setting unless something else came between.
//
// Called by the job's actor after each report. Pure but for `state`, which the
// caller keeps; deterministic.
#ifndef DELTAPIPE_COORDINATOR_TUNING_TUNER_H_
#define DELTAPIPE_COORDINATOR_TUNING_TUNER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "coordinator/tuning/link_meter.h"
#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// What was measured since the last observation.
struct TunerObservation {
  int64_t step = 0;  // the last one
  /// Of the slowest worker, per step; 0: not known.
  double compute_seconds = 0;
  std::vector<LinkSample> links;
};

struct TunerState {
  /// The last rates of each direction (boundary, is_gradient), bits per second;
  /// 0 where sending took no time.
  std::map<std::pair<int, bool>, std::deque<double>> rates;
  /// As last measured with few enough bits: error = range 2^(-bits).
  std::map<std::pair<int, bool>, double> ranges;
  std::deque<double> compute_seconds;
  uint32_t revision = 0;
  /// Observations since the revision changed.
  int observations = 0;
  /// What was found last, how often in a row, and what was last proposed.
  std::string found;
  int times_found = 0;
  std::string proposed;
};

struct TunerProposal {
  /// The next revision of what was in force.
  v1::Tuning tuning;
  /// A sentence with the figures, for the event log.
  std::string reason;
  double step_seconds_now = 0;   // simulated
  double step_seconds_then = 0;  // simulated
};

/// nullopt where nothing is to be changed, and always while the tuner is off, a
/// budget is in force or the job has one stage. The errors of a plan or codec
/// that cannot be simulated.
absl::StatusOr<std::optional<TunerProposal>> ProposeTuning(
    const v1::Tuning& current, const v1::JobSpec& spec, const v1::Plan& plan,
    const TunerObservation& observation, TunerState* state);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_TUNER_H_
