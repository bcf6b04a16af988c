// Straggler scores: how slow each worker of a job is beside the fastest.
//
// Pure; called by JobFigures. Stages differ in work, so a worker is compared
// with the replicas of its stage. Where there is one replica, all there is to
// compare with are the other stages, each by what the plan predicts for it: the
// score then says as much about the plan. Only time of its own counts
// (computing): who waits for a slow peer is not slow.
//
//   const std::vector<double> scores = StragglerScores(paces);
#ifndef DELTAPIPE_COORDINATOR_METRICS_STRAGGLER_SCORE_H_
#define DELTAPIPE_COORDINATOR_METRICS_STRAGGLER_SCORE_H_

#include <vector>

namespace deltapipe {

struct RankPace {
  int stage = 0;
  double compute_seconds = 0;    // per step; 0: not known yet
  double predicted_seconds = 0;  // per step, by the plan; 0: not known
};

/// One score per entry, in (0, 1]: the best (relative) time over its own. 0
/// where the pace is not known. Predictions count only if there is one for all.
std::vector<double> StragglerScores(const std::vector<RankPace>& paces);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_STRAGGLER_SCORE_H_
