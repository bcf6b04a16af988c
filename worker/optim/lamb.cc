#include "worker/optim/lamb.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/wide_vectors.h"
#include "worker/optim/lane_reduction.h"
#include "worker/optim/moment_descent.h"

namespace deltapipe {

template <typename Real>
LambSquares UpdateLambMoments(const OptimizerOptions& options,
                              double weight_decay, double clip_factor,
                              absl::Span<const Real> gradient,
                              absl::Span<Real> m, absl::Span<Real> v,
                              absl::Span<const Real> w) {
  const Real beta1 = static_cast<Real>(options.beta1);
  const Real beta2 = static_cast<Real>(options.beta2);
  const Real new1 = static_cast<Real>(1.0 - options.beta1);
  const Real new2 = static_cast<Real>(1.0 - options.beta2);
  const Real epsilon = static_cast<Real>(options.epsilon);
  const Real clip = static_cast<Real>(clip_factor);
  const Real decay = static_cast<Real>(weight_decay);
  const int64_t count = static_cast<int64_t>(w.size());
  LaneSumOfSquares update_squares;
  LaneSumOfSquares weight_squares;
  WithWideVectors([=, &update_squares, &weight_squares] {
    for (int64_t begin = 0; begin < count; begin += kOptimizerBlock) {
      const int64_t size = std::min(kOptimizerBlock, count - begin);
      const Real* __restrict block_g = gradient.data() + begin;
      const Real* __restrict block_w = w.data() + begin;
      Real* __restrict block_m = m.data() + begin;
      Real* __restrict block_v = v.data() + begin;
      Real update[kOptimizerBlock];
      for (int64_t i = 0; i < size; ++i) {
        const Real g = clip * block_g[i];
        block_m[i] = beta1 * block_m[i] + new1 * g;
        block_v[i] = beta2 * block_v[i] + new2 * (g * g);
        // As DescendAlongMoments has it.
        const Real of_w = block_v[i] > 0 ? decay : Real{0};
        update[i] =
            block_m[i] / (std::sqrt(block_v[i]) + epsilon) + of_w * block_w[i];
      }
      update_squares.Add(update, size);
      weight_squares.Add(block_w, size);
    }
  });

  return {update_squares.Sum(), weight_squares.Sum()};
}

double LambCoefficient(const OptimizerOptions& options,
                       const LambSquares& squares) {
  const double update_norm = std::sqrt(squares.update);
  const double weight_norm = std::sqrt(squares.weight);
  if (!(update_norm > 0 && weight_norm > 0)) return 1.0;
  return std::clamp(weight_norm / update_norm, options.min_coefficient,
                    options.max_coefficient);
}

template <typename Real>
double LambSegmentStep(const OptimizerOptions& options, double weight_decay,
                       double learning_rate, double clip_factor,
                       absl::Span<const Real> gradient, absl::Span<Real> m,
                       absl::Span<Real> v, absl::Span<Real> w) {
  const double coefficient = LambCoefficient(
      options, UpdateLambMoments<Real>(options, weight_decay, clip_factor,
                                       gradient, m, v, w));
  DescendAlongMoments<Real>(options, learning_rate * coefficient, weight_decay,
                            static_cast<int64_t>(w.size()), m.data(), v.data(),
                            w.data());
  return coefficient;
}

template <typename Real>
Lamb<Real>::Lamb(const OptimizerOptions& options, const ParameterLayout& layout,
                 SharedNorms shared)
    : FlatOptimizer<Real>(options, layout),
      shared_(std::move(shared)),
      momentum_(static_cast<size_t>(layout.num_elements)),
      variance_(static_cast<size_t>(layout.num_elements)) {
  this->AddState("momentum", &momentum_);
  this->AddState("variance", &variance_);
}

template <typename Real>
void Lamb<Real>::Apply(int64_t step, double learning_rate, double clip_factor,
                       absl::Span<Real> weights) {
  if (shared_.cut.count > 0) {
    ApplyCut(step, learning_rate, clip_factor, weights);
    return;
  }
  for (const ParameterSegment& segment : this->layout_.segments) {
    const size_t offset = static_cast<size_t>(segment.offset);
    const size_t size = static_cast<size_t>(segment.num_elements);
    LambSegmentStep<Real>(this->options_, this->WeightDecay(segment),
                          learning_rate * segment.learning_rate_scale,
                          clip_factor, this->gradient_.subspan(offset, size),
                          absl::MakeSpan(momentum_).subspan(offset, size),
                          absl::MakeSpan(variance_).subspan(offset, size),
                          weights.subspan(offset, size));
  }
}

template <typename Real>
void Lamb<Real>::ApplyCut(int64_t step, double learning_rate,
                          double clip_factor, absl::Span<Real> weights) {
  const std::vector<ParameterSegment>& segments = this->layout_.segments;
  std::vector<LambSquares> squares;
  // Of each cut tensor, what this rank has of it: nothing, of most.
  std::vector<double> sums(2 * static_cast<size_t>(shared_.cut.count));
  for (size_t i = 0; i < segments.size(); ++i) {
    const size_t offset = static_cast<size_t>(segments[i].offset);
    const size_t size = static_cast<size_t>(segments[i].num_elements);
    squares.push_back(UpdateLambMoments<Real>(
        this->options_, this->WeightDecay(segments[i]), clip_factor,
        this->gradient_.subspan(offset, size),
        absl::MakeSpan(momentum_).subspan(offset, size),
        absl::MakeSpan(variance_).subspan(offset, size),
        weights.subspan(offset, size)));
    const int cut = shared_.cut.of_segments[i];
    if (cut < 0) continue;
    sums[2 * static_cast<size_t>(cut)] = squares[i].update;
    sums[2 * static_cast<size_t>(cut) + 1] = squares[i].weight;
  }
  this->apply_status_ = shared_.sum(step, absl::MakeSpan(sums));
  if (!this->apply_status_.ok()) return;
  for (size_t i = 0; i < segments.size(); ++i) {
    const int cut = shared_.cut.of_segments[i];
    if (cut >= 0) {
      squares[i] = {sums[2 * static_cast<size_t>(cut)],
                    sums[2 * static_cast<size_t>(cut) + 1]};
    }
    DescendAlongMoments<Real>(this->options_,
                              learning_rate * segments[i].learning_rate_scale *
                                  LambCoefficient(this->options_, squares[i]),
                              this->WeightDecay(segments[i]),
                              segments[i].num_elements,
                              momentum_.data() + segments[i].offset,
                              variance_.data() + segments[i].offset,
                              weights.data() + segments[i].offset);
  }
}

template LambSquares UpdateLambMoments<float>(const OptimizerOptions&, double,
                                              double, absl::Span<const float>,
                                              absl::Span<float>,
                                              absl::Span<float>,
                                              absl::Span<const float>);
template LambSquares UpdateLambMoments<double>(const OptimizerOptions&, double,
                                               double, absl::Span<const double>,
                                               absl::Span<double>,
                                               absl::Span<double>,
                                               absl::Span<const double>);
template double LambSegmentStep<float>(const OptimizerOptions&, double, double,
                                       double, absl::Span<const float>,
                                       absl::Span<float>, absl::Span<float>,
                                       absl::Span<float>);
template double LambSegmentStep<double>(const OptimizerOptions&, double, double,
                                        double, absl::Span<const double>,
                                        absl::Span<double>, absl::Span<double>,
                                        absl::Span<double>);
template class Lamb<float>;
template class Lamb<double>;

}  // namespace deltapipe
