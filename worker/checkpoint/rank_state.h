// RankState: all that a worker needs to go on from a step as if nothing had
// happened. Everything else (sample order, learning rate, random numbers) is a
// function of the step.
#ifndef DELTAPIPE_WORKER_CHECKPOINT_RANK_STATE_H_
#define DELTAPIPE_WORKER_CHECKPOINT_RANK_STATE_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "compression/delta/record_set.h"
#include "worker/collective/gradient_sync.h"

namespace deltapipe {

/// Before the names of the optimizer's state of tied weights
/// (ParameterLayout::num_tied), beside that of all others.
inline constexpr char kTiedPrefix[] = "tied.";

/// Equal on all replicas of a stage.
struct StageState {
  std::vector<float> weights;  // in the order of the stage's ParameterLayout
  /// Where two versions are alive (schedule 2bw): the older one. Else empty.
  std::vector<float> former_weights;
  /// As Optimizer::ExportState names it, of the elements before tied_begin();
  /// that of the others after kTiedPrefix.
  std::map<std::string, std::vector<float>> optimizer;
  /// Of GradientNorm.
  double norm_ratio = 1;
  bool is_norm_ratio_known = false;
  /// Of SlotCursors.
  std::vector<int64_t> cursors;
  /// Of LossScale.
  std::vector<double> loss_scale;
  /// Micro-batches of the next step by replica; empty: the plan's.
  std::vector<int64_t> counts;
  /// Of CompressionSwitch.
  std::vector<double> compression;
};

/// Of one rank.
struct OwnState {
  SyncResiduals residuals;
  /// Of what is tied, as a rank of the group of all its owners' replicas.
  SyncResiduals tied_residuals;
  BoundaryState previous;  // of the boundary to the stage before
  BoundaryState next;
  /// Of SavedActivations: of each of WeightVersions::stages(). A file of before
  /// there were several has that of one, which is then for all.
  std::vector<std::string> saved_activations;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CHECKPOINT_RANK_STATE_H_
