#include "coordinator/roster/roster.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Nanos kBudget = std::chrono::seconds(10);

RosterOptions Options() {
  RosterOptions options;
  options.version = "1.2.3";
  return options;
}

v1::Hello HelloFrom(const std::string& host) {
  v1::Hello hello;
  hello.set_version("1.2.3");
  hello.set_host(host);
  hello.set_pid(7);
  hello.set_data_address(":4000");
  hello.set_device("cpu");
  return hello;
}

std::vector<std::string> Ids(const std::vector<WorkerInfo>& workers) {
  std::vector<std::string> ids;
  for (const WorkerInfo& worker : workers) ids.push_back(worker.id);
  return ids;
}

class RosterTest : public ::testing::Test {
 protected:
  std::shared_ptr<FakeWorkerSession> Join(const v1::Hello& hello) {
    auto session = std::make_shared<FakeWorkerSession>();
    const auto welcome = roster_.Join(hello, "10.0.0.2", session);
    EXPECT_TRUE(welcome.ok()) << welcome.status();
    return session;
  }

  FakeClock clock_;
  Roster roster_{Options(), &clock_};
};

TEST_F(RosterTest, WelcomeIsTheFirstMessage) {
  const auto session = Join(HelloFrom("a"));

  const auto sent = session->Sent();
  ASSERT_EQ(sent.size(), 1u);
  EXPECT_EQ(sent[0].welcome().worker_id(), "worker-1");
  EXPECT_EQ(sent[0].welcome().heartbeat_millis(), 500);
}

TEST_F(RosterTest, OtherVersionIsRefusedNamingBothAndTheRemedy) {
  v1::Hello hello = HelloFrom("host-b");
  hello.set_version("1.2.4");
  const auto session = std::make_shared<FakeWorkerSession>();

  const auto welcome = roster_.Join(hello, "10.0.0.2", session);

  EXPECT_EQ(welcome.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(welcome.status().message()),
              AllOf(HasSubstr("1.2.3"), HasSubstr("1.2.4"), HasSubstr("host-b"),
                    HasSubstr("install the same")));
  EXPECT_EQ(roster_.List().workers_size(), 0);
}

TEST_F(RosterTest, WrongLaunchTokenIsRefused) {
  RosterOptions options = Options();
  options.launch_token = "secret";
  Roster roster(options, &clock_);
  v1::Hello hello = HelloFrom("a");
  hello.set_launch_token("guess");
  const auto session = std::make_shared<FakeWorkerSession>();

  EXPECT_EQ(roster.Join(hello, "h", session).status().code(),
            absl::StatusCode::kPermissionDenied);
  hello.set_launch_token("secret");
  EXPECT_TRUE(roster.Join(hello, "h", session).ok());
}

TEST_F(RosterTest, PortAloneIsCompletedWithThePeersHost) {
  Join(HelloFrom("a"));
  v1::Hello named = HelloFrom("a");
  named.set_data_address("192.168.0.9:5000");
  Join(named);
  roster_.Join(HelloFrom("a"), "::1", std::make_shared<FakeWorkerSession>())
      .IgnoreError();  // the list shows it

  const v1::ListWorkersResponse list = roster_.List();
  EXPECT_EQ(list.workers(0).address(), "10.0.0.2:4000");
  EXPECT_EQ(list.workers(1).address(), "192.168.0.9:5000");
  EXPECT_EQ(list.workers(2).address(), "[::1]:4000");
}

TEST_F(RosterTest, AddressWithoutPortIsRefused) {
  v1::Hello hello = HelloFrom("a");
  hello.set_data_address("somewhere");

  EXPECT_EQ(
      roster_.Join(hello, "10.0.0.2", std::make_shared<FakeWorkerSession>())
          .status()
          .code(),
      absl::StatusCode::kInvalidArgument);
}

TEST_F(RosterTest, ReturningWorkerKeepsItsNameUnlessTaken) {
  v1::Hello hello = HelloFrom("a");
  hello.set_worker_id("worker-5");
  EXPECT_EQ(Join(hello)->Sent()[0].welcome().worker_id(), "worker-5");
  EXPECT_EQ(Join(hello)->Sent()[0].welcome().worker_id(), "worker-6");
  hello.set_worker_id("../worker-7");
  EXPECT_EQ(Join(hello)->Sent()[0].welcome().worker_id(), "worker-7");
}

TEST_F(RosterTest, ReservationIsAllOrNothing) {
  Join(HelloFrom("a"));
  roster_.Wait("text-1", {2, false});

  const Reservation none = roster_.TryReserve("text-1", kBudget);
  Join(HelloFrom("a"));
  const Reservation both = roster_.TryReserve("text-1", kBudget);

  EXPECT_THAT(none.workers, IsEmpty());
  EXPECT_EQ(none.num_missing, 1);
  EXPECT_THAT(Ids(both.workers), ElementsAre("worker-1", "worker-2"));
  EXPECT_EQ(roster_.JobOf("worker-2"), "text-1");
}

