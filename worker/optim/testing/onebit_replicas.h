// OneBitReplicas<Real>: n replicas of an optimizer in one thread, with the
// compressed all-reduce put together from the product's own kernels, in any
// precision. Records the signs that were sent, for a transcription to replay.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "worker/collective/onebit_compressor.h"
#include "worker/collective/shards.h"
#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/optim/make_flat_optimizer.h"

namespace deltapipe {

template <typename Real>
class OneBitReplicas {
 public:
  using Vectors = std::vector<std::vector<Real>>;

  OneBitReplicas(const OptimizerOptions& options, const ParameterLayout& layout,
                 int num_ranks, const std::vector<double>& weights)
      : shards_{layout.num_elements, num_ranks} {
    for (int rank = 0; rank < num_ranks; ++rank) {
      optimizers_.push_back(MakeFlatOptimizer<Real>(options, layout));
      weights_.emplace_back(weights.begin(), weights.end());
    }
    DropResiduals();
  }

  /// Sees, at every compressed step, what the ranks brought and what they got.
  using Observer = std::function<void(int64_t step, const Vectors& brought,
                                      const std::vector<Real>& result)>;
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  /// One step; all gradients are clipped to the global norm max_norm if > 0:
  /// that of the mean gradient, in local steps that of a rank's own.
  void Step(int64_t step, Vectors gradients, double lr, double max_norm) {
    std::vector<absl::Span<Real>> requests;
    typename FlatOptimizer<Real>::Request last;
    for (size_t rank = 0; rank < optimizers_.size(); ++rank) {
      const auto request = optimizers_[rank]->Prepare(
          step, lr, weights_[rank], absl::MakeSpan(gradients[rank]));
      requests.push_back(request.values);
      last = request;
    }
    last_format_ = last.format;
    last_reset_residuals_ = last.resets_residuals;
    num_excluded_ = last.excluded.size();
    if (last.resets_residuals) DropResiduals();
    if (last.format == SyncFormat::kPlain) Average(requests);
    if (last.format == SyncFormat::kCompressed) {
      const std::vector<uint8_t> is_woken =
          CompressedAverage(step, requests, last.excluded);
      for (auto& optimizer : optimizers_) optimizer->Wake(is_woken);
    }
    for (size_t rank = 0; rank < optimizers_.size(); ++rank) {
      last_norm_ = std::sqrt(optimizers_[rank]->MeanGradientSquaredNorm());
      const double clip =
          max_norm > 0 && last_norm_ > max_norm ? max_norm / last_norm_ : 1.0;
      optimizers_[rank]->Apply(step, lr, clip, absl::MakeSpan(weights_[rank]));
    }
  }

  const Vectors& weights() const { return weights_; }
  FlatOptimizer<Real>& optimizer(int rank) {
    return *optimizers_[static_cast<size_t>(rank)];
  }
  const std::vector<Real>& worker_residual(int rank) const {
    return worker_residuals_[static_cast<size_t>(rank)];
  }
  const std::vector<Real>& server_residual() const { return server_residual_; }
  /// Of the last step.
  SyncFormat last_format() const { return last_format_; }
  bool last_reset_residuals() const { return last_reset_residuals_; }
  size_t num_excluded() const { return num_excluded_; }
  const ReplayedSigns& signs() const { return signs_; }
  double last_norm() const { return last_norm_; }

 private:
  void Average(const std::vector<absl::Span<Real>>& requests) {
    for (int64_t i = 0; i < shards_.num_elements; ++i) {
      const size_t at = static_cast<size_t>(i);
      double sum = 0;
      for (const auto& values : requests) sum += double(values[at]);
      for (const auto& values : requests) {
        values[at] = static_cast<Real>(sum / double(requests.size()));
      }
    }
  }

  void DropResiduals() {
    const size_t d = static_cast<size_t>(shards_.num_elements);
    worker_residuals_.assign(weights_.size(), std::vector<Real>(d));
    server_residual_.assign(d, Real{0});
  }

  // values <- values + residual; the scale is over the live elements.
  static Real AddResidual(absl::Span<Real> values,
                          absl::Span<const Real> residual, int64_t num_live) {
    const double squares =
        SignKernels<Real>::AddAndSumOfSquares(values, residual);
    return num_live == 0 ? Real{0}
                         : static_cast<Real>(std::sqrt(
                               squares / static_cast<double>(num_live)));
  }

