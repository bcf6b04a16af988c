// A plain transcription of 0/1 Adam (arXiv 2202.06009, as DeepSpeed's
// ZeroOneAdam computes it, without its dummy first step) for n simulated ranks,
// in double: what the optimizer is compared with. Written from the description
// of the algorithm; shares no code with it. As there, the drift of local steps
// is undone by adding it up and taking it back.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_ZERO_ONE_ADAM_TRANSCRIPTION_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_ZERO_ONE_ADAM_TRANSCRIPTION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <vector>

#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class ZeroOneAdamTranscription {
 public:
  using Vector = std::vector<double>;

  struct Rank {
    Vector w, m, v, u;
  };

  ZeroOneAdamTranscription(const OptimizerOptions& o,
                           const ParameterLayout& layout, int num_ranks,
                           const Vector& weights)
      : o_(o), num_elements_(layout.num_elements) {
    const Vector zero(weights.size());
    ranks_.assign(static_cast<size_t>(num_ranks), {weights, zero, zero, zero});
    ResetErrors();
    for (const ParameterSegment& segment : layout.segments) {
      decay_.insert(decay_.end(), static_cast<size_t>(segment.num_elements),
                    segment.weight_decay       ? *segment.weight_decay
                    : segment.has_weight_decay ? o.weight_decay
                                               : 0.0);
      lr_scale_.insert(lr_scale_.end(),
                       static_cast<size_t>(segment.num_elements),
                       segment.learning_rate_scale);
    }
  }

  /// One step with each rank's gradient; returns whether it was compressed.
  bool Step(const std::vector<Vector>& gradients, double lr,
            const ReplayedSigns* replay = nullptr) {
    ++step_;
    return step_ <= o_.compress_after_step ? StageA(gradients, lr, replay)
                                           : StageB(gradients, lr, replay);
  }

  const std::vector<Rank>& ranks() const { return ranks_; }
  bool is_synchronized() const { return steps_since_sync_ == 0; }
  const SerialCompressedAllReduce& all_reduce() const { return *all_reduce_; }

 private:
  void ResetErrors() {
    all_reduce_ = std::make_unique<SerialCompressedAllReduce>(
        static_cast<int>(ranks_.size()), num_elements_);
  }

  double Direction(const Rank& rank, size_t i) const {
    return rank.m[i] / (std::sqrt(rank.v[i]) + o_.epsilon) +
           decay_[i] * rank.w[i];
  }

  bool StageA(const std::vector<Vector>& gradients, double lr,
              const ReplayedSigns* replay) {
    const bool is_exact = step_ % variance_interval_ == 0;
    Vector g(decay_.size());
    if (is_exact) {
      for (const Vector& gradient : gradients) {
        for (size_t i = 0; i < g.size(); ++i) g[i] += gradient[i];
      }
      for (double& value : g) value /= double(gradients.size());
    } else {
      g = all_reduce_->Run(gradients, replay);
    }
    for (Rank& rank : ranks_) {
      for (size_t i = 0; i < g.size(); ++i) {
        rank.m[i] = o_.beta1 * rank.m[i] + (1 - o_.beta1) * g[i];
        if (is_exact) {
          rank.v[i] = o_.beta2 * rank.v[i] + (1 - o_.beta2) * g[i] * g[i];
        }
        rank.w[i] -= lr_scale_[i] * lr * Direction(rank, i);
      }
    }
    if (is_exact && ++variance_updates_ % o_.variance_update_scaler == 0) {
      variance_interval_ *= 2;
    }
    return !is_exact;
  }

  bool StageB(const std::vector<Vector>& gradients, double lr,
              const ReplayedSigns* replay) {
    if (step_ == o_.compress_after_step + 1) ResetErrors();
    lr_sum_ += lr;
    for (size_t r = 0; r < ranks_.size(); ++r) {
      Rank& rank = ranks_[r];
      for (size_t i = 0; i < decay_.size(); ++i) {
        rank.m[i] = o_.beta1 * rank.m[i] + (1 - o_.beta1) * gradients[r][i];
        const double update = lr * Direction(rank, i);
        rank.w[i] -= lr_scale_[i] * update;
        rank.u[i] -= update;
      }
    }
    ++steps_since_sync_;
    const bool is_sync = step_ % local_interval_ == 0 || step_ == o_.num_steps;
    if (is_sync) Synchronize(replay);
    if (++local_steps_ % o_.local_step_scaler == 0) {
      local_interval_ = std::min(2 * local_interval_, o_.local_step_clipper);
    }
    return is_sync;
  }

  void Synchronize(const ReplayedSigns* replay) {
    std::vector<Vector> scaled;
    for (Rank& rank : ranks_) {
      Vector x(decay_.size());
      for (size_t i = 0; i < x.size(); ++i) {
        rank.w[i] -= lr_scale_[i] * rank.u[i];
        // The mean is taken of what descends, so that zero counts as +1 on the
        // same side.
        x[i] = -rank.u[i] * (std::sqrt(rank.v[i]) + o_.epsilon);
      }
      scaled.push_back(x);
    }
    const Vector mean = all_reduce_->Run(scaled, replay);
    for (Rank& rank : ranks_) {
      for (size_t i = 0; i < mean.size(); ++i) {
        rank.m[i] = mean[i] / lr_sum_;
        rank.w[i] -=
            lr_scale_[i] * mean[i] / (std::sqrt(rank.v[i]) + o_.epsilon);
        rank.u[i] = 0;
      }
    }
    lr_sum_ = 0;
    steps_since_sync_ = 0;
  }

  const OptimizerOptions o_;
  const int64_t num_elements_;
  std::vector<Rank> ranks_;
  Vector decay_, lr_scale_;
  std::unique_ptr<SerialCompressedAllReduce> all_reduce_;
  int64_t step_ = 0;
  int64_t variance_interval_ = 1, variance_updates_ = 0;
  int64_t local_interval_ = 1, local_steps_ = 0, steps_since_sync_ = 0;
  double lr_sum_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_ZERO_ONE_ADAM_TRANSCRIPTION_H_
