// GradientSync where ranks share nodes: what leaves a node, and that the result
// is what a flat one gives.
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/shards.h"
#include "worker/collective/testing/serial_all_reduce.h"
#include "worker/collective/testing/synced_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

/// `per_node` ranks on each of `num_nodes`, one node after the other.
std::vector<int> InBlocks(int num_nodes, int per_node) {
  std::vector<int> nodes;
  for (int rank = 0; rank < num_nodes * per_node; ++rank) {
    nodes.push_back(rank / per_node);
  }
  return nodes;
}

GradientSyncOptions On(const std::vector<int>& nodes) {
  GradientSyncOptions options;
  options.nodes = nodes;
  return options;
}

Vectors WholeNumbers(int num_ranks, int64_t size, uint64_t seed) {
  Vectors vectors = RandomVectors(num_ranks, size, seed);
  for (std::vector<float>& vector : vectors) {
    for (float& value : vector) value = std::round(100 * value);
  }
  return vectors;
}

using Shape = std::tuple<int, int, int64_t>;  // nodes, ranks in each, elements

class NodeSyncTest : public ::testing::TestWithParam<std::tuple<Shape, Wire>> {
 protected:
  const Shape& shape() const { return std::get<0>(GetParam()); }
  int num_nodes() const { return std::get<0>(shape()); }
  int per_node() const { return std::get<1>(shape()); }
  int num_ranks() const { return num_nodes() * per_node(); }
  int64_t size() const { return std::get<2>(shape()); }
  SyncedRanks MakeRanks(const GradientSyncOptions& options) const {
    return SyncedRanks(num_ranks(), size(), options, {},
                       std::get<1>(GetParam()));
  }
  std::vector<int> nodes() const { return InBlocks(num_nodes(), per_node()); }
};

TEST_P(NodeSyncTest, PlainEqualsFlatBitForBitOnWholeNumbers) {
  SyncedRanks nested = MakeRanks(On(nodes()));
  SyncedRanks flat(num_ranks(), size());
  Vectors values = WholeNumbers(num_ranks(), size(), 3);
  Vectors expected = values;

  nested.Synchronize(0, SyncFormat::kPlain, &values);
  flat.Synchronize(0, SyncFormat::kPlain, &expected);

  EXPECT_TRUE(SameBits(values[0], expected[0]));
}

