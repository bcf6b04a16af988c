#include "worker/transport/shaped/fluid_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <vector>

namespace deltapipe {
namespace {

using std::chrono::microseconds;
using std::chrono::milliseconds;
using std::chrono::nanoseconds;
using ::testing::ElementsAre;

constexpr Nanos kStart{milliseconds(1000)};

// The times of a flow's departures, from kStart.
std::vector<Nanos> Departures(FluidLink* link, FluidLink::FlowId flow) {
  std::vector<Nanos> times;
  for (const FluidLink::Departure& departure : *link->departures(flow)) {
    times.push_back(departure.time - kStart);
  }
  return times;
}

TEST(FluidLinkTest, OneFlowGetsTheWholeRate) {
  FluidLink link(8e6, kStart);  // a byte a microsecond
  const auto flow = link.AddFlow();

  link.Enqueue(flow, 1000, kStart);
  link.Enqueue(flow, 500, kStart);
  const Nanos predicted = link.PredictDeparture(flow);
  link.Advance(kStart + milliseconds(10));

  EXPECT_EQ(predicted - kStart, microseconds(1000));
  EXPECT_THAT(Departures(&link, flow),
              ElementsAre(microseconds(1000), microseconds(1500)));
}

TEST(FluidLinkTest, AnIdleLinkGivesNoCredit) {
  FluidLink link(8e6, kStart);
  const auto flow = link.AddFlow();

  link.Enqueue(flow, 1000, kStart + milliseconds(7));
  link.Advance(kStart + milliseconds(100));

  EXPECT_THAT(Departures(&link, flow), ElementsAre(microseconds(8000)));
}

TEST(FluidLinkTest, BusyFlowsShareTheRateEqually) {
  FluidLink link(8e6, kStart);
  const auto first = link.AddFlow();
  const auto second = link.AddFlow();

  link.Enqueue(first, 1000, kStart);
  link.Enqueue(second, 3000, kStart);
  link.Advance(kStart + milliseconds(10));

  EXPECT_THAT(Departures(&link, first), ElementsAre(microseconds(2000)));
  EXPECT_THAT(Departures(&link, second), ElementsAre(microseconds(4000)));
}

TEST(FluidLinkTest, ASmallMessageDoesNotWaitBehindALargeOne) {
  FluidLink link(1e8, kStart);
  const auto large = link.AddFlow();
  const auto small = link.AddFlow();
  link.Enqueue(large, 10000000, kStart);

  link.Enqueue(small, 125, kStart + milliseconds(100));
  const Nanos predicted = link.PredictDeparture(small);
  link.Advance(kStart + milliseconds(1000));

  // 125 bytes take 10 us alone and twice that beside another flow.
  EXPECT_EQ(predicted - kStart, milliseconds(100) + microseconds(20));
  EXPECT_THAT(Departures(&link, small),
              ElementsAre(milliseconds(100) + microseconds(20)));
  EXPECT_THAT(Departures(&link, large),
              ElementsAre(milliseconds(800) + microseconds(10)));
}

TEST(FluidLinkTest, PredictsWithTheOtherFlowsQueues) {
  FluidLink link(8e6, kStart);
  const auto first = link.AddFlow();
  const auto second = link.AddFlow();
  link.Enqueue(first, 1000, kStart);
  link.Enqueue(second, 100, kStart);
  link.Enqueue(second, 200, kStart);

  const Nanos predicted = link.PredictDeparture(first);
  link.Advance(kStart + milliseconds(10));

  EXPECT_EQ(predicted - kStart, microseconds(1300));
  EXPECT_THAT(Departures(&link, first), ElementsAre(microseconds(1300)));
}

TEST(FluidLinkTest, DoesNotDriftOverManyMessagesAndLateLooks) {
  FluidLink link(1e8, kStart);
  const auto flow = link.AddFlow();
  const auto other = link.AddFlow();
  constexpr int kCount = 100000;
  for (int i = 0; i < kCount; ++i) {
    link.Enqueue(i % 3 == 0 ? other : flow, 1237, kStart);
  }

  // Looks at odd moments; 1237 bytes take 98.96 us.
  for (int i = 1; i <= 10000; ++i) {
    link.Advance(kStart + i * nanoseconds(989637));
  }

  const Nanos last = link.departures(flow)->back().time - kStart;
  EXPECT_EQ(last, kCount * nanoseconds(98960));
}

TEST(FluidLinkTest, ARemovedFlowLeavesItsShareToTheRest) {
  FluidLink link(8e6, kStart);
  const auto first = link.AddFlow();
  const auto second = link.AddFlow();
  link.Enqueue(first, 1000, kStart);
  link.Enqueue(second, 1000, kStart);

  link.RemoveFlow(second, kStart + microseconds(1000));
  link.Advance(kStart + milliseconds(10));

  EXPECT_THAT(Departures(&link, first), ElementsAre(microseconds(1500)));
}

TEST(FluidLinkTest, UnlimitedDepartsAtOnce) {
  FluidLink link(0, kStart);
  const auto flow = link.AddFlow();

  link.Enqueue(flow, 1 << 30, kStart + microseconds(5));

  EXPECT_THAT(Departures(&link, flow), ElementsAre(microseconds(5)));
}

}  // namespace
}  // namespace deltapipe
