#include "worker/optim/onebit_lamb.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "worker/optim/lamb.h"
#include "worker/optim/lane_reduction.h"

namespace deltapipe {
namespace {

template <typename Real>
double Norm(const Real* values, int64_t count) {
  LaneSumOfSquares squares;
  squares.Add(values, count);
  return std::sqrt(squares.Sum());
}

}  // namespace

template <typename Real>
OneBitLamb<Real>::OneBitLamb(const OptimizerOptions& options,
                             const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)),
      fresh_variance_(static_cast<size_t>(layout.num_elements)),
      coefficient_(layout.segments.size()),
      factor_(layout.segments.size(), 1),
      sigma_(layout.segments.size(), 1),
      frozen_(1),
      scaled_momentum_(static_cast<size_t>(layout.num_elements)) {
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
  this->AddState("fresh_variance", &fresh_variance_);
  this->AddState("coefficient", &coefficient_);
  this->AddState("factor", &factor_);
  this->AddState("sigma", &sigma_);
  this->AddState("frozen", &frozen_);
}

template <typename Real>
void OneBitLamb<Real>::Freeze() {
  fresh_variance_ = variance_;
  const auto& segments = this->layout_.segments;
  std::vector<double> rms(segments.size());
  double sum = 0;
  int64_t num_tensors = 0;
  for (size_t l = 0; l < segments.size(); ++l) {
    const ParameterSegment& segment = segments[l];
    if (segment.num_elements == 0) continue;
    rms[l] = Norm(momentum_.data() + segment.offset, segment.num_elements) /
             std::sqrt(static_cast<double>(segment.num_elements));
    sum += rms[l];
    ++num_tensors;
  }
  const double mean =
      sum / static_cast<double>(std::max<int64_t>(num_tensors, 1));
  for (size_t l = 0; l < segments.size(); ++l) {
    // Infinite, too, where a momentum has all but vanished.
    const double sigma = rms[l] > 0 ? mean / rms[l] : 1.0;
    const bool is_usable =
        sigma <= static_cast<double>(std::numeric_limits<Real>::max());
    sigma_[l] = is_usable ? static_cast<Real>(sigma) : Real{1};
  }
  frozen_[0] = 1;
}

template <typename Real>
typename OneBitLamb<Real>::Request OneBitLamb<Real>::Prepare(
    int64_t step, double learning_rate, absl::Span<const Real> weights,
    absl::Span<Real> gradient) {
  this->gradient_ = gradient;
  froze_in_this_step_ = false;
  if (!is_frozen()) {
    if (step < this->options_.compress_after_step) {
      return {gradient, SyncFormat::kPlain};
    }
    Freeze();
    froze_in_this_step_ = true;
  }
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const Real sigma = sigma_[l];
    const Real* __restrict g = gradient.data() + segment.offset;
    const Real* __restrict m = momentum_.data() + segment.offset;
    Real* __restrict x = scaled_momentum_.data() + segment.offset;
    for (int64_t i = 0; i < segment.num_elements; ++i) {
      x[i] = sigma * (beta1 * m[i] + new1 * g[i]);
    }
  }
  return {absl::MakeSpan(scaled_momentum_), SyncFormat::kCompressed};
}

template <typename Real>
double OneBitLamb<Real>::MeanGradientSquaredNorm() {
  if (!is_frozen()) return FlatOptimizer<Real>::MeanGradientSquaredNorm();
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  double sum = 0;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const Real sigma = sigma_[l];
    LaneSumOfSquares squares;
    for (int64_t begin = 0; begin < segment.num_elements;
         begin += kOptimizerBlock) {
      const int64_t size =
          std::min(kOptimizerBlock, segment.num_elements - begin);
      const Real* __restrict m = momentum_.data() + segment.offset + begin;
      const Real* __restrict x =
          scaled_momentum_.data() + segment.offset + begin;
      Real gradient[kOptimizerBlock];
      for (int64_t i = 0; i < size; ++i) {
        gradient[i] = (x[i] / sigma - beta1 * m[i]) / new1;
      }
      squares.Add(gradient, size);
    }
    sum += squares.Sum();
  }
  return sum;
}

template <typename Real>
void OneBitLamb<Real>::Warm(double learning_rate, double clip_factor,
                            absl::Span<Real> weights) {
  const double ema = this->options_.coefficient_beta;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const size_t offset = static_cast<size_t>(segment.offset);
    const size_t size = static_cast<size_t>(segment.num_elements);
    const double coefficient = LambSegmentStep<Real>(
        this->options_, this->WeightDecay(segment), learning_rate, clip_factor,
        this->gradient_.subspan(offset, size),
        absl::MakeSpan(momentum_).subspan(offset, size),
        absl::MakeSpan(variance_).subspan(offset, size),
        weights.subspan(offset, size));
    if (coefficient != 1.0) {
      coefficient_[l] =
          static_cast<Real>(ema * static_cast<double>(coefficient_[l]) +
                            (1.0 - ema) * coefficient);
    }
  }
}

