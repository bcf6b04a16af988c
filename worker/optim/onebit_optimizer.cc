#include "worker/optim/onebit_optimizer.h"

#include <algorithm>

#include "base/wide_vectors.h"
#include "worker/optim/lane_reduction.h"

namespace deltapipe {

template <typename Real>
OneBitOptimizer<Real>::OneBitOptimizer(const OptimizerOptions& options,
                                       const ParameterLayout& layout)
    : FlatOptimizer<Real>(options, layout),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)),
      sigma_(layout.segments.size(), 1),
      start_(options),
      rows_(layout),
      frozen_(1),
      scaled_momentum_(static_cast<size_t>(layout.num_elements)) {
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
  this->AddState("frozen", &frozen_);
  this->AddState("decision", start_.decision());
  this->AddState("dead_rows", rows_.flags());
}

template <typename Real>
typename OneBitOptimizer<Real>::Request OneBitOptimizer<Real>::PrepareEarly(
    int64_t step, double learning_rate, absl::Span<const Real> weights,
    absl::Span<Real> gradient) {
  Request request =
      FlatOptimizer<Real>::PrepareEarly(step, learning_rate, weights, gradient);
  froze_in_this_step_ = false;
  if (!is_frozen()) {
    if (!start_.IsDue(step)) return request;
    rows_.Find(variance_);
    Freeze();
    frozen_[0] = 1;
    froze_in_this_step_ = true;
  }
  request.values = absl::MakeSpan(scaled_momentum_);
  request.format = SyncFormat::kCompressed;
  request.resets_residuals = froze_in_this_step_;
  request.excluded = rows_.excluded();
  return request;
}

template <typename Real>
void OneBitOptimizer<Real>::TakeGradient(const ElementRange& range) {
  if (!is_frozen()) return;
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  WithWideVectors([=] {
    const Real* __restrict g = this->gradient_.data();
    const Real* __restrict m = momentum_.data();
    Real* __restrict x = scaled_momentum_.data();
    for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
      const ElementRange part =
          Overlap(range, RangeOf(this->layout_.segments[l]));
      const Real sigma = sigma_[l];
      for (int64_t i = part.begin; i < part.end; ++i) {
        x[i] = sigma * (beta1 * m[i] + new1 * g[i]);
      }
    }
  });
  if (froze_in_this_step_) ForgetMomentumOfDeadRows(range);
}

template <typename Real>
void OneBitOptimizer<Real>::ForgetMomentumOfDeadRows(
    const ElementRange& range) {
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  size_t l = 0;
  for (const ElementRange& row : rows_.excluded()) {
    while (row.begin >= RangeOf(this->layout_.segments[l]).end) ++l;
    const ElementRange part = Overlap(range, row);
    for (int64_t i = part.begin; i < part.end; ++i) {
      const size_t at = static_cast<size_t>(i);
      scaled_momentum_[at] = sigma_[l] * (new1 * this->gradient_[at]);
    }
  }
}

template <typename Real>
void OneBitOptimizer<Real>::Wake(absl::Span<const uint8_t> is_woken) {
  rows_.SetWoken(is_woken);
}

template <typename Real>
void OneBitOptimizer<Real>::ReconstructGradient(int64_t begin, int64_t size,
                                                Real sigma,
                                                Real* gradient) const {
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real of_x = Real{1} / sigma;
  const Real by_new1 = static_cast<Real>(1.0 / (1.0 - this->options_.beta1));
  const Real* __restrict m = momentum_.data() + begin;
  const Real* __restrict x = scaled_momentum_.data() + begin;
  Real* __restrict g = gradient;
  for (int64_t i = 0; i < size; ++i) {
    g[i] = (x[i] * of_x - beta1 * m[i]) * by_new1;
  }
}

template <typename Real>
double OneBitOptimizer<Real>::MeanGradientSquaredNorm() {
  if (!is_frozen()) return FlatOptimizer<Real>::MeanGradientSquaredNorm();
  double sum = 0;
  for (size_t l = 0; l < this->layout_.segments.size(); ++l) {
    LaneSumOfSquares squares;
    for (const ElementRange& range : rows_.live(l)) {
      WithWideVectors([=, &squares, &range] {
        for (int64_t at = range.begin; at < range.end; at += kOptimizerBlock) {
          const int64_t size = std::min(kOptimizerBlock, range.end - at);
          Real gradient[kOptimizerBlock];
          ReconstructGradient(at, size, sigma_[l], gradient);
          squares.Add(gradient, size);
        }
      });
    }
    sum += squares.Sum();
  }
  return sum;
}

template <typename Real>
void OneBitOptimizer<Real>::UpdateMomentum(int64_t begin, int64_t size,
                                           Real sigma, Real clip,
                                           Real* gradient) {
  const Real beta1 = static_cast<Real>(this->options_.beta1);
  const Real new1 = static_cast<Real>(1.0 - this->options_.beta1);
  WithWideVectors([=] {
    if (gradient != nullptr) ReconstructGradient(begin, size, sigma, gradient);
    const Real* __restrict x = scaled_momentum_.data() + begin;
    Real* __restrict m = momentum_.data() + begin;
    Real* __restrict g = gradient;
    // Without clipping the momentum is the synchronised one, to the bit.
    if (clip == Real{1}) {
      for (int64_t i = 0; i < size; ++i) m[i] = x[i] / sigma;
      return;
    }
    for (int64_t i = 0; i < size; ++i) {
      g[i] *= clip;
      m[i] = beta1 * m[i] + new1 * g[i];
    }
  });
}

template <typename Real>
void OneBitOptimizer<Real>::Apply(int64_t step, double learning_rate,
                                  double clip_factor,
                                  absl::Span<Real> weights) {
  if (!is_frozen()) {
    Warm(learning_rate, clip_factor, weights);
    return;
  }
  if (froze_in_this_step_) {
    for (const ElementRange& row : rows_.excluded()) {
      std::fill(momentum_.begin() + row.begin, momentum_.begin() + row.end,
                Real{0});
    }
  }
  froze_in_this_step_ = false;
  Descend(learning_rate, clip_factor, weights);
  for (const JoinedRow& row :
       rows_.Join(absl::MakeSpan(momentum_), absl::MakeSpan(variance_))) {
    RowJoined(row, variance_[static_cast<size_t>(row.range.begin)]);
  }
}

template <typename Real>
void OneBitOptimizer<Real>::Skip() {
  rows_.Forget();
  if (!froze_in_this_step_) return;
  froze_in_this_step_ = false;
  frozen_[0] = 0;
  rows_.Clear();
  std::fill(sigma_.begin(), sigma_.end(), Real{1});
  UndoFreeze();
}

template <typename Real>
void OneBitOptimizer<Real>::SetCompressing(bool on) {
  start_.Decide(on);
  if (on || !is_frozen()) return;
  frozen_[0] = 0;
  rows_.Clear();
  std::fill(sigma_.begin(), sigma_.end(), Real{1});
  Unfreeze();
}

template <typename Real>
CompressionEvidence OneBitOptimizer<Real>::Evidence() const {
  return this->EvidenceOfVariance(variance_);
}

template class OneBitOptimizer<float>;
template class OneBitOptimizer<double>;

}  // namespace deltapipe
