#include "worker/optim/zero_one_adam.h"

#include <algorithm>
#include <cmath>

#include "base/wide_vectors.h"
#include "worker/optim/lane_reduction.h"
#include "worker/optim/moment_descent.h"

namespace deltapipe {

template <typename Real>
ZeroOneAdam<Real>::ZeroOneAdam(const OptimizerOptions& options,
                               const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)),
      accumulated_update_(static_cast<size_t>(layout.num_elements)),
      anchor_weights_(static_cast<size_t>(layout.num_elements)),
      anchor_momentum_(static_cast<size_t>(layout.num_elements)),
      schedule_(kNumSchedule),
      rates_(kNumRates),
      start_(options),
      rows_(layout),
      synchronized_(static_cast<size_t>(layout.num_elements)) {
  schedule_[kVarianceInterval] = 1;
  schedule_[kLocalInterval] = 1;
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
  this->AddState("accumulated_update", &accumulated_update_);
  this->AddState("anchor_weights", &anchor_weights_);
  this->AddState("anchor_momentum", &anchor_momentum_);
  this->AddState("schedule", &schedule_);
  this->AddState("rates", &rates_);
  this->AddState("decision", start_.decision());
  this->AddState("dead_rows", rows_.flags());
}

template <typename Real>
typename ZeroOneAdam<Real>::StepKind ZeroOneAdam<Real>::KindOf(
    int64_t step) const {
  const bool was_stage_b = schedule_[kIsStageB] != 0;
  const auto is_due = [&](Schedule interval, Schedule steps_since) {
    const int64_t every = static_cast<int64_t>(schedule_[interval]);
    return (step + 1) % every == 0 ||
           schedule_[steps_since] + 1 >= schedule_[interval];
  };
  if (start_.IsDue(step) || !AreReplicasEqual()) {
    const bool is_first = !was_stage_b;
    const bool is_last = step + 1 == this->options_.num_steps;
    return is_first || is_last || is_due(kLocalInterval, kStepsSinceSync)
               ? StepKind::kSynchronisation
               : StepKind::kLocal;
  }
  return was_stage_b || is_due(kVarianceInterval, kStepsSinceVariance)
             ? StepKind::kVariance
             : StepKind::kGradient;
}

template <typename Real>
typename ZeroOneAdam<Real>::Request ZeroOneAdam<Real>::PrepareEarly(
    int64_t step, double learning_rate, absl::Span<const Real> weights,
    absl::Span<Real> gradient) {
  Request request =
      FlatOptimizer<Real>::PrepareEarly(step, learning_rate, weights, gradient);
  kind_ = KindOf(step);
  prepared_rate_ = learning_rate;
  prepared_weights_ = weights;
  found_dead_rows_ = false;
  if (kind_ == StepKind::kVariance) return request;
  if (schedule_[kKnowsDeadRows] == 0) {
    rows_.Find(variance_);
    found_dead_rows_ = true;
  }
  if (kind_ == StepKind::kLocal) {
    request.values = {};
    request.format = SyncFormat::kNone;
    return request;
  }
  request.values = absl::MakeSpan(synchronized_);
  request.resets_residuals = kind_ == StepKind::kSynchronisation
                                 ? schedule_[kIsStageB] == 0
                                 : schedule_[kOwesOtherQuantity] != 0;
  request.format = SyncFormat::kCompressed;
  request.excluded = rows_.excluded();
  return request;
}

template <typename Real>
void ZeroOneAdam<Real>::TakeGradient(const ElementRange& range) {
  if (kind_ == StepKind::kSynchronisation) AccumulateUpdate(range);
  if (kind_ == StepKind::kGradient) {
    // The local gradient's buffer stays as it is.
    std::copy(this->gradient_.begin() + range.begin,
              this->gradient_.begin() + range.end,
              synchronized_.begin() + range.begin);
  }
}