  // Returns, for each excluded row, whether a rank had a value there.
  std::vector<uint8_t> CompressedAverage(
      int64_t step, const std::vector<absl::Span<Real>>& requests,
      absl::Span<const ElementRange> excluded) {
    using Compressor = OneBitCompressor<Real>;
    const int n = shards_.num_ranks;
    const size_t d = static_cast<size_t>(shards_.num_elements);
    std::vector<bool> is_live(d, true);
    for (const ElementRange& row : excluded) {
      for (int64_t i = row.begin; i < row.end; ++i) {
        is_live[static_cast<size_t>(i)] = false;
      }
    }
    std::vector<uint8_t> is_woken(excluded.size());
    Vectors brought;
    std::vector<std::vector<uint8_t>> bits(requests.size());
    std::vector<Real> scales;
    signs_.worker.assign(requests.size(), std::vector<bool>(d));
    signs_.server.assign(d, false);
    for (size_t rank = 0; rank < requests.size(); ++rank) {
      brought.emplace_back(requests[rank].begin(), requests[rank].end());
      std::vector<Real> x = brought.back();
      for (size_t i = 0; i < d; ++i) x[i] = is_live[i] ? x[i] : Real{0};
      const Real scale =
          AddResidual(absl::MakeSpan(x), worker_residuals_[rank],
                      std::count(is_live.begin(), is_live.end(), true));
      scales.push_back(scale);
      bits[rank].resize((d + 7) / 8);
      Compressor::Compress(absl::MakeSpan(x), scale,
                           absl::MakeSpan(bits[rank]));
      for (size_t i = 0; i < d; ++i) {
        signs_.worker[rank][i] = (bits[rank][i / 8] >> (i % 8) & 1) != 0;
        // A woken row's values are owed; elsewhere there are none.
        if (!is_live[i]) x[i] = brought.back()[i];
      }
      worker_residuals_[rank] = x;
      for (size_t row = 0; row < excluded.size(); ++row) {
        for (int64_t i = excluded[row].begin; i < excluded[row].end; ++i) {
          if (x[static_cast<size_t>(i)] != 0) is_woken[row] = 1;
        }
      }
    }
    std::vector<Real> result(d);
    for (int owner = 0; owner < n; ++owner) {
      const size_t offset = static_cast<size_t>(shards_.offset(owner));
      const size_t size = static_cast<size_t>(shards_.size(owner));
      if (size == 0) continue;
      std::vector<Real> mean(size);
      for (size_t rank = 0; rank < requests.size(); ++rank) {
        Compressor::AccumulateMean(
            absl::MakeConstSpan(bits[rank]).subspan(offset / 8), scales[rank],
            n, absl::MakeSpan(mean));
      }
      int64_t num_live = 0;
      for (size_t i = 0; i < size; ++i) {
        if (!is_live[offset + i]) mean[i] = 0;
        num_live += is_live[offset + i] ? 1 : 0;
      }
      const auto residual =
          absl::MakeSpan(server_residual_).subspan(offset, size);
      const Real scale = AddResidual(absl::MakeSpan(mean), residual, num_live);
      std::vector<uint8_t> server_bits((size + 7) / 8);
      Compressor::Compress(absl::MakeSpan(mean), scale,
                           absl::MakeSpan(server_bits));
      Compressor::Decompress(server_bits, scale,
                             absl::MakeSpan(result).subspan(offset, size));
      for (size_t i = 0; i < size; ++i) {
        signs_.server[offset + i] = (server_bits[i / 8] >> (i % 8) & 1) != 0;
        residual[i] = is_live[offset + i] ? mean[i] : Real{0};
        if (!is_live[offset + i]) result[offset + i] = 0;
      }
    }
    for (const auto& values : requests) {
      std::copy(result.begin(), result.end(), values.begin());
    }
    if (observer_ != nullptr) observer_(step, brought, result);
    return is_woken;
  }

  const Shards shards_;
  std::vector<std::unique_ptr<FlatOptimizer<Real>>> optimizers_;
  Vectors weights_;
  Vectors worker_residuals_;
  std::vector<Real> server_residual_;
  ReplayedSigns signs_;
  Observer observer_;
  double last_norm_ = 0;
  SyncFormat last_format_ = SyncFormat::kPlain;
  bool last_reset_residuals_ = false;
  size_t num_excluded_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_