TEST_P(NodeSyncTest, PlainIsTheMean) {
  SyncedRanks ranks = MakeRanks(On(nodes()));
  Vectors values = RandomVectors(num_ranks(), size(), 4);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST_P(NodeSyncTest, IdentityCompressorIsTheMean) {
  GradientSyncOptions options = On(nodes());
  options.compressed_codec = "identity";
  SyncedRanks ranks = MakeRanks(options);
  Vectors values = RandomVectors(num_ranks(), size(), 5);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kCompressed, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST_P(NodeSyncTest, HalfPrecisionStaysWithinItsRounding) {
  GradientSyncOptions options = On(nodes());
  options.plain_codec = "cast(bf16)";
  options.node_codec = "cast(bf16)";
  SyncedRanks ranks = MakeRanks(options);
  Vectors values = RandomVectors(num_ranks(), size(), 6);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  // Each value is rounded three times on its way, to within 2^-9; none of them
  // exceeds 6.
  ExpectNear(values[0], expected, 3 * 6.0 / 512);
}

// Each slice is what the flat algorithm makes of the nodes' means.
TEST_P(NodeSyncTest, OneBitEqualsTheTranscriptionOverNodes) {
  SyncedRanks ranks = MakeRanks(On(nodes()));
  const Shards slices{size(), per_node()};
  std::vector<SerialCompressedAllReduce> serial;
  for (int i = 0; i < per_node(); ++i) {
    serial.emplace_back(num_nodes(), slices.size(i));
  }
  for (uint32_t step = 0; step < 4; ++step) {
    Vectors values = RandomVectors(num_ranks(), size(), 10 + step);
    std::vector<double> expected;
    for (int i = 0; i < per_node(); ++i) {
      std::vector<std::vector<double>> means;
      for (int node = 0; node < num_nodes(); ++node) {
        const Vectors mine(values.begin() + node * per_node(),
                           values.begin() + (node + 1) * per_node());
        const std::vector<double> mean = Mean(mine);
        means.emplace_back(mean.begin() + slices.offset(i),
                           mean.begin() + slices.offset(i + 1));
      }
      const std::vector<double> part =
          serial[static_cast<size_t>(i)].Run(means);
      expected.insert(expected.end(), part.begin(), part.end());
    }

    ranks.Synchronize(step, SyncFormat::kCompressed, &values);

    ExpectNear(values[0], expected, 2e-5);
  }
}

INSTANTIATE_TEST_SUITE_P(
    Shapes, NodeSyncTest,
    ::testing::Combine(::testing::Values(Shape{2, 2, 0}, Shape{2, 2, 1},
                                         Shape{2, 2, 31}, Shape{2, 2, 4001},
                                         Shape{2, 3, 1000}, Shape{3, 2, 777},
                                         Shape{2, 4, 10007}, Shape{4, 2, 2500}),
                       ::testing::Values(Wire::kLoopback, Wire::kTcp)),
    [](const auto& info) {
      const Shape shape = std::get<0>(info.param);
      return absl::StrCat(std::get<0>(shape), "x", std::get<1>(shape), "_",
                          std::get<2>(shape), NameOf(std::get<1>(info.param)));
    });

TEST(NodeSyncTest, RanksOfANodeNeedNotBeNeighbours) {
  SyncedRanks ranks(4, 999, On({7, 3, 7, 3}));
  SyncedRanks in_blocks(4, 999, On({0, 0, 1, 1}));
  Vectors values = RandomVectors(4, 999, 1);
  // The same ranks meet in the same order of nodes.
  Vectors expected = {values[1], values[3], values[0], values[2]};

  ranks.Synchronize(0, SyncFormat::kCompressed, &values);
  in_blocks.Synchronize(0, SyncFormat::kCompressed, &expected);

  EXPECT_TRUE(SameBits(values[0], expected[0]));
}

// 2 (m - 1) / m bits per element and node, plus a scale a message.
TEST(NodeSyncTest, ANodeSendsAQuarterByteAParameterHoweverManyRanksItHas) {
  constexpr int64_t kSize = 200000;
  for (const int per_node : {1, 2, 4}) {
    for (const int num_nodes : {2, 4}) {
      const int n = num_nodes * per_node;
      SCOPED_TRACE(absl::StrCat(num_nodes, " nodes of ", per_node));
      SyncedRanks ranks(n, kSize, On(InBlocks(num_nodes, per_node)));
      Vectors values = RandomVectors(n, kSize, 2);
      ranks.Synchronize(0, SyncFormat::kCompressed, &values);

      for (int node = 0; node < num_nodes; ++node) {
        int64_t off_node = 0;
        int64_t on_wire = 0;
        for (int i = 0; i < per_node; ++i) {
          const int rank = node * per_node + i;
          off_node += ranks.sync(rank).counters().off_node_bytes;
          for (int peer = 0; peer < n; ++peer) {
            if (peer / per_node == node) continue;
            on_wire += ranks.ranks()
                           .group(rank)
                           ->channel(peer)
                           ->channel_counters()
                           .bytes_sent;
          }
        }
        EXPECT_LE(double(off_node), 0.26 * kSize);
        EXPECT_LE(double(on_wire), 0.26 * kSize) << "framing included";
        EXPECT_GE(double(off_node), 0.24 * kSize * (num_nodes - 1) / num_nodes);
      }
    }
  }
}

TEST(NodeSyncTest, ARankKeepsResidualsOfItsSliceAlone) {
  SyncedRanks ranks(4, 1600, On(InBlocks(2, 2)));
  Vectors values = RandomVectors(4, 1600, 2);
  ranks.Synchronize(0, SyncFormat::kCompressed, &values);

  const auto residuals = ranks.sync(3).TakeResiduals();

  ASSERT_TRUE(residuals.ok());
  EXPECT_EQ(residuals->worker.size(), 800u);
  EXPECT_EQ(residuals->server.size(), 400u);
}

TEST(NodeSyncTest, NodesOfDifferentSizesAreRefused) {
  LoopbackRanks ranks = *LoopbackRanks::Create(3);
  const absl::Status status =
      GradientSync::Create(On({0, 0, 1}), ranks.group(0), 10).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()),
              AllOf(HasSubstr("equally many ranks"), HasSubstr("node 1")));
  EXPECT_EQ(
      GradientSync::Create(On({0, 1}), ranks.group(0), 10).status().code(),
      absl::StatusCode::kInvalidArgument);
}