template <typename Real>
void ZeroOneAdam<Real>::AccumulateUpdate(const ElementRange& range) {
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  const Real epsilon = static_cast<Real>(this->options_.epsilon);
  const Real rate = static_cast<Real>(prepared_rate_);
  const Real* __restrict g = this->gradient_.data();
  const Real* __restrict m = momentum_.data();
  const Real* __restrict v = variance_.data();
  const Real* __restrict w = prepared_weights_.data();
  const Real* __restrict s = accumulated_update_.data();
  Real* __restrict x = synchronized_.data();
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const Real decay =
        static_cast<Real>(this->WeightDecay(this->layout_.segments[l]));
    for (const ElementRange& live : rows_.live(l)) {
      const ElementRange part = Overlap(range, live);
      WithWideVectors([=] {
        for (int64_t i = part.begin; i < part.end; ++i) {
          const Real next = beta1 * m[i] + new1 * g[i];
          const Real denominator = std::sqrt(v[i]) + epsilon;
          x[i] = s[i] + rate * (next + decay * w[i] * denominator);
        }
      });
    }
  }
  // What rounds to a variance of zero is no momentum.
  const Real dead_beta1 = found_dead_rows_ ? Real{0} : beta1;
  for (const ElementRange& row : rows_.excluded()) {
    const ElementRange part = Overlap(range, row);
    for (int64_t i = part.begin; i < part.end; ++i) {
      x[i] = s[i] + rate * (dead_beta1 * m[i] + new1 * g[i]);
    }
  }
}

template <typename Real>
void ZeroOneAdam<Real>::Wake(absl::Span<const uint8_t> is_woken) {
  rows_.SetWoken(is_woken);
}

template <typename Real>
double ZeroOneAdam<Real>::NextRateSum(double rate) const {
  return static_cast<double>(rates_[kRateSum]) + rate;
}

template <typename Real>
double ZeroOneAdam<Real>::NextDecayedRateSum(double rate) const {
  const double steps = static_cast<double>(schedule_[kStepsSinceSync]) + 1;
  return static_cast<double>(rates_[kDecayedRateSum]) +
         rate * std::pow(this->options_.beta1, steps);
}

template <typename Real>
double ZeroOneAdam<Real>::MeanGradientSquaredNorm() {
  if (kind_ == StepKind::kVariance || kind_ == StepKind::kLocal) {
    return FlatOptimizer<Real>::MeanGradientSquaredNorm();
  }
  const double rate_sum = NextRateSum(prepared_rate_);
  const bool is_gradient = kind_ == StepKind::kGradient;
  // Steps of rate zero have no update to reconstruct a gradient from.
  if (!is_gradient && !(rate_sum > 0)) {
    return FlatOptimizer<Real>::MeanGradientSquaredNorm();
  }
  const double a =
      is_gradient ? 0 : NextDecayedRateSum(prepared_rate_) / rate_sum;
  const Real per_rate = static_cast<Real>(is_gradient ? 1 : 1 / rate_sum);
  const Real old = static_cast<Real>(a);
  const Real scale = static_cast<Real>(1 / (1 - a));
  const Real* anchor = AnchorMomentum();
  double sum = 0;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    LaneSumOfSquares squares;
    for (const ElementRange& range : rows_.live(l)) {
      for (int64_t at = range.begin; at < range.end; at += kOptimizerBlock) {
        const int64_t size = std::min(kOptimizerBlock, range.end - at);
        const Real* __restrict x = synchronized_.data() + at;
        const Real* __restrict m0 = anchor + at;
        Real gradient[kOptimizerBlock];
        for (int64_t i = 0; i < size; ++i) {
          gradient[i] = (x[i] * per_rate - old * m0[i]) * scale;
        }
        squares.Add(gradient, size);
      }
    }
    sum += squares.Sum();
  }
  return sum;
}

template <typename Real>
void ZeroOneAdam<Real>::ApplyVarianceStep(double rate, double clip,
                                          absl::Span<Real> weights) {
  for (const ParameterSegment& segment : this->layout_.segments) {
    const int64_t at = segment.offset;
    AdamWithoutCorrection<Real>(
        this->options_, rate * segment.learning_rate_scale,
        this->WeightDecay(segment), clip, segment.num_elements,
        this->gradient_.data() + at, momentum_.data() + at,
        variance_.data() + at, weights.data() + at);
  }
  rows_.Clear();
  schedule_[kKnowsDeadRows] = 0;
  schedule_[kStepsSinceVariance] = 0;
  Count(kVarianceUpdates);
  if (schedule_[kVarianceUpdates] >=
      static_cast<Real>(this->options_.variance_update_scaler)) {
    schedule_[kVarianceUpdates] = 0;
    schedule_[kVarianceInterval] =
        std::min<Real>(2 * schedule_[kVarianceInterval], 1 << 23);
  }
}

