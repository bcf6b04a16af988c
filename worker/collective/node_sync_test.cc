// GradientSync where ranks share nodes: what leaves a node, and that the result
// is what a flat one gives.
#include <chrono>
#include <cmath>
#include <cstdint>
#include <string>
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

class NodeSyncTest : public ::testing::TestWithParam<Shape> {
 protected:
  int num_nodes() const { return std::get<0>(GetParam()); }
  int per_node() const { return std::get<1>(GetParam()); }
  int num_ranks() const { return num_nodes() * per_node(); }
  int64_t size() const { return std::get<2>(GetParam()); }
  std::vector<int> nodes() const { return InBlocks(num_nodes(), per_node()); }
};

TEST_P(NodeSyncTest, PlainEqualsFlatBitForBitOnWholeNumbers) {
  SyncedRanks nested(num_ranks(), size(), On(nodes()));
  SyncedRanks flat(num_ranks(), size());
  Vectors values = WholeNumbers(num_ranks(), size(), 3);
  Vectors expected = values;

  nested.Synchronize(0, SyncFormat::kPlain, &values);
  flat.Synchronize(0, SyncFormat::kPlain, &expected);

  EXPECT_TRUE(SameBits(values[0], expected[0]));
}

TEST_P(NodeSyncTest, PlainIsTheMean) {
  SyncedRanks ranks(num_ranks(), size(), On(nodes()));
  Vectors values = RandomVectors(num_ranks(), size(), 4);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST_P(NodeSyncTest, IdentityCompressorIsTheMean) {
  GradientSyncOptions options = On(nodes());
  options.compressed_codec = "identity";
  SyncedRanks ranks(num_ranks(), size(), options);
  Vectors values = RandomVectors(num_ranks(), size(), 5);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kCompressed, &values);

  ExpectNear(values[0], expected, 1e-6);
}

TEST_P(NodeSyncTest, HalfPrecisionStaysWithinItsRounding) {
  GradientSyncOptions options = On(nodes());
  options.plain_codec = "cast(bf16)";
  options.node_codec = "cast(bf16)";
  SyncedRanks ranks(num_ranks(), size(), options);
  Vectors values = RandomVectors(num_ranks(), size(), 6);
  const std::vector<double> expected = Mean(values);

  ranks.Synchronize(0, SyncFormat::kPlain, &values);

  // Each value is rounded three times on its way, to within 2^-9; none of them
  // exceeds 6.
  ExpectNear(values[0], expected, 3 * 6.0 / 512);
}

// Each slice is what the flat algorithm makes of the nodes' means.
TEST_P(NodeSyncTest, OneBitEqualsTheTranscriptionOverNodes) {
  SyncedRanks ranks(num_ranks(), size(), On(nodes()));
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
    ::testing::Values(Shape{2, 2, 0}, Shape{2, 2, 1}, Shape{2, 2, 31},
                      Shape{2, 2, 4001}, Shape{2, 3, 1000}, Shape{3, 2, 777},
                      Shape{2, 4, 10007}, Shape{4, 2, 2500}),
    [](const auto& info) {
      return absl::StrCat(std::get<0>(info.param), "x", std::get<1>(info.param),
                          "_", std::get<2>(info.param));
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

// A rank that dies in the middle: everybody hears of it by name, well before
// the deadline, and owes what it owed before.
TEST(NodeSyncTest, ARankThatLeavesIsNamedAndResidualsStay) {
  for (const std::vector<int>& nodes :
       {std::vector<int>(), InBlocks(2, 2), InBlocks(4, 1)}) {
    SyncedRanks ranks(4, 5000, On(nodes));
    Vectors values = RandomVectors(4, 5000, 2);
    ranks.Synchronize(0, SyncFormat::kCompressed, &values);
    std::vector<SyncResiduals> before;
    for (int rank = 0; rank < 4; ++rank) {
      before.push_back(*ranks.sync(rank).TakeResiduals());
    }
    const absl::Status gone = absl::UnavailableError("worker-3 has left");

    ranks.ranks().Run([&](int rank) {
      if (rank == 3) {
        ranks.ranks().group(3)->Cancel(gone);
        return;
      }
      GradientSync& sync = ranks.sync(rank);
      ASSERT_TRUE(sync.Begin(1, {absl::MakeSpan(values[size_t(rank)]),
                                 SyncFormat::kCompressed})
                      .ok());
      const absl::Status status = sync.Wait(Soon());
      EXPECT_FALSE(status.ok());
      EXPECT_FALSE(absl::IsDeadlineExceeded(status)) << status;
      EXPECT_THAT(std::string(status.message()), HasSubstr("rank "));
      EXPECT_TRUE(sync.Finish(SyncVerdict::kAbort).ok());
    });

    for (int rank = 0; rank < 3; ++rank) {
      const SyncResiduals after = *ranks.sync(rank).TakeResiduals();
      EXPECT_TRUE(SameBits(after.worker, before[size_t(rank)].worker));
      EXPECT_TRUE(SameBits(after.server, before[size_t(rank)].server));
    }
  }
}

}  // namespace
}  // namespace deltapipe
