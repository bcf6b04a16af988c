#include "coordinator/background/seats.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

v1::ParallelSpec Parallel(int stages, int replicas, int nodes) {
  v1::ParallelSpec parallel;
  parallel.set_stages(stages);
  parallel.set_replicas(replicas);
  parallel.set_nodes(nodes);
  return parallel;
}

/// One worker for each letter, which names its host: "a1", "a2", "b3" ...
std::vector<WorkerInfo> WorkersOn(const std::string& hosts) {
  std::vector<WorkerInfo> workers;
  for (const char host : hosts) {
    WorkerInfo worker;
    worker.host = std::string(1, host);
    worker.id = absl::StrCat(worker.host, workers.size() + 1);
    workers.push_back(worker);
  }
  return workers;
}

std::vector<std::string> Seat(const v1::ParallelSpec& parallel,
                              const std::string& hosts,
                              const std::map<std::string, int>& former = {}) {
  std::vector<std::string> ids;
  for (const WorkerInfo& worker :
       SeatWorkers(parallel, WorkersOn(hosts), former)) {
    ids.push_back(worker.id);
  }
  return ids;
}

std::string SplitOf(const v1::ParallelSpec& parallel,
                    const std::string& hosts) {
  return DescribeSplitNodes(parallel,
                            SeatWorkers(parallel, WorkersOn(hosts), {}));
}

TEST(SeatWorkersTest, WithoutNodesTheOrderIsTheRosters) {
  EXPECT_THAT(Seat(Parallel(2, 2, 0), "aabb"),
              ElementsAre("a1", "a2", "b3", "b4"));
  EXPECT_THAT(Seat(Parallel(1, 2, 2), "ab"), ElementsAre("a1", "b2"));
}

TEST(SeatWorkersTest, AFormerRankIsKept) {
  EXPECT_THAT(Seat(Parallel(2, 2, 0), "aabb", {{"b4", 0}, {"a1", 3}}),
              ElementsAre("b4", "a2", "b3", "a1"));
}

TEST(SeatWorkersTest, ANodeIsOneHostInEveryStage) {
  // Ranks 0 to 3 are stage 0, of which 0 and 1 are a node.
  EXPECT_THAT(Seat(Parallel(2, 4, 2), "aaaabbbb"),
              ElementsAre("a1", "a2", "b5", "b6", "a3", "a4", "b7", "b8"));
  EXPECT_THAT(SplitOf(Parallel(2, 4, 2), "aaaabbbb"), IsEmpty());
}

TEST(SeatWorkersTest, UnevenHostsAreFilledByWholeNodes) {
  // b has one worker, which goes where a node cannot be whole.
  EXPECT_THAT(Seat(Parallel(1, 6, 3), "aaabcc"),
              ElementsAre("a1", "a2", "c5", "c6", "a3", "b4"));
  EXPECT_THAT(SplitOf(Parallel(1, 6, 3), "aaabcc"),
              AllOf(HasSubstr("replicas 4 to 5 of stage 0 count as one node"),
                    HasSubstr("are on a, b:"), HasSubstr("start 2 workers")));
}

TEST(SeatWorkersTest, OneHostIsEveryNode) {
  EXPECT_THAT(SplitOf(Parallel(2, 4, 2), "aaaaaaaa"), IsEmpty());
}

TEST(SeatWorkersTest, WhoComesInPlaceOfALostWorkerIsOfTheSameHost) {
  // a2 is gone; both hosts have a spare, and b's is listed first.
  EXPECT_THAT(Seat(Parallel(1, 4, 2), "baba", {{"a2", 0}, {"b3", 2}}),
              ElementsAre("a2", "a4", "b3", "b1"));
}

TEST(SeatWorkersTest, EveryoneIsSeatedOnce) {
  const unsigned seed = 20;
  SCOPED_TRACE(absl::StrCat("seed ", seed));
  std::mt19937 random(seed);
  for (int trial = 0; trial < 500; ++trial) {
    const int stages = 1 + static_cast<int>(random() % 3);
    const int nodes = 1 + static_cast<int>(random() % 3);
    const int replicas = nodes * (1 + static_cast<int>(random() % 3));
    std::string hosts;
    for (int i = 0; i < stages * replicas; ++i) {
      hosts.push_back(static_cast<char>('a' + random() % 4));
    }
    std::sort(hosts.begin(), hosts.end());
    std::map<std::string, int> former;
    const std::vector<WorkerInfo> workers = WorkersOn(hosts);
    for (size_t rank = 0; rank < workers.size(); ++rank) {
      if (random() % 3 == 0) former[workers[rank].id] = static_cast<int>(rank);
    }

    std::vector<std::string> seated =
        Seat(Parallel(stages, replicas, nodes), hosts, former);

    for (const auto& [id, rank] : former) {
      ASSERT_EQ(seated[static_cast<size_t>(rank)], id) << "trial " << trial;
    }
    std::vector<std::string> all;
    for (const WorkerInfo& worker : workers) all.push_back(worker.id);
    std::sort(all.begin(), all.end());
    std::sort(seated.begin(), seated.end());
    ASSERT_EQ(seated, all) << "trial " << trial;
  }
}

}  // namespace
}  // namespace deltapipe