template <typename Real>
void ZeroOneAdam<Real>::ApplyGradientStep(double rate, double clip,
                                          absl::Span<Real> weights) {
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  const Real factor = static_cast<Real>(clip);
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const double segment_rate = rate * segment.learning_rate_scale;
    const double decay = this->WeightDecay(segment);
    for (const ElementRange& range : rows_.live(l)) {
      for (int64_t at = range.begin; at < range.end; at += kOptimizerBlock) {
        const int64_t size = std::min(kOptimizerBlock, range.end - at);
        const Real* __restrict g = synchronized_.data() + at;
        Real* __restrict m = momentum_.data() + at;
        for (int64_t i = 0; i < size; ++i) {
          m[i] = beta1 * m[i] + new1 * (factor * g[i]);
        }
        DescendAlongMoments<Real>(this->options_, segment_rate, decay, size, m,
                                  variance_.data() + at, weights.data() + at);
      }
    }
  }
  schedule_[kOwesOtherQuantity] = 0;
  Count(kStepsSinceVariance);
}

template <typename Real>
void ZeroOneAdam<Real>::ApplyLocalStep(double rate, double clip,
                                       absl::Span<Real> weights) {
  if (schedule_[kStepsSinceSync] == 0) {
    std::copy(weights.begin(), weights.end(), anchor_weights_.begin());
    anchor_momentum_ = momentum_;
  }
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  const Real epsilon = static_cast<Real>(this->options_.epsilon);
  const Real step = static_cast<Real>(rate);
  const Real factor = static_cast<Real>(clip);
  const Real* __restrict g = this->gradient_.data();
  const Real* __restrict v = variance_.data();
  Real* __restrict m = momentum_.data();
  Real* __restrict w = weights.data();
  Real* __restrict s = accumulated_update_.data();
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    const ParameterSegment& segment = this->layout_.segments[l];
    const Real segment_step =
        static_cast<Real>(rate * segment.learning_rate_scale);
    const Real decay = static_cast<Real>(this->WeightDecay(segment));
    for (const ElementRange& range : rows_.live(l)) {
      WithWideVectors([=] {
        for (int64_t i = range.begin; i < range.end; ++i) {
          m[i] = beta1 * m[i] + new1 * (factor * g[i]);
          const Real denominator = std::sqrt(v[i]) + epsilon;
          s[i] += step * (m[i] + decay * w[i] * denominator);
          w[i] -= segment_step * (m[i] / denominator + decay * w[i]);
        }
      });
    }
  }
  // Nothing but what wakes the row at the next synchronisation point.
  for (const ElementRange& row : rows_.excluded()) {
    for (int64_t i = row.begin; i < row.end; ++i) {
      m[i] = beta1 * m[i] + new1 * (factor * g[i]);
      s[i] += step * m[i];
    }
  }
  rates_[kDecayedRateSum] = static_cast<Real>(NextDecayedRateSum(rate));
  rates_[kRateSum] = static_cast<Real>(NextRateSum(rate));
  Count(kStepsSinceSync);
}

