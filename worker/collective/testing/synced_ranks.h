// SyncedRanks: one GradientSync per rank over loopback or TCP, and what its
// tests bring to it.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TESTING_SYNCED_RANKS_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TESTING_SYNCED_RANKS_H_

#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "base/deadline.h"
#include "gtest/gtest.h"
#include "worker/collective/gradient_sync.h"
#include "worker/collective/loopback_ranks.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {

using Vectors = std::vector<std::vector<float>>;

inline Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

inline Vectors RandomVectors(int num_ranks, int64_t size, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  Vectors vectors(static_cast<size_t>(num_ranks),
                  std::vector<float>(static_cast<size_t>(size)));
  for (std::vector<float>& vector : vectors) {
    for (float& value : vector) value = normal(random);
  }
  return vectors;
}

inline std::vector<std::vector<double>> InDouble(const Vectors& vectors) {
  std::vector<std::vector<double>> result;
  for (const auto& vector : vectors) {
    result.emplace_back(vector.begin(), vector.end());
  }
  return result;
}

inline std::vector<double> Mean(const Vectors& vectors) {
  std::vector<double> mean(vectors[0].size());
  for (const auto& vector : vectors) {
    for (size_t i = 0; i < mean.size(); ++i) {
      mean[i] += double{vector[i]} / double(vectors.size());
    }
  }
  return mean;
}

inline bool SameBits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() &&
         (a.empty() ||
          std::memcmp(a.data(), b.data(), a.size() * sizeof(float)) == 0);
}

inline void ExpectNear(const std::vector<float>& actual,
                       const std::vector<double>& expected, double tolerance) {
  ASSERT_EQ(actual.size(), expected.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    ASSERT_NEAR(actual[i], expected[i], tolerance) << "element " << i;
  }
}

/// What ranks are joined by.
enum class Wire { kLoopback, kTcp };

inline const char* NameOf(Wire wire) {
  return wire == Wire::kTcp ? "Tcp" : "Loopback";
}

inline LoopbackRanks RanksOver(Wire wire, int num_ranks,
                               const FrameChannelOptions& options = {}) {
  if (wire == Wire::kLoopback) {
    return *LoopbackRanks::Create(num_ranks, options);
  }
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    transports.push_back(*CreateTcpTransport("127.0.0.1:0"));
  }
  return *LoopbackRanks::CreateOver(std::move(transports), options);
}

/// One GradientSync per rank, over loopback unless told otherwise.
class SyncedRanks {
 public:
  SyncedRanks(int num_ranks, int64_t num_elements,
              const GradientSyncOptions& options = {},
              const FrameChannelOptions& channel_options = {},
              Wire wire = Wire::kLoopback)
      : ranks_(RanksOver(wire, num_ranks, channel_options)) {
    for (int rank = 0; rank < num_ranks; ++rank) {
      auto sync =
          GradientSync::Create(options, ranks_.group(rank), num_elements);
      EXPECT_TRUE(sync.ok()) << sync.status();
      syncs_.push_back(*std::move(sync));
    }
  }

  /// A whole transaction on all ranks; results must be equal, bit for bit.
  void Synchronize(uint32_t step, SyncFormat format, Vectors* values,
                   SyncVerdict verdict = SyncVerdict::kCommit) {
    SyncRequest request;
    request.format = format;
    Synchronize(step, request, values, verdict);
  }
  /// The same; request.values are replaced by each rank's.
  void Synchronize(uint32_t step, const SyncRequest& request, Vectors* values,
                   SyncVerdict verdict = SyncVerdict::kCommit) {
    ranks_.Run([&](int rank) {
      const size_t i = static_cast<size_t>(rank);
      SyncRequest mine = request;
      mine.values = absl::MakeSpan((*values)[i]);
      absl::Status status = syncs_[i]->Begin(step, mine);
      ASSERT_TRUE(status.ok()) << status;
      status = syncs_[i]->Wait(Soon());
      ASSERT_TRUE(status.ok()) << status;
      status = syncs_[i]->Finish(verdict);
      ASSERT_TRUE(status.ok()) << status;
    });
    for (const auto& vector : *values) {
      EXPECT_TRUE(SameBits(vector, (*values)[0])) << "ranks differ";
    }
  }

  LoopbackRanks& ranks() { return ranks_; }
  GradientSync& sync(int rank) { return *syncs_[static_cast<size_t>(rank)]; }

 private:
  LoopbackRanks ranks_;
  std::vector<std::unique_ptr<GradientSync>> syncs_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TESTING_SYNCED_RANKS_H_
