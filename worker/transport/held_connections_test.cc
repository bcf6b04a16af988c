#include "worker/transport/held_connections.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "worker/transport/loopback/loopback_channel.h"

namespace deltapipe {
namespace {

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }
Deadline Now() { return Deadline::After(std::chrono::nanoseconds(0)); }

// Adds one end under `name` and returns the other.
std::unique_ptr<Channel> Add(HeldConnections* held, const std::string& name) {
  auto ends = CreateLoopbackChannelPair(100, 100, "far", name);
  held->Add(name, std::move(ends.second));
  return std::move(ends.first);
}

TEST(HeldConnectionsTest, HandsOutConnectionsOfANameInOrder) {
  HeldConnections held;
  auto first = Add(&held, "x");
  auto second = Add(&held, "x");

  auto taken_first = held.Take("x", "here", Soon()).value();
  auto taken_second = held.Take("x", "here", Soon()).value();
  ASSERT_TRUE(first->Send({}, Soon()).ok());

  EXPECT_TRUE(taken_first->Receive(Soon()).ok());
  EXPECT_EQ(taken_second->Receive(Now()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(held.Take("x", "here", Now()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
}

TEST(HeldConnectionsTest, RefusesTheOldestBeyondItsLimit) {
  HeldConnections held;
  std::vector<std::unique_ptr<Channel>> others;
  for (size_t i = 0; i < HeldConnections::kMaxHeld + 1; ++i) {
    others.push_back(Add(&held, absl::StrCat(i)));
  }

  EXPECT_EQ(others[0]->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(held.Take("0", "here", Now()).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(held.Take("1", "here", Soon()).ok());
}

TEST(HeldConnectionsTest, CancelClosesWhatIsHeld) {
  HeldConnections held;
  auto before = Add(&held, "x");

  held.Cancel(absl::CancelledError("done"));
  auto after = Add(&held, "x");

  EXPECT_EQ(held.Take("x", "here", Soon()).status(),
            absl::CancelledError("done"));
  EXPECT_EQ(before->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(after->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace deltapipe
