// WeightVersions: the stage's weights as steps see them, one module instance a
// version.
//
// Without delay there is one instance: step t is computed on the weights that
// update t - 1 made, and update t changes them in place. With a delay of one
// (schedule 2bw, PipeDream-2BW, arXiv 2006.09503, section 3.1) there are two,
// which steps use in turn: step t is computed on what update t - 2 made, while
// update t - 1 is made in the other instance. An update writes the instance
// whose gradients it takes, of which no micro-batch is in flight any more, so
// that weights never change under one.
//
//   versions->Of(t)->Forward(...), ->Backward(...)       // compute thread
//   ... gradients of Of(t) are synchronised ...          // update thread
//   optimizer->Apply(..., versions->BeginUpdate(t));
//   DP_RETURN_IF_ERROR(versions->EndUpdate(t));
//
// Updates come in the order of their steps, one at a time, from any one thread;
// Of(t) may be used meanwhile where t is not the step of the update, after
// update t - 1 - delay has ended. newest() is for moments without an update
// under way, or for the update's own thread.
#ifndef DELTAPIPE_WORKER_ENGINE_WEIGHT_VERSIONS_H_
#define DELTAPIPE_WORKER_ENGINE_WEIGHT_VERSIONS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "worker/stage/stage.h"

namespace deltapipe {

class WeightVersions {
 public:
  using MakeStage = std::function<absl::StatusOr<std::unique_ptr<Stage>>()>;

  /// `delay` is 0 or 1. All instances begin with the same weights. Errors are
  /// those of `make`.
  static absl::StatusOr<std::unique_ptr<WeightVersions>> Create(
      const MakeStage& make, int delay);

  int delay() const { return static_cast<int>(instances_.size()) - 1; }
  /// What computes this step.
  Stage* Of(int64_t step) const { return instance(step).stage.get(); }
  /// How many updates the weights of Of(step) lack.
  int64_t DelayOf(int64_t step) const {
    return step - instance(step).num_updates;
  }
  /// Holds what the last update made.
  Stage* newest() const { return instances_[newest_].stage.get(); }

  /// Those of all versions.
  std::vector<Stage*> stages() const;

  /// The weights for update `step` to change in place: the newest.
  absl::Span<float> BeginUpdate(int64_t step);
  absl::Status EndUpdate(int64_t step);

  /// What the update before the last made; empty without delay.
  absl::Span<const float> former() const;
  /// Goes on after `num_updates`. `former` may be empty, or is ignored without
  /// delay: then it is as `newest`. INVALID_ARGUMENT for another size.
  absl::Status Restore(int64_t num_updates, absl::Span<const float> newest,
                       absl::Span<const float> former);

 private:
  struct Instance {
    std::unique_ptr<Stage> stage;
    int64_t num_updates = 0;  // in its weights
  };

  explicit WeightVersions(std::vector<Instance> instances)
      : instances_(std::move(instances)) {}
  const Instance& instance(int64_t step) const {
    return instances_[static_cast<size_t>(step) % instances_.size()];
  }
  absl::Status Put(size_t index, int64_t num_updates,
                   absl::Span<const float> weights);

  std::vector<Instance> instances_;
  size_t newest_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_WEIGHT_VERSIONS_H_
