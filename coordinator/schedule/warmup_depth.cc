#include "coordinator/schedule/warmup_depth.h"

#include <algorithm>
#include <cmath>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "coordinator/schedule/orders.h"

namespace deltapipe {
namespace {

constexpr double kTieTolerance = 0.005;
constexpr double kGainBeyondHalf = 0.10;
/// Bounds the search for very long or very deep pipelines.
constexpr int64_t kSimulatedMicrobatches = 2'000'000;

bool Fits(const PipelineShape& shape, int depth,
          const std::vector<int64_t>& limits) {
  for (int stage = 0; stage < shape.num_stages; ++stage) {
    if (OneForwardOneBackwardInFlight(shape, stage, depth) >
        limits[static_cast<size_t>(stage)]) {
      return false;
    }
  }
  return true;
}

/// Depths from 0 up: every one at first, then in growing strides.
std::vector<int> CandidateDepths(const PipelineShape& shape) {
  const int64_t cells =
      static_cast<int64_t>(shape.num_stages) * shape.num_microbatches;
  const auto count = static_cast<size_t>(
      std::clamp<int64_t>(kSimulatedMicrobatches / cells, 8, 128));
  const int deepest = shape.num_stages > 1 ? shape.num_microbatches : 0;
  std::vector<int> depths;
  double depth = 0;
  while (depth <= deepest && depths.size() < count) {
    depths.push_back(static_cast<int>(depth));
    depth = depths.size() <= count / 2 ? depth + 1 : std::ceil(depth * 1.1 + 1);
  }
  return depths;
}

struct Tried {
  int depth = 0;
  double seconds = 0;
  bool is_beyond_half = false;
};

/// The least deep within the tolerance of the best; null if `tried` is empty.
const Tried* Smallest(const std::vector<Tried>& tried, bool beyond_half) {
  double best = -1;
  for (const Tried& t : tried) {
    if (t.is_beyond_half && !beyond_half) continue;
    if (best < 0 || t.seconds < best) best = t.seconds;
  }
  for (const Tried& t : tried) {
    if (t.is_beyond_half && !beyond_half) continue;
    if (t.seconds <= best * (1 + kTieTolerance)) return &t;
  }
  return nullptr;
}

}  // namespace

absl::StatusOr<DepthChoice> ChooseWarmupDepth(
    Schedule schedule, const PipelineShape& shape, const PipelineModel& model,
    const std::vector<int64_t>& in_flight_limits) {
  if (in_flight_limits.size() != static_cast<size_t>(shape.num_stages) ||
      !Fits(shape, 1 - shape.num_stages, in_flight_limits)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "choose warm-up depth: expected a limit of at least one micro-batch "
        "for each of ",
        shape.num_stages, " stages"));
  }
  const auto simulate = [&](int depth) -> absl::StatusOr<double> {
    schedule.warmup_depth = depth;
    DP_ASSIGN_OR_RETURN(const Simulation simulation,
                        Simulate(ProgramsOf(schedule, shape), model));
    return simulation.step_seconds;
  };

  DepthChoice choice;
  std::vector<Tried> tried;
  for (const int depth : CandidateDepths(shape)) {
    if (!Fits(shape, depth, in_flight_limits)) {
      choice.is_limited = true;
      break;
    }
    DP_ASSIGN_OR_RETURN(const double seconds, simulate(depth));
    const bool is_beyond_half =
        depth > 0 && 2 * OneForwardOneBackwardInFlight(shape, 0, depth) >
                         shape.num_microbatches;
    tried.push_back({depth, seconds, is_beyond_half});
  }
  if (tried.empty()) {
    // Plain 1F1B is too much: hold as many in flight as fit.
    DP_ASSIGN_OR_RETURN(choice.plain_step_seconds, simulate(0));
    int depth = -1;
    while (!Fits(shape, depth, in_flight_limits)) --depth;
    choice.warmup_depth = depth;
    DP_ASSIGN_OR_RETURN(choice.step_seconds, simulate(depth));
    return choice;
  }
  choice.plain_step_seconds = tried.front().seconds;
  const Tried* best = Smallest(tried, /*beyond_half=*/false);
  const Tried* deepest = Smallest(tried, /*beyond_half=*/true);
  if (best == nullptr ||
      deepest->seconds * (1 + kGainBeyondHalf) < best->seconds) {
    best = deepest;
  }
  choice.warmup_depth = best->depth;
  choice.step_seconds = best->seconds;
  return choice;
}

}  // namespace deltapipe
