// A plain transcription of 1-bit LAMB (arXiv 2104.06069, as DeepSpeed's
// OnebitLamb computes it, without its dummy first step) for n simulated ranks,
// in double, tensor by tensor: what the optimizer is compared with. Written
// from the description of the algorithm; shares no code with it.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_LAMB_TRANSCRIPTION_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_LAMB_TRANSCRIPTION_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

class OneBitLambTranscription {
 public:
  using Vector = std::vector<double>;

  /// A tensor and its state; the same on all ranks.
  struct Tensor {
    Vector w, m, v, fresh_v;
    double c_frozen = 0, r_last = 1, sigma = 1, weight_decay = 0, lr_scale = 1;
  };

  OneBitLambTranscription(const OptimizerOptions& o,
                          const ParameterLayout& layout, int num_ranks,
                          const Vector& weights)
      : o_(o), all_reduce_(num_ranks, layout.num_elements) {
    for (const ParameterSegment& segment : layout.segments) {
      Tensor t;
      t.w.assign(weights.begin() + segment.offset,
                 weights.begin() + segment.offset + segment.num_elements);
      t.m.resize(t.w.size());
      t.v.resize(t.w.size());
      t.weight_decay = segment.has_weight_decay ? o.weight_decay : 0;
      if (segment.weight_decay) t.weight_decay = *segment.weight_decay;
      t.lr_scale = segment.learning_rate_scale;
      tensors_.push_back(t);
    }
  }

  /// One step with each rank's flat gradient. With max_norm > 0 the mean
  /// gradient (the reconstructed one once compressing) is clipped to that
  /// global norm.
  void Step(const std::vector<Vector>& gradients, double lr, double max_norm,
            const ReplayedSigns* replay = nullptr) {
    ++step_;
    if (step_ <= o_.compress_after_step) {
      WarmUp(gradients, lr, max_norm);
      return;
    }
    if (step_ == o_.compress_after_step + 1) Freeze();
    Compressed(gradients, lr, max_norm, replay);
  }

  const std::vector<Tensor>& tensors() const { return tensors_; }
  Vector Weights() const {
    Vector flat;
    for (const Tensor& t : tensors_) {
      flat.insert(flat.end(), t.w.begin(), t.w.end());
    }
    return flat;
  }
  const SerialCompressedAllReduce& all_reduce() const { return all_reduce_; }
  double last_norm() const { return last_norm_; }

 private:
  static double Norm(const Vector& x) {
    double sum = 0;
    for (const double value : x) sum += value * value;
    return std::sqrt(sum);
  }

  double ClipFactor(const Vector& g, double max_norm) {
    last_norm_ = Norm(g);
    return max_norm > 0 && last_norm_ > max_norm ? max_norm / last_norm_ : 1;
  }

  void WarmUp(const std::vector<Vector>& gradients, double lr,
              double max_norm) {
    Vector g(gradients[0].size());
    for (const Vector& gradient : gradients) {
      for (size_t i = 0; i < g.size(); ++i) g[i] += gradient[i];
    }
    for (double& value : g) value /= double(gradients.size());
    const double clip = ClipFactor(g, max_norm);
    size_t at = 0;
    for (Tensor& t : tensors_) {
      Vector u(t.w.size());
      for (size_t i = 0; i < t.w.size(); ++i) {
        const double gi = clip * g[at++];
        t.m[i] = o_.beta1 * t.m[i] + (1 - o_.beta1) * gi;
        t.v[i] = o_.beta2 * t.v[i] + (1 - o_.beta2) * gi * gi;
        u[i] = t.m[i] / (std::sqrt(t.v[i]) + o_.epsilon);
        if (t.weight_decay > 0) u[i] += t.weight_decay * t.w[i];
      }
      double c = 1;
      if (Norm(t.w) > 0 && Norm(u) > 0) {
        c = Norm(t.w) / Norm(u);
        if (c > o_.max_coefficient) c = o_.max_coefficient;
        if (c < o_.min_coefficient) c = o_.min_coefficient;
      }
      if (c != 1) {
        t.c_frozen =
            o_.coefficient_beta * t.c_frozen + (1 - o_.coefficient_beta) * c;
      }
      for (size_t i = 0; i < t.w.size(); ++i)
        t.w[i] -= t.lr_scale * lr * c * u[i];
    }
  }

  void Freeze() {
    double mean = 0;
    for (const Tensor& t : tensors_) {
      mean += Norm(t.m) / std::sqrt(double(t.m.size()));
    }
    mean /= double(tensors_.size());
    for (Tensor& t : tensors_) {
      t.fresh_v = t.v;
      const double q = Norm(t.m) / std::sqrt(double(t.m.size()));
      // The reference divides by zero for a tensor that never had a gradient.
      t.sigma = q == 0 ? 1 : mean / q;
    }
  }

  void Compressed(const std::vector<Vector>& gradients, double lr,
                  double max_norm, const ReplayedSigns* replay) {
    std::vector<Vector> momenta;
    for (const Vector& gradient : gradients) {
      Vector scaled;
      for (const Tensor& t : tensors_) {
        for (size_t i = 0; i < t.m.size(); ++i) {
          const double m =
              o_.beta1 * t.m[i] + (1 - o_.beta1) * gradient[scaled.size()];
          scaled.push_back(t.sigma * m);
        }
      }
      momenta.push_back(scaled);
    }
    const Vector mean = all_reduce_.Run(momenta, replay);

    Vector g;
    for (const Tensor& t : tensors_) {
      for (size_t i = 0; i < t.m.size(); ++i) {
        const double m = mean[g.size()] / t.sigma;
        g.push_back((m - o_.beta1 * t.m[i]) / (1 - o_.beta1));
      }
    }
    const double clip = ClipFactor(g, max_norm);
    size_t at = 0;
    for (Tensor& t : tensors_) {
      Vector p(t.w.size()), u(t.w.size());
      double r = 0;
      for (size_t i = 0; i < t.w.size(); ++i) {
        const double gi = clip * g[at++];
        t.m[i] = o_.beta1 * t.m[i] + (1 - o_.beta1) * gi;
        t.fresh_v[i] = o_.beta2 * t.fresh_v[i] + (1 - o_.beta2) * gi * gi;
        const double denominator = std::sqrt(t.v[i]) + o_.epsilon;
        p[i] = t.m[i] / denominator;
        u[i] = p[i] + t.weight_decay * t.w[i];
        r = std::max(r, denominator / (std::sqrt(t.fresh_v[i]) + o_.epsilon));
      }
      if (t.weight_decay > 0) {
        const double rho = std::min(1.0, Norm(p) / Norm(u));
        r = r * rho + (1 - rho);
      }
      r = std::min(std::max(r, o_.factor_min), o_.factor_max);
      r = std::max(r, t.r_last * (1 - o_.factor_threshold));
      r = std::min(r, t.r_last * (1 + o_.factor_threshold));
      t.r_last = r;
      for (size_t i = 0; i < t.w.size(); ++i) {
        t.w[i] -= t.lr_scale * lr * t.c_frozen * r * u[i];
      }
    }
  }

  const OptimizerOptions o_;
  std::vector<Tensor> tensors_;
  SerialCompressedAllReduce all_reduce_;
  int64_t step_ = 0;
  double last_norm_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_LAMB_TRANSCRIPTION_H_
