#include "worker/transport/tcp/tcp_transport.h"

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "worker/transport/frame_channel.h"

namespace deltapipe {
namespace {

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

ByteSpan Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
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

}  // namespace
}  // namespace deltapipe