template <typename Real>
double OneBitLamb<Real>::UpdateSegment(const ParameterSegment& segment,
                                       Real sigma, double clip_factor,
                                       absl::Span<const Real> weights) {
  const OptimizerOptions& options = this->options_;
  const Real beta1 = static_cast<Real>(options.beta1);
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real new1 = static_cast<Real>(1.0 - options.beta1);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real epsilon = static_cast<Real>(options.epsilon);
  const Real decay = static_cast<Real>(this->WeightDecay(segment));
  const Real clip = static_cast<Real>(clip_factor);
  const bool clips = clip != Real{1};
  LaneSumOfSquares direction_squares;
  LaneSumOfSquares update_squares;
  LaneMaximum<Real> factor;
  for (int64_t begin = 0; begin < segment.num_elements;
       begin += kOptimizerBlock) {
    const int64_t size =
        std::min(kOptimizerBlock, segment.num_elements - begin);
    const int64_t at = segment.offset + begin;
    const Real* __restrict x = scaled_momentum_.data() + at;
    const Real* __restrict v = variance_.data() + at;
    const Real* __restrict w = weights.data() + at;
    Real* __restrict m = momentum_.data() + at;
    Real* __restrict fresh = fresh_variance_.data() + at;
    Real gradient[kOptimizerBlock];
    Real direction[kOptimizerBlock];
    Real ratio[kOptimizerBlock];
    if (clips) {
      for (int64_t i = 0; i < size; ++i) {
        gradient[i] = clip * ((x[i] / sigma - beta1 * m[i]) / new1);
        m[i] = beta1 * m[i] + new1 * gradient[i];
      }
    } else {
      for (int64_t i = 0; i < size; ++i) {
        const Real mean = x[i] / sigma;
        gradient[i] = (mean - beta1 * m[i]) / new1;
        m[i] = mean;
      }
    }
    for (int64_t i = 0; i < size; ++i) {
      fresh[i] = beta2 * fresh[i] + new2 * (gradient[i] * gradient[i]);
      const Real denominator = std::sqrt(v[i]) + epsilon;
      direction[i] = m[i] / denominator;
      ratio[i] = denominator / (std::sqrt(fresh[i]) + epsilon);
    }
    factor.Add(ratio, size);
    if (decay > 0) {
      direction_squares.Add(direction, size);
      for (int64_t i = 0; i < size; ++i) direction[i] += decay * w[i];
      update_squares.Add(direction, size);
    }
  }

  const double largest = static_cast<double>(factor.Max());
  const double update_norm = std::sqrt(update_squares.Sum());
  if (!(decay > 0) || update_norm == 0) return largest;
  const double rho =
      std::min(1.0, std::sqrt(direction_squares.Sum()) / update_norm);
  return largest * rho + (1.0 - rho);
}

template <typename Real>
void OneBitLamb<Real>::Apply(int64_t step, double learning_rate,
                             double clip_factor, absl::Span<Real> weights) {
  froze_in_this_step_ = false;
  if (!is_frozen()) {
    Warm(learning_rate, clip_factor, weights);
    return;
  }
  const OptimizerOptions& options = this->options_;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const size_t offset = static_cast<size_t>(segment.offset);
    const size_t size = static_cast<size_t>(segment.num_elements);
    if (size == 0) continue;
    const double last = static_cast<double>(factor_[l]);
    double factor = UpdateSegment(segment, sigma_[l], clip_factor, weights);
    factor = std::clamp(factor, options.factor_min, options.factor_max);
    factor = std::clamp(factor, last * (1.0 - options.factor_threshold),
                        last * (1.0 + options.factor_threshold));
    factor_[l] = static_cast<Real>(factor);
    const double rate = learning_rate * static_cast<double>(coefficient_[l]) *
                        static_cast<double>(factor_[l]);
    LambDescend<Real>(rate, options.epsilon, this->WeightDecay(segment),
                      absl::MakeConstSpan(momentum_).subspan(offset, size),
                      absl::MakeConstSpan(variance_).subspan(offset, size),
                      weights.subspan(offset, size));
  }
}

template <typename Real>
void OneBitLamb<Real>::Skip() {
  if (!froze_in_this_step_) return;
  froze_in_this_step_ = false;
  frozen_[0] = 0;
  std::fill(sigma_.begin(), sigma_.end(), Real{1});
  std::fill(fresh_variance_.begin(), fresh_variance_.end(), Real{0});
}

template class OneBitLamb<float>;
template class OneBitLamb<double>;

}  // namespace deltapipe
