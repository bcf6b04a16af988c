// A plain transcription of 1-bit Adam (arXiv 2102.02888, as DeepSpeed's
// OnebitAdam computes it, without its dummy first step) for n simulated ranks,
// in double: what the optimizer is compared with. Written from the description
// of the algorithm; shares no code with it.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_ADAM_TRANSCRIPTION_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_ADAM_TRANSCRIPTION_H_

#include <cmath>
#include <cstdint>
#include <vector>

#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class OneBitAdamTranscription {
 public:
  using Vector = std::vector<double>;

  OneBitAdamTranscription(const OptimizerOptions& o,
                          const ParameterLayout& layout, int num_ranks,
                          const Vector& weights)
      : w(weights),
        m(weights.size()),
        v(weights.size()),
        o_(o),
        all_reduce_(num_ranks, layout.num_elements) {
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

  /// One step with each rank's gradient, clipped to the global norm max_norm of
  /// the mean gradient (the reconstructed one once compressing) if > 0.
  void Step(const std::vector<Vector>& gradients, double lr, double max_norm,
            const ReplayedSigns* replay = nullptr) {
    const bool is_warm = step_++ < o_.compress_after_step;
    Vector g(w.size());
    if (is_warm) {
      for (const Vector& gradient : gradients) {
        for (size_t i = 0; i < g.size(); ++i) g[i] += gradient[i];
      }
      for (double& value : g) value /= double(gradients.size());
    } else {
      std::vector<Vector> momenta;
      for (const Vector& gradient : gradients) {
        Vector local(w.size());
        for (size_t i = 0; i < w.size(); ++i) {
          local[i] = o_.beta1 * m[i] + (1 - o_.beta1) * gradient[i];
        }
        momenta.push_back(local);
      }
      const Vector mean = all_reduce_.Run(momenta, replay);
      for (size_t i = 0; i < g.size(); ++i) {
        g[i] = (mean[i] - o_.beta1 * m[i]) / (1 - o_.beta1);
      }
    }
    double squares = 0;
    for (const double value : g) squares += value * value;
    last_norm_ = std::sqrt(squares);
    const double clip =
        max_norm > 0 && last_norm_ > max_norm ? max_norm / last_norm_ : 1;
    for (size_t i = 0; i < w.size(); ++i) {
      m[i] = o_.beta1 * m[i] + (1 - o_.beta1) * clip * g[i];
      if (is_warm) {
        v[i] = o_.beta2 * v[i] + (1 - o_.beta2) * std::pow(clip * g[i], 2);
      }
      w[i] -= lr_scale_[i] * lr *
              (m[i] / (std::sqrt(v[i]) + o_.epsilon) + decay_[i] * w[i]);
    }
  }

  const SerialCompressedAllReduce& all_reduce() const { return all_reduce_; }
  double last_norm() const { return last_norm_; }

  Vector w, m, v;

 private:
  const OptimizerOptions o_;
  Vector decay_, lr_scale_;
  SerialCompressedAllReduce all_reduce_;
  int64_t step_ = 0;
  double last_norm_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_ADAM_TRANSCRIPTION_H_
