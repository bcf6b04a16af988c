#include "worker/transport/tcp/tcp_transport.h"

#include <arpa/inet.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/thread.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/tcp/socket_wait.h"

namespace deltapipe {
namespace {

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

ByteSpan Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

/// The next connection of a listening socket, or none.
UniqueFd AcceptWithin(int listener, Deadline deadline) {
  if (WaitForSocket(listener, false, -1, deadline) != SocketWait::kReady) {
    return UniqueFd();
  }
  return UniqueFd(accept(listener, nullptr, nullptr));
}

TEST(TcpTransportTest, CarriesFramesBothWays) {
  auto a = CreateTcpTransport("127.0.0.1:0").value();
  auto b = CreateTcpTransport("127.0.0.1:0").value();
  auto from_a = a->Connect(b->address(), "frames", Soon());
  ASSERT_TRUE(from_a.ok()) << from_a.status();
  auto from_b = b->Accept("frames", Soon());
  ASSERT_TRUE(from_b.ok()) << from_b.status();
  auto frames_a = FrameChannel::Create(std::move(*from_a), {}).value();
  auto frames_b = FrameChannel::Create(std::move(*from_b), {}).value();

  ASSERT_TRUE(frames_a->Send({}, {Bytes("there")}, Soon()).ok());
  ASSERT_TRUE(frames_b->Send({}, {Bytes("and back")}, Soon()).ok());
  auto there = frames_b->Receive(Soon());
  auto back = frames_a->Receive(Soon());

  ASSERT_TRUE(there.ok()) << there.status();
  EXPECT_EQ(there->payload(), Bytes("there"));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->payload(), Bytes("and back"));
}

TEST(TcpTransportTest, KnowsTheRoundTripOnceSomethingWasAcknowledged) {
  auto a = CreateTcpTransport("127.0.0.1:0").value();
  auto b = CreateTcpTransport("127.0.0.1:0").value();
  auto from_a = a->Connect(b->address(), "trip", Soon());
  ASSERT_TRUE(from_a.ok()) << from_a.status();
  auto from_b = b->Accept("trip", Soon());
  ASSERT_TRUE(from_b.ok()) << from_b.status();
  ASSERT_TRUE((*from_a)->Send({Bytes("there")}, Soon()).ok());
  ASSERT_TRUE((*from_b)->Receive(Soon()).ok());
  ASSERT_TRUE((*from_b)->Send({Bytes("and back")}, Soon()).ok());
  ASSERT_TRUE((*from_a)->Receive(Soon()).ok());

  // The answer carried the acknowledgement.
  EXPECT_GT((*from_a)->counters().round_trip_seconds, 0);
  EXPECT_LT((*from_a)->counters().round_trip_seconds, 20);
}

TEST(TcpTransportTest, SaysThatAPortIsInUse) {
  auto first = CreateTcpTransport("127.0.0.1:0").value();

  auto second = CreateTcpTransport(first->address());

  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists)
      << second.status();
}

TEST(TcpTransportTest, RefusesBadAddresses) {
  for (const char* address : {"", "localhost", "127.0.0.1:", "127.0.0.1:99999",
                              "::1:80", "127.0.0.1:http"}) {
    EXPECT_EQ(CreateTcpTransport(address).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

TEST(TcpTransportTest, ListensOnIpVersion6) {
  auto transport = CreateTcpTransport("[::1]:0");
  if (!transport.ok()) GTEST_SKIP() << transport.status();

  auto channel = (*transport)->Connect((*transport)->address(), "x", Soon());

  EXPECT_TRUE(channel.ok()) << channel.status();
}

TEST(TcpTransportTest, AnAdvertisedIpVersion6AddressCanBeConnectedTo) {
  TcpOptions options;
  options.advertised_host = "::1";
  auto transport = CreateTcpTransport("[::1]:0", options);
  if (!transport.ok()) GTEST_SKIP() << transport.status();

  auto channel = (*transport)->Connect((*transport)->address(), "x", Soon());

  EXPECT_TRUE(channel.ok()) << channel.status();
}

TEST(TcpTransportTest, ASlowHandshakeIsWaitedForOnOneConnectionUntilCancelled) {
  // Takes connections in, and never answers.
  const UniqueFd listener(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
  sockaddr_in at{};
  at.sin_family = AF_INET;
  at.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(at);
  ASSERT_EQ(bind(listener.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
  ASSERT_EQ(listen(listener.get(), 16), 0);
  getsockname(listener.get(), reinterpret_cast<sockaddr*>(&at), &size);
  auto transport = CreateTcpTransport("127.0.0.1:0").value();
  std::atomic<bool> is_cancelled{false};
  absl::Status connected;

  {
    Thread connect("connect", [&] {
      connected = transport
                      ->Connect(absl::StrCat("127.0.0.1:", ntohs(at.sin_port)),
                                "slow", Soon(), &is_cancelled)
                      .status();
    });
    const UniqueFd taken = AcceptWithin(listener.get(), Soon());
    ASSERT_GE(taken.get(), 0);
    // Longer than any poll: no second attempt is made.
    const UniqueFd second = AcceptWithin(
        listener.get(), Deadline::After(std::chrono::milliseconds(400)));
    EXPECT_EQ(second.get(), -1);
    is_cancelled = true;
  }

  EXPECT_EQ(connected.code(), absl::StatusCode::kCancelled) << connected;
}

}  // namespace
}  // namespace deltapipe