TEST_F(RosterTest, WorkersOfOneHostAreNeighbours) {
  for (const char* host : {"b", "a", "b", "a"}) Join(HelloFrom(host));
  roster_.Wait("text-1", {4, false});

  EXPECT_THAT(Ids(roster_.TryReserve("text-1", kBudget).workers),
              ElementsAre("worker-2", "worker-4", "worker-1", "worker-3"));
}

TEST_F(RosterTest, EarlierJobGoesFirstButDoesNotBlockWhatItCannotUse) {
  roster_.Wait("big-1", {3, false});
  roster_.Wait("early-2", {1, false});
  roster_.Wait("late-3", {1, false});
  Join(HelloFrom("a"));

  const Reservation late = roster_.TryReserve("late-3", kBudget);
  const Reservation early = roster_.TryReserve("early-2", kBudget);

  EXPECT_THAT(late.workers, IsEmpty());
  EXPECT_TRUE(late.is_behind_another);
  EXPECT_THAT(Ids(early.workers), ElementsAre("worker-1"));
}

TEST_F(RosterTest, WorkerMeantForAJobIsGivenToNoOther) {
  v1::Hello meant = HelloFrom("a");
  meant.set_job_id("late-2");
  Join(meant);
  roster_.Wait("early-1", {1, false});
  roster_.Wait("late-2", {1, false});

  const Reservation early = roster_.TryReserve("early-1", kBudget);
  const Reservation late = roster_.TryReserve("late-2", kBudget);

  EXPECT_THAT(early.workers, IsEmpty());
  EXPECT_EQ(early.num_missing, 1);
  EXPECT_EQ(roster_.List().workers(0).meant_for(), "late-2");
  EXPECT_THAT(Ids(late.workers), ElementsAre("worker-1"));
}

TEST_F(RosterTest, JobTakesItsOwnWorkersBeforeThoseThatTakeAny) {
  Join(HelloFrom("a"));
  v1::Hello meant = HelloFrom("b");
  meant.set_job_id("text-1");
  Join(meant);
  roster_.Wait("text-1", {1, false});

  EXPECT_THAT(Ids(roster_.TryReserve("text-1", kBudget).workers),
              ElementsAre("worker-2"));
}

TEST_F(RosterTest, JobsThatBringTheirWorkersStartInWhateverOrderTheseCome) {
  roster_.Wait("first-1", {4, false});
  roster_.Wait("second-2", {4, false});
  for (int i = 0; i < 4; ++i) {
    for (const char* job : {"second-2", "first-1"}) {
      v1::Hello meant = HelloFrom("a");
      meant.set_job_id(job);
      Join(meant);
    }
  }

  const Reservation first = roster_.TryReserve("first-1", kBudget);
  const Reservation second = roster_.TryReserve("second-2", kBudget);

  EXPECT_EQ(first.workers.size(), 4u);
  EXPECT_EQ(second.workers.size(), 4u);
}

TEST_F(RosterTest, JobThatStopsWaitingMakesWay) {
  roster_.Wait("early-1", {1, false});
  roster_.Wait("late-2", {1, false});
  Join(HelloFrom("a"));

  roster_.StopWaiting("early-1");

  EXPECT_EQ(roster_.TryReserve("late-2", kBudget).workers.size(), 1u);
}

TEST_F(RosterTest, GpuJobsTakeOnlyGpuWorkers) {
  Join(HelloFrom("a"));
  v1::Hello gpu = HelloFrom("b");
  gpu.set_device("cuda:0 (NVIDIA H100)");
  Join(gpu);
  roster_.Wait("text-1", {1, true});

  EXPECT_THAT(Ids(roster_.TryReserve("text-1", kBudget).workers),
              ElementsAre("worker-2"));
}

TEST_F(RosterTest, ReleasedWorkerIsIdleAgain) {
  Join(HelloFrom("a"));
  roster_.Wait("text-1", {1, false});
  roster_.TryReserve("text-1", kBudget);
  roster_.SetPlace("worker-1", 1, 2, 7);
  const v1::Worker busy = roster_.List().workers(0);

  roster_.Release("worker-1", "text-1");

  EXPECT_EQ(busy.state(), "busy");
  EXPECT_EQ(busy.job_id(), "text-1");
  EXPECT_EQ(busy.stage(), 1);
  EXPECT_EQ(busy.replica(), 2);
  EXPECT_EQ(roster_.List().workers(0).state(), "idle");
}

TEST_F(RosterTest, WorkerOfAnotherJobIsNotReleased) {
  Join(HelloFrom("a"));
  roster_.Wait("text-2", {1, false});
  roster_.TryReserve("text-2", kBudget);

  roster_.Release("worker-1", "text-1");

  EXPECT_EQ(roster_.JobOf("worker-1"), "text-2");
}