TEST(NodeSyncTest, RanksThatSeeOtherNodesFindOut) {
  LoopbackRanks ranks = *LoopbackRanks::Create(4);
  ranks.Run([&](int rank) {
    auto sync = GradientSync::Create(
        rank == 2 ? GradientSyncOptions() : On(InBlocks(2, 2)),
        ranks.group(rank), 100);
    ASSERT_TRUE(sync.ok());
    std::vector<float> values(100);
    SyncRequest request{absl::MakeSpan(values), SyncFormat::kCompressed};
    ASSERT_TRUE((*sync)->Begin(0, request).ok());
    EXPECT_FALSE((*sync)->Wait(Soon()).ok()) << "rank " << rank;
  });
}

/// The ranks of a node, and what joins them.
struct World {
  std::string name;
  std::vector<int> nodes;
  Wire wire;
};

class LeavingRankTest : public ::testing::TestWithParam<World> {
 protected:
  static constexpr int kLeaving = 3;
  static constexpr int64_t kSize = 5000;

  LeavingRankTest()
      : ranks_(4, kSize, On(GetParam().nodes), {}, GetParam().wire),
        values_(RandomVectors(4, kSize, 2)) {
    ranks_.Synchronize(0, SyncFormat::kCompressed, &values_);
    for (int rank = 0; rank < 4; ++rank) {
      before_.push_back(*ranks_.sync(rank).TakeResiduals());
    }
  }

  absl::Status Begin(int rank) {
    return ranks_.sync(rank).Begin(
        1, {absl::MakeSpan(values_[size_t(rank)]), SyncFormat::kCompressed});
  }
  void Leave() {
    ranks_.ranks().group(kLeaving)->Cancel(
        absl::UnavailableError("worker-3 has left"));
  }
  /// Well before the deadline, by the name of the rank that left.
  void ExpectNamed(int rank) {
    const absl::Status status = ranks_.sync(rank).Wait(Soon());
    EXPECT_FALSE(status.ok()) << "rank " << rank;
    EXPECT_FALSE(absl::IsDeadlineExceeded(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("rank 3 ("))
        << "rank " << rank;
    EXPECT_TRUE(ranks_.sync(rank).Finish(SyncVerdict::kAbort).ok());
  }
  void ExpectResidualsStay() {
    for (int rank = 0; rank < kLeaving; ++rank) {
      const SyncResiduals after = *ranks_.sync(rank).TakeResiduals();
      EXPECT_TRUE(SameBits(after.worker, before_[size_t(rank)].worker));
      EXPECT_TRUE(SameBits(after.server, before_[size_t(rank)].server));
    }
  }
  int64_t FramesReceived(int rank, int peer) {
    return ranks_.ranks()
        .group(rank)
        ->channel(peer)
        ->counters()
        .frames_received;
  }

  SyncedRanks ranks_;
  Vectors values_;
  std::vector<SyncResiduals> before_;
};

TEST_P(LeavingRankTest, IsNamedOnAllOthersAndResidualsStay) {
  ranks_.ranks().Run([&](int rank) {
    if (rank == kLeaving) return Leave();
    ASSERT_TRUE(Begin(rank).ok());
    ExpectNamed(rank);
  });

  ExpectResidualsStay();
}

// It has sent what it has in the first phase, and waits for rank 2, which comes
// only after it has gone.
TEST_P(LeavingRankTest, IsNamedWhereItLeavesAfterTheFirstPhase) {
  const int64_t before = FramesReceived(2, kLeaving);
  std::atomic<bool> has_left{false};

  ranks_.ranks().Run([&](int rank) {
    if (rank == kLeaving) {
      ASSERT_TRUE(Begin(rank).ok());
      const Deadline deadline = Soon();
      while (FramesReceived(2, kLeaving) == before && !deadline.has_passed()) {
        std::this_thread::yield();
      }
      EXPECT_GT(FramesReceived(2, kLeaving), before);
      Leave();
      has_left = true;
      EXPECT_FALSE(ranks_.sync(rank).Wait(Soon()).ok());
      EXPECT_TRUE(ranks_.sync(rank).Finish(SyncVerdict::kAbort).ok());
      return;
    }
    while (rank == 2 && !has_left) std::this_thread::yield();
    ASSERT_TRUE(Begin(rank).ok());
    ExpectNamed(rank);
  });

  ExpectResidualsStay();
}

INSTANTIATE_TEST_SUITE_P(
    Worlds, LeavingRankTest,
    ::testing::Values(World{"Flat", {}, Wire::kLoopback},
                      World{"FlatTcp", {}, Wire::kTcp},
                      World{"Nodes", InBlocks(2, 2), Wire::kLoopback},
                      World{"NodesTcp", InBlocks(2, 2), Wire::kTcp},
                      World{"NodesOfOne", InBlocks(4, 1), Wire::kLoopback}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace deltapipe
