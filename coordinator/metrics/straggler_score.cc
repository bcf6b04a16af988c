#include "coordinator/metrics/straggler_score.h"

#include <algorithm>
#include <cstddef>
#include <map>

namespace deltapipe {

std::vector<double> StragglerScores(const std::vector<RankPace>& paces) {
  std::map<int, int> num_ranks;  // by stage
  bool is_predicted = true;
  bool has_replicas = false;
  for (const RankPace& pace : paces) {
    is_predicted = is_predicted && pace.predicted_seconds > 0;
    has_replicas = ++num_ranks[pace.stage] > 1 || has_replicas;
  }
  std::vector<double> scores(paces.size(), 0);
  std::map<int, double> best;  // by stage; of all in [0] without replicas
  for (size_t i = 0; i < paces.size(); ++i) {
    if (paces[i].compute_seconds <= 0) continue;
    scores[i] = paces[i].compute_seconds;
    if (!has_replicas && is_predicted) scores[i] /= paces[i].predicted_seconds;
    double& least = best[has_replicas ? paces[i].stage : 0];
    least = least == 0 ? scores[i] : std::min(least, scores[i]);
  }
  for (size_t i = 0; i < paces.size(); ++i) {
    if (scores[i] > 0) {
      scores[i] = best[has_replicas ? paces[i].stage : 0] / scores[i];
    }
  }
  return scores;
}

}  // namespace deltapipe
