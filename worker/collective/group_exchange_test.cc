#include "worker/collective/group_exchange.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <string>
#include <vector>

#include "base/mutex.h"
#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr uint32_t kPhase = 3;
constexpr uint32_t kCodecHash = 0xABCD;
constexpr int64_t kPieceBytes = 10;

std::vector<uint8_t> MessageOf(int from, int to) {
  // Of another size for each pair: nothing, one piece, and several.
  std::vector<uint8_t> message(static_cast<size_t>(7 * (from + 2 * to)));
  for (size_t i = 0; i < message.size(); ++i) {
    message[i] = static_cast<uint8_t>(i + static_cast<size_t>(from) * 50);
  }
  return message;
}

TEST(GroupExchangeTest, MessagesOfAnyNumberOfPiecesArriveWhole) {
  constexpr int kNumRanks = 3;
  LoopbackRanks ranks = *LoopbackRanks::Create(kNumRanks);
  std::map<int, std::vector<int>> order;
  Mutex mutex;

  ranks.Run([&](int rank) {
    GroupExchange exchange(ranks.group(rank), 1, kPieceBytes);
    exchange.Begin(5, kCodecHash);
    std::vector<GroupExchange::Outgoing> outgoing;
    std::vector<int> sources;
    std::map<int, std::vector<uint8_t>> messages;
    for (int peer = 0; peer < kNumRanks; ++peer) {
      if (peer == rank) continue;
      messages[peer] = MessageOf(rank, peer);
      const std::vector<uint8_t>& message = messages[peer];
      outgoing.push_back({peer, 1, [&message] { return ByteSpan(message); }});
      sources.push_back(peer);
    }
    const absl::Status status = exchange.Exchange(
        kPhase, outgoing, sources, 100, [&](int peer, ByteSpan bytes) {
          EXPECT_EQ(bytes, ByteSpan(MessageOf(peer, rank)));
          MutexLock lock(&mutex);
          order[rank].push_back(peer);
          return absl::OkStatus();
        });
    EXPECT_TRUE(status.ok()) << status;
  });

  EXPECT_EQ(order[0], std::vector<int>({1, 2}));
  EXPECT_EQ(order[1], std::vector<int>({0, 2}));
  EXPECT_EQ(order[2], std::vector<int>({0, 1}));
}

TEST(GroupExchangeTest, RefusesMorePiecesThanTheLargestMessageHas) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);
  absl::Status refused;

  ranks.Run([&](int rank) {
    GroupExchange exchange(ranks.group(rank), 1, kPieceBytes);
    exchange.Begin(5, kCodecHash);
    if (rank == 1) {
      const std::vector<uint8_t> piece(kPieceBytes);
      EXPECT_TRUE(exchange.Send(0, {kPhase, 0, 1000000, 1}, piece).ok());
      return;
    }
    refused = exchange.Exchange(kPhase, {}, {1}, 10 * kPieceBytes,
                                [](int, ByteSpan) { return absl::OkStatus(); });
  });

  EXPECT_EQ(refused.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(refused.ToString(), AllOf(HasSubstr("rank 1"),
                                        HasSubstr("1000000 pieces, expected 10 "
                                                  "of at most 10 bytes")));
}

TEST(GroupExchangeTest, RefusesAnotherCodecPhaseOrPiece) {
  const GroupExchange::Part wrong[] = {{kPhase + 1, 0, 1, 1},
                                       {kPhase, 1, 2, 1}};
  for (const GroupExchange::Part& part : wrong) {
    LoopbackRanks ranks = *LoopbackRanks::Create(2);
    absl::Status refused;
    ranks.Run([&](int rank) {
      GroupExchange exchange(ranks.group(rank), 1, kPieceBytes);
      exchange.Begin(5, kCodecHash);
      if (rank == 1) {
        EXPECT_TRUE(exchange.Send(0, part, ByteSpan()).ok());
        return;
      }
      refused = exchange.Receive(1, {kPhase, 0}).status();
    });
    EXPECT_EQ(refused.code(), absl::StatusCode::kFailedPrecondition) << refused;
  }
  LoopbackRanks ranks = *LoopbackRanks::Create(2);
  absl::Status refused;
  ranks.Run([&](int rank) {
    GroupExchange exchange(ranks.group(rank), 1, kPieceBytes);
    exchange.Begin(5, kCodecHash + static_cast<uint32_t>(rank));
    if (rank == 1) {
      EXPECT_TRUE(exchange.Send(0, {kPhase, 0, 1, 1}, ByteSpan()).ok());
      return;
    }
    refused = exchange.Receive(1, {kPhase, 0}).status();
  });
  EXPECT_THAT(refused.ToString(), HasSubstr("codec hash"));
}

}  // namespace
}  // namespace deltapipe
