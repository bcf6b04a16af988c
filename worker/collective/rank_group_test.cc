#include "worker/collective/rank_group.h"

#include <chrono>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/collective/departure.h"
#include "worker/collective/loopback_ranks.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

TEST(RankGroupTest, GathersInRankOrderOnEveryRank) {
  LoopbackRanks ranks = *LoopbackRanks::Create(4);

  ranks.Run([&](int rank) {
    const double mine[] = {rank * 1.0, rank + 0.1};
    const auto gathered = ranks.group(rank)->AllGather(5, 1, mine, Soon());
    ASSERT_TRUE(gathered.ok()) << gathered.status();
    EXPECT_THAT(*gathered,
                ElementsAre(ElementsAre(0.0, 0.1), ElementsAre(1.0, 1.1),
                            ElementsAre(2.0, 2.1), ElementsAre(3.0, 3.1)));
  });
}

TEST(RankGroupTest, OneRankGathersItself) {
  LoopbackRanks ranks = *LoopbackRanks::Create(1);

  const auto gathered = ranks.group(0)->AllGather(5, 1, {2.5}, Soon());

  ASSERT_TRUE(gathered.ok());
  EXPECT_THAT(*gathered, ElementsAre(ElementsAre(2.5)));
}

TEST(RankGroupTest, GathersNothingFromEveryRank) {
  LoopbackRanks ranks = *LoopbackRanks::Create(3);

  ranks.Run([&](int rank) {
    const auto gathered = ranks.group(rank)->AllGather(5, 1, {}, Soon());
    ASSERT_TRUE(gathered.ok());
    EXPECT_THAT(*gathered,
                ElementsAre(ElementsAre(), ElementsAre(), ElementsAre()));
  });
}

TEST(RankGroupTest, NamesPeerThatIsAtAnotherStep) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);

  ranks.Run([&](int rank) {
    const auto gathered = ranks.group(rank)->AllGather(
        static_cast<uint32_t>(5 + rank), 1, {1.0}, Soon());
    EXPECT_EQ(gathered.status().code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(gathered.status().ToString(),
                AllOf(HasSubstr(rank == 0 ? "rank 1" : "rank 0"),
                      HasSubstr("expected scalars of step")));
  });
}

TEST(RankGroupTest, NamesPeerThatIsAtAnotherPhase) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);

  ranks.Run([&](int rank) {
    const auto gathered = ranks.group(rank)->AllGather(
        5, static_cast<uint32_t>(rank), {1.0}, Soon());
    EXPECT_EQ(gathered.status().code(), absl::StatusCode::kFailedPrecondition);
  });
}

TEST(RankGroupTest, RefusesAnotherNumberOfValues) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);

  ranks.Run([&](int rank) {
    const std::vector<double> mine(static_cast<size_t>(rank + 1));
    const auto gathered = ranks.group(rank)->AllGather(5, 1, mine, Soon());
    EXPECT_EQ(gathered.status().code(), absl::StatusCode::kFailedPrecondition);
  });
}

TEST(RankGroupTest, DeadlineNamesTheSilentPeerAndTheStep) {
  LoopbackRanks ranks = *LoopbackRanks::Create(3);

  const auto gathered = ranks.group(0)->AllGather(
      118, 1, {1.0}, Deadline::After(std::chrono::milliseconds(20)));

  EXPECT_EQ(gathered.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(gathered.status().ToString(),
              AllOf(HasSubstr("step 119"), HasSubstr("rank 1")));
}

TEST(RankGroupTest, CancelWakesAWaitingRank) {
  LoopbackRanks ranks = *LoopbackRanks::Create(2);

  ranks.Run([&](int rank) {
    if (rank == 1) {
      ranks.group(0)->Cancel(absl::CancelledError("the job was cancelled"));
      return;
    }
    const auto gathered = ranks.group(0)->AllGather(5, 1, {1.0}, Soon());
    EXPECT_EQ(gathered.status().code(), absl::StatusCode::kCancelled);
    EXPECT_THAT(gathered.status().ToString(),
                HasSubstr("the job was cancelled"));
  });
}

TEST(RankGroupTest, WhoeverIsToldOfADepartureNamesTheRank) {
  LoopbackRanks ranks = *LoopbackRanks::Create(3);

  ranks.Run([&](int rank) {
    if (rank == 2) return;
    if (rank == 0) {
      TellOfDeparture(ranks.group(0), 2);
      ranks.group(0)->Cancel(absl::UnavailableError("rank 2 is gone"));
      return;
    }
    const double mine[] = {1.0};
    const absl::Status status =
        ranks.group(1)->AllGather(5, 1, mine, Soon()).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable) << status;
    // Or its own message to rank 0 failed first: then it finds the news there.
    EXPECT_EQ(FindDeparted(status, ranks.group(1)), 2) << status;
  });
}

}  // namespace
}  // namespace deltapipe
