#include "coordinator/metrics/straggler_score.h"

#include <algorithm>
#include <cstddef>

namespace deltapipe {

std::vector<double> StragglerScores(const std::vector<RankPace>& paces) {
  const bool is_predicted = std::all_of(
      paces.begin(), paces.end(),
      [](const RankPace& pace) { return pace.predicted_seconds > 0; });
  std::vector<double> scores(paces.size(), 0);
  double best = 0;
  for (size_t i = 0; i < paces.size(); ++i) {
    if (paces[i].compute_seconds <= 0) continue;
    scores[i] = paces[i].compute_seconds /
                (is_predicted ? paces[i].predicted_seconds : 1);
    best = best == 0 ? scores[i] : std::min(best, scores[i]);
  }
  for (double& score : scores) score = score > 0 ? best / score : 0;
  return scores;
}

}  // namespace deltapipe
