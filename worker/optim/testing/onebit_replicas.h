// OneBitReplicas<Real>: n replicas of the 1-bit LAMB optimizer in one thread,
// with the compressed all-reduce put together from the product's own kernels,
// in any precision. Records the signs that were sent, for a transcription to
// replay.
#ifndef DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_
#define DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_

#include <cmath>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "worker/collective/onebit_compressor.h"
#include "worker/collective/shards.h"
#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/optim/onebit_lamb.h"

namespace deltapipe {

template <typename Real>
class OneBitReplicas {
 public:
  using Vectors = std::vector<std::vector<Real>>;

  OneBitReplicas(const OptimizerOptions& options, const ParameterLayout& layout,
                 int num_ranks, const std::vector<double>& weights)
      : shards_{layout.num_elements, num_ranks} {
    for (int rank = 0; rank < num_ranks; ++rank) {
      optimizers_.push_back(
          std::make_unique<OneBitLamb<Real>>(options, layout));
      weights_.emplace_back(weights.begin(), weights.end());
      worker_residuals_.emplace_back(weights.size());
    }
    server_residual_.resize(weights.size());
  }

  /// Sees, at every compressed step, what the ranks brought and what they got.
  using Observer = std::function<void(int64_t step, const Vectors& brought,
                                      const std::vector<Real>& result)>;
  void set_observer(Observer observer) { observer_ = std::move(observer); }

  /// One step; all gradients are clipped to the global norm max_norm if > 0.
  void Step(int64_t step, Vectors gradients, double lr, double max_norm) {
    std::vector<absl::Span<Real>> requests;
    SyncFormat format = SyncFormat::kPlain;
    for (size_t rank = 0; rank < optimizers_.size(); ++rank) {
      const auto request = optimizers_[rank]->Prepare(
          step, lr, weights_[rank], absl::MakeSpan(gradients[rank]));
      requests.push_back(request.values);
      format = request.format;
    }
    if (format == SyncFormat::kPlain) {
      Average(requests);
    } else {
      CompressedAverage(step, requests);
    }
    for (size_t rank = 0; rank < optimizers_.size(); ++rank) {
      last_norm_ = std::sqrt(optimizers_[rank]->MeanGradientSquaredNorm());
      const double clip =
          max_norm > 0 && last_norm_ > max_norm ? max_norm / last_norm_ : 1.0;
      optimizers_[rank]->Apply(step, lr, clip, absl::MakeSpan(weights_[rank]));
    }
  }

  const Vectors& weights() const { return weights_; }
  OneBitLamb<Real>& optimizer(int rank) {
    return *optimizers_[static_cast<size_t>(rank)];
  }
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

  void CompressedAverage(int64_t step,
                         const std::vector<absl::Span<Real>>& requests) {
    using Compressor = OneBitCompressor<Real>;
    const int n = shards_.num_ranks;
    const size_t d = static_cast<size_t>(shards_.num_elements);
    Vectors brought;
    std::vector<std::vector<uint8_t>> bits(requests.size());
    std::vector<Real> scales;
    signs_.worker.assign(requests.size(), std::vector<bool>(d));
    signs_.server.assign(d, false);
    for (size_t rank = 0; rank < requests.size(); ++rank) {
      brought.emplace_back(requests[rank].begin(), requests[rank].end());
      std::vector<Real> x = brought.back();
      const Real scale =
          Compressor::AddResidual(absl::MakeSpan(x), worker_residuals_[rank]);
      scales.push_back(scale);
      bits[rank].resize((d + 7) / 8);
      Compressor::Compress(absl::MakeSpan(x), scale,
                           absl::MakeSpan(bits[rank]));
      worker_residuals_[rank] = x;
      for (size_t i = 0; i < d; ++i) {
        signs_.worker[rank][i] = (bits[rank][i / 8] >> (i % 8) & 1) != 0;
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
      const auto residual =
          absl::MakeSpan(server_residual_).subspan(offset, size);
      const Real scale =
          Compressor::AddResidual(absl::MakeSpan(mean), residual);
      std::vector<uint8_t> server_bits((size + 7) / 8);
      Compressor::Compress(absl::MakeSpan(mean), scale,
                           absl::MakeSpan(server_bits));
      std::copy(mean.begin(), mean.end(), residual.begin());
      Compressor::Decompress(server_bits, scale,
                             absl::MakeSpan(result).subspan(offset, size));
      for (size_t i = 0; i < size; ++i) {
        signs_.server[offset + i] = (server_bits[i / 8] >> (i % 8) & 1) != 0;
      }
    }
    for (const auto& values : requests) {
      std::copy(result.begin(), result.end(), values.begin());
    }
    if (observer_ != nullptr) observer_(step, brought, result);
  }

  const Shards shards_;
  std::vector<std::unique_ptr<OneBitLamb<Real>>> optimizers_;
  Vectors weights_;
  Vectors worker_residuals_;
  std::vector<Real> server_residual_;
  ReplayedSigns signs_;
  Observer observer_;
  double last_norm_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_TESTING_ONEBIT_REPLICAS_H_
