#include "worker/optim/onebit_lamb.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/wide_vectors.h"
#include "worker/optim/lamb.h"
#include "worker/optim/lane_reduction.h"

namespace deltapipe {

template <typename Real>
OneBitLamb<Real>::OneBitLamb(const OptimizerOptions& options,
                             const ParameterLayout& layout)
    : OneBitOptimizer<Real>(options, layout),
      fresh_variance_(static_cast<size_t>(layout.num_elements)),
      coefficient_(layout.segments.size()),
      coefficient_variance_(layout.segments.size()),
      factor_(layout.segments.size(), 1) {
  this->AddState("fresh_variance", &fresh_variance_);
  this->AddState("coefficient", &coefficient_);
  this->AddState("coefficient_variance", &coefficient_variance_);
  this->AddState("factor", &factor_);
  this->AddState("sigma", &this->sigma_);
}

template <typename Real>
void OneBitLamb<Real>::Freeze() {
  fresh_variance_ = this->variance_;
  const size_t num_segments = this->layout_.segments.size();
  std::vector<double> rms(num_segments);
  double sum = 0;
  int64_t num_tensors = 0;
  for (size_t l = 0; l < num_segments; ++l) {
    const int64_t count = this->rows().num_live_elements(l);
    if (count == 0) continue;
    LaneSumOfSquares squares;
    for (const ElementRange& range : this->rows().live(l)) {
      squares.Add(this->momentum_.data() + range.begin,
                  range.end - range.begin);
    }
    rms[l] = std::sqrt(squares.Sum()) / std::sqrt(static_cast<double>(count));
    sum += rms[l];
    ++num_tensors;
  }
  const double mean =
      sum / static_cast<double>(std::max<int64_t>(num_tensors, 1));
  for (size_t l = 0; l < num_segments; ++l) {
    // Infinite, too, where a momentum has all but vanished.
    const double sigma = rms[l] > 0 ? mean / rms[l] : 1.0;
    const bool is_usable =
        sigma <= static_cast<double>(std::numeric_limits<Real>::max());
    this->sigma_[l] = is_usable ? static_cast<Real>(sigma) : Real{1};
  }
}

template <typename Real>
void OneBitLamb<Real>::UndoFreeze() {
  std::fill(fresh_variance_.begin(), fresh_variance_.end(), Real{0});
}

template <typename Real>
void OneBitLamb<Real>::Unfreeze() {
  this->variance_ = fresh_variance_;
  std::fill(fresh_variance_.begin(), fresh_variance_.end(), Real{0});
  std::fill(factor_.begin(), factor_.end(), Real{1});
}

template <typename Real>
void OneBitLamb<Real>::RowJoined(const JoinedRow& row, Real variance) {
  std::fill(fresh_variance_.begin() + row.range.begin,
            fresh_variance_.begin() + row.range.end, variance);
  if (!row.was_tensor_dead) return;
  coefficient_[row.segment_index] = static_cast<Real>(std::clamp(
      1.0, this->options_.min_coefficient, this->options_.max_coefficient));
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
        this->options_, this->WeightDecay(segment),
        learning_rate * segment.learning_rate_scale, clip_factor,
        this->gradient_.subspan(offset, size),
        absl::MakeSpan(this->momentum_).subspan(offset, size),
        absl::MakeSpan(this->variance_).subspan(offset, size),
        weights.subspan(offset, size));
    if (coefficient == 1.0) continue;
    const double mean = static_cast<double>(coefficient_[l]);
    const double away = coefficient - mean;
    coefficient_[l] = static_cast<Real>(ema * mean + (1.0 - ema) * coefficient);
    coefficient_variance_[l] =
        static_cast<Real>(ema * (static_cast<double>(coefficient_variance_[l]) +
                                 (1.0 - ema) * away * away));
  }
}