TEST_F(RosterTest, SilentWorkerIsRemovedAfterItsJobsBudget) {
  const auto busy = Join(HelloFrom("a"));
  const auto idle = Join(HelloFrom("b"));
  roster_.Wait("text-1", {1, false});
  roster_.TryReserve("text-1", std::chrono::seconds(3));

  clock_.Advance(std::chrono::seconds(3));
  const auto none = roster_.RemoveSilent();
  clock_.Advance(std::chrono::milliseconds(1));
  const auto gone = roster_.RemoveSilent();

  EXPECT_THAT(none, IsEmpty());
  ASSERT_EQ(gone.size(), 1u);
  EXPECT_EQ(gone[0].worker.id, "worker-1");
  EXPECT_EQ(gone[0].job_id, "text-1");
  EXPECT_THAT(gone[0].reason, HasSubstr("no heartbeat for 3"));
  EXPECT_TRUE(busy->is_closed());
  EXPECT_FALSE(idle->is_closed());
}

TEST_F(RosterTest, SignOfLifeResetsTheSilence) {
  Join(HelloFrom("a"));
  clock_.Advance(std::chrono::seconds(9));
  roster_.Heard("worker-1");
  clock_.Advance(std::chrono::seconds(9));

  EXPECT_THAT(roster_.RemoveSilent(), IsEmpty());
}

TEST_F(RosterTest, HeartbeatsMissedAreThoseOfConnectedWorkersCountedOnce) {
  Join(HelloFrom("a"));
  clock_.Advance(std::chrono::milliseconds(999));
  roster_.RemoveSilent();
  EXPECT_EQ(roster_.num_heartbeats_missed(), 0);

  clock_.Advance(std::chrono::milliseconds(1));  // two intervals of 500 ms
  roster_.RemoveSilent();
  roster_.RemoveSilent();
  EXPECT_EQ(roster_.num_heartbeats_missed(), 1);
  clock_.Advance(std::chrono::seconds(1));
  roster_.RemoveSilent();
  EXPECT_EQ(roster_.num_heartbeats_missed(), 3);

  roster_.Heard("worker-1");
  clock_.Advance(std::chrono::seconds(1));
  roster_.RemoveSilent();
  EXPECT_EQ(roster_.num_heartbeats_missed(), 4);
}

TEST_F(RosterTest, OwnPauseIsNotTheWorkersSilence) {
  Join(HelloFrom("a"));
  clock_.Advance(std::chrono::seconds(60));

  roster_.Forgive(std::chrono::seconds(60));

  EXPECT_THAT(roster_.RemoveSilent(), IsEmpty());
}

TEST_F(RosterTest, LeavingNamesTheJob) {
  const auto session = Join(HelloFrom("a"));
  roster_.Wait("text-1", {1, false});
  roster_.TryReserve("text-1", kBudget);

  const auto departed = roster_.Leave("worker-1", session.get());

  ASSERT_TRUE(departed.has_value());
  EXPECT_EQ(departed->job_id, "text-1");
  EXPECT_FALSE(roster_.Leave("worker-1", session.get()).has_value());
}

TEST_F(RosterTest, EndOfAnOldStreamDoesNotRemoveTheReturnedWorker) {
  const auto old_session = Join(HelloFrom("a"));
  roster_.Dismiss("worker-1", "too slow");
  v1::Hello hello = HelloFrom("a");
  hello.set_worker_id("worker-1");
  Join(hello);

  EXPECT_FALSE(roster_.Leave("worker-1", old_session.get()).has_value());
  EXPECT_EQ(roster_.List().workers_size(), 1);
}

TEST_F(RosterTest, OnlyAnIdleWorkerThatIsThatProcessIsSentAway) {
  v1::Hello hello = HelloFrom("a");
  hello.set_pid(812);
  const auto idle = Join(hello);
  hello.set_pid(813);
  const auto busy = Join(hello);
  roster_.SendAway("worker-1", "a", 813, "drained");
  roster_.SendAway("worker-1", "b", 812, "drained");
  roster_.SendAway("worker-3", "a", 812, "drained");
  EXPECT_FALSE(idle->is_closed());

  roster_.SendAway("worker-1", "a", 812, "drained");

  EXPECT_EQ(idle->close_reason(), "drained");
  roster_.Wait("text-1", {1, false});
  ASSERT_EQ(roster_.TryReserve("text-1", Nanos(1)).workers.size(), 1u);
  roster_.SendAway("worker-2", "a", 813, "drained");
  EXPECT_FALSE(busy->is_closed());
}

TEST_F(RosterTest, CloseSaysGoodbyeAndLetsNobodyIn) {
  const auto session = Join(HelloFrom("a"));

  roster_.Close("maintenance");

  EXPECT_EQ(session->close_reason(), "maintenance");
  EXPECT_EQ(
      roster_.Join(HelloFrom("a"), "h", std::make_shared<FakeWorkerSession>())
          .status()
          .code(),
      absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace deltapipe