template <typename Real>
void ZeroOneAdam<Real>::ApplySynchronisation(double rate, double clip,
                                             absl::Span<Real> weights) {
  const double rate_sum = NextRateSum(rate);
  const double a = rate_sum > 0 ? NextDecayedRateSum(rate) / rate_sum : 0;
  const bool clips = clip != 1.0;
  // m0 and w0 are brought back first, so that all ranks start from equal bits.
  if (!AreReplicasEqual()) {
    momentum_ = anchor_momentum_;
    std::copy(anchor_weights_.begin(), anchor_weights_.end(), weights.begin());
  }
  const Real sum = static_cast<Real>(rate_sum);
  const Real old = static_cast<Real>(a);
  const Real factor = static_cast<Real>(clip);
  const Real epsilon = static_cast<Real>(this->options_.epsilon);
  const Real* __restrict x = synchronized_.data();
  const Real* __restrict v = variance_.data();
  Real* __restrict m = momentum_.data();
  Real* __restrict w = weights.data();
  for (size_t l = 0; l < this->layout_.segments.size() && rate_sum > 0; ++l) {
    const Real scale =
        static_cast<Real>(this->layout_.segments[l].learning_rate_scale);
    for (const ElementRange& range : rows_.live(l)) {
      WithWideVectors([=] {
        for (int64_t i = range.begin; i < range.end; ++i) {
          const Real mean = x[i] / sum;
          const Real kept = old * m[i];
          m[i] = clips ? kept + factor * (mean - kept) : mean;
          const Real update = clips ? sum * m[i] : x[i];
          w[i] -= scale * update / (std::sqrt(v[i]) + epsilon);
        }
      });
    }
  }
  for (const ElementRange& row : rows_.excluded()) {
    std::fill(m + row.begin, m + row.end, Real{0});
  }
  std::fill(accumulated_update_.begin(), accumulated_update_.end(), Real{0});
  std::fill(rates_.begin(), rates_.end(), Real{0});
  schedule_[kStepsSinceSync] = 0;
}

template <typename Real>
void ZeroOneAdam<Real>::AdvanceLocalSteps() {
  Count(kLocalSteps);
  if (schedule_[kLocalSteps] <
      static_cast<Real>(this->options_.local_step_scaler)) {
    return;
  }
  schedule_[kLocalSteps] = 0;
  schedule_[kLocalInterval] =
      std::min(2 * schedule_[kLocalInterval],
               static_cast<Real>(this->options_.local_step_clipper));
}

template <typename Real>
void ZeroOneAdam<Real>::Apply(int64_t step, double learning_rate,
                              double clip_factor, absl::Span<Real> weights) {
  if (found_dead_rows_) {
    schedule_[kKnowsDeadRows] = 1;
    for (const ElementRange& row : rows_.excluded()) {
      std::fill(momentum_.begin() + row.begin, momentum_.begin() + row.end,
                Real{0});
    }
    found_dead_rows_ = false;
  }
  const bool is_stage_b =
      kind_ == StepKind::kLocal || kind_ == StepKind::kSynchronisation;
  if (is_stage_b && schedule_[kIsStageB] == 0) {
    schedule_[kIsStageB] = 1;
    schedule_[kLocalInterval] = 1;
    schedule_[kLocalSteps] = 0;
  } else if (!is_stage_b && schedule_[kIsStageB] != 0) {
    schedule_[kIsStageB] = 0;
    schedule_[kOwesOtherQuantity] = 1;
    schedule_[kVarianceInterval] = 1;
    schedule_[kVarianceUpdates] = 0;
  }
  switch (kind_) {
    case StepKind::kVariance:
      ApplyVarianceStep(learning_rate, clip_factor, weights);
      break;
    case StepKind::kGradient:
      ApplyGradientStep(learning_rate, clip_factor, weights);
      break;
    case StepKind::kLocal:
      ApplyLocalStep(learning_rate, clip_factor, weights);
      break;
    case StepKind::kSynchronisation:
      ApplySynchronisation(learning_rate, clip_factor, weights);
      break;
  }
  if (is_stage_b) AdvanceLocalSteps();
  rows_.Join(absl::MakeSpan(momentum_), absl::MakeSpan(variance_));
}

template <typename Real>
void ZeroOneAdam<Real>::Skip() {
  rows_.Forget();
  if (found_dead_rows_) rows_.Clear();
  found_dead_rows_ = false;
}

template <typename Real>
bool ZeroOneAdam<Real>::AreReplicasEqual() const {
  return schedule_[kStepsSinceSync] == 0;
}

template <typename Real>
CompressionEvidence ZeroOneAdam<Real>::Evidence() const {
  return this->EvidenceOfVariance(variance_);
}

template class ZeroOneAdam<float>;
template class ZeroOneAdam<double>;

}  // namespace deltapipe