template <typename Real>
double OneBitLamb<Real>::UpdateSegment(size_t segment_index, double clip_factor,
                                       absl::Span<const Real> weights) {
  const OptimizerOptions& options = this->options_;
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real epsilon = static_cast<Real>(options.epsilon);
  const Real decay = static_cast<Real>(
      this->WeightDecay(this->layout_.segments[segment_index]));
  const Real clip = static_cast<Real>(clip_factor);
  LaneSumOfSquares direction_squares;
  LaneSumOfSquares update_squares;
  LaneMaximum<Real> factor;
  WithWideVectors([=, &direction_squares, &update_squares, &factor] {
    for (const ElementRange& range : this->rows().live(segment_index)) {
      for (int64_t at = range.begin; at < range.end; at += kOptimizerBlock) {
        const int64_t size = std::min(kOptimizerBlock, range.end - at);
        Real gradient[kOptimizerBlock];
        Real direction[kOptimizerBlock];
        Real ratio[kOptimizerBlock];
        this->UpdateMomentum(at, size, this->sigma_[segment_index], clip,
                             gradient);
        const Real* __restrict m = this->momentum_.data() + at;
        const Real* __restrict v = this->variance_.data() + at;
        const Real* __restrict w = weights.data() + at;
        Real* __restrict fresh = fresh_variance_.data() + at;
        Real* __restrict update = this->scratch() + at;
        for (int64_t i = 0; i < size; ++i) {
          fresh[i] = beta2 * fresh[i] + new2 * (gradient[i] * gradient[i]);
          const Real denominator = std::sqrt(v[i]) + epsilon;
          direction[i] = m[i] / denominator;
          // What has no variance never had a gradient, and does not decay.
          update[i] = direction[i] + (v[i] > 0 ? decay : Real{0}) * w[i];
          ratio[i] = denominator / (std::sqrt(fresh[i]) + epsilon);
        }
        factor.Add(ratio, size);
        if (decay > 0) {
          direction_squares.Add(direction, size);
          for (int64_t i = 0; i < size; ++i) direction[i] += decay * w[i];
          update_squares.Add(direction, size);
        }
      }
    }
  });

  const double largest = static_cast<double>(factor.Max());
  const double update_norm = std::sqrt(update_squares.Sum());
  if (!(decay > 0) || update_norm == 0) return largest;
  const double rho =
      std::min(1.0, std::sqrt(direction_squares.Sum()) / update_norm);
  return largest * rho + (1.0 - rho);
}

template <typename Real>
void OneBitLamb<Real>::Descend(double learning_rate, double clip_factor,
                               absl::Span<Real> weights) {
  const OptimizerOptions& options = this->options_;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const auto live = this->rows().live(l);
    if (live.empty()) continue;
    const double last = static_cast<double>(factor_[l]);
    double factor = UpdateSegment(l, clip_factor, weights);
    factor = std::clamp(factor, options.factor_min, options.factor_max);
    factor = std::clamp(factor, last * (1.0 - options.factor_threshold),
                        last * (1.0 + options.factor_threshold));
    factor_[l] = static_cast<Real>(factor);
    const ParameterSegment& segment = this->layout_.segments[l];
    const double rate = learning_rate * segment.learning_rate_scale *
                        static_cast<double>(coefficient_[l]) *
                        static_cast<double>(factor_[l]);
    for (const ElementRange& range : live) {
      const Real* __restrict update = this->scratch() + range.begin;
      Real* __restrict w = weights.data() + range.begin;
      WithWideVectors(
          [=, step = static_cast<Real>(rate), count = range.end - range.begin] {
            for (int64_t i = 0; i < count; ++i) w[i] -= step * update[i];
          });
    }
  }
}

template <typename Real>
CompressionEvidence OneBitLamb<Real>::Evidence() const {
  CompressionEvidence evidence = OneBitOptimizer<Real>::Evidence();
  const Real smallest = static_cast<Real>(this->options_.factor_min);
  const Real largest = static_cast<Real>(this->options_.factor_max);
  for (size_t l = 0; l < coefficient_.size(); ++l) {
    const double mean = static_cast<double>(coefficient_[l]);
    if (mean > 0) {
      evidence.num_coefficients += 1;
      evidence.coefficient_spread_sum +=
          std::sqrt(static_cast<double>(coefficient_variance_[l])) / mean;
    }
    if (this->is_frozen() && !this->rows().live(l).empty()) {
      evidence.num_factors += 1;
      if (factor_[l] <= smallest || factor_[l] >= largest) {
        evidence.num_factors_at_limit += 1;
      }
    }
  }
  return evidence;
}

template class OneBitLamb<float>;
template class OneBitLamb<double>;

}  // namespace deltapipe
