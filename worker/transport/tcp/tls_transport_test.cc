// Channels over mutual TLS: who may connect, who is refused and what both sides
// then say. What all transports must do is in the conformance kit.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include <chrono>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/buffer.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "base/tls/testing_identities.h"
#include "base/tls/tls_context.h"
#include "worker/transport/tcp/byte_stream.h"
#include "worker/transport/tcp/tcp_channel.h"
#include "worker/transport/tcp/tcp_connector.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using std::chrono::hours;
using std::chrono::milliseconds;
using ::testing::AnyOf;
using ::testing::HasSubstr;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

ByteSpan Bytes(const std::string& text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

std::string Text(const absl::StatusOr<Buffer>& message) {
  if (!message.ok()) return message.status().ToString();
  return std::string(reinterpret_cast<const char*>(message->data()),
                     static_cast<size_t>(message->size()));
}

// The lines that are logged while it lives.
class LogCapture {
 public:
  LogCapture() {
    SetLogSink([this](LogLevel, const std::string& text) {
      MutexLock lock(&mutex_);
      text_ += text + "\n";
      changed_.NotifyAll();
    });
  }
  ~LogCapture() { SetLogSink(nullptr); }
  bool Await(const std::string& part) {
    MutexLock lock(&mutex_);
    return changed_.WaitUntil(
        lock, Soon(), [&] { return text_.find(part) != std::string::npos; });
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  std::string text_ DP_GUARDED_BY(mutex_);
};

class TlsTransportTest : public ::testing::Test {
 protected:
  std::unique_ptr<Transport> Create(std::shared_ptr<const TlsContext> context) {
    TcpOptions options;
    options.tls = [context] { return context; };
    return CreateTcpTransport("127.0.0.1:0", options).value();
  }

  LogCapture log_;
  FakeClock clock_;
  TestAuthority authority_{&clock_};
};

TEST_F(TlsTransportTest, EachEndKnowsTheWorkerAtTheOther) {
  auto a = Create(authority_.MakeContext("worker-1"));
  auto b = Create(authority_.MakeContext("worker-2"));

  auto connected = a->Connect(b->address(), "x", Soon());
  ASSERT_TRUE(connected.ok()) << connected.status();
  auto accepted = b->Accept("x", Soon());
  ASSERT_TRUE(accepted.ok()) << accepted.status();

  EXPECT_EQ((*connected)->capabilities().peer_identity, "worker-2");
  EXPECT_EQ((*accepted)->capabilities().peer_identity, "worker-1");
  EXPECT_EQ((*accepted)->capabilities().name, "tls");
}

TEST_F(TlsTransportTest, NoByteOfAMessageIsOnTheWireInPlainText) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  const auto one = authority_.MakeContext("worker-1");
  auto stream = MakeTlsStream(UniqueFd(fds[0]), TlsRole::kConnect, *one);
  const UniqueFd wire(fds[1]);

  ASSERT_EQ(stream->ShakeHands().kind, IoResult::kWaitToRead);

  char hello[5] = {};
  ASSERT_EQ(recv(wire.get(), hello, sizeof(hello), 0), 5);
  EXPECT_EQ(hello[0], 0x16);  // a handshake record of TLS
  EXPECT_EQ(hello[1], 3);
}

TEST_F(TlsTransportTest, AnExpiredCertificateIsRefusedAndLogged) {
  auto lasting = Create(authority_.MakeContext("worker-1", hours(9)));
  auto expired = Create(authority_.MakeContext("worker-2", hours(1)));
  clock_.Advance(hours(2));

  auto from_expired = expired->Connect(lasting->address(), "x", Soon());
  auto to_expired = lasting->Connect(expired->address(), "y", Soon());

  EXPECT_EQ(from_expired.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(from_expired.status().message()),
              HasSubstr("expired"));
  EXPECT_EQ(to_expired.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(to_expired.status().message()), HasSubstr("expired"));
  EXPECT_TRUE(log_.Await("certificate has expired"));
}

TEST_F(TlsTransportTest, AnotherAuthoritysWorkerIsRefused) {
  TestAuthority other(&clock_);
  auto ours = Create(authority_.MakeContext("worker-1"));
  auto theirs = Create(other.MakeContext("worker-2"));

  auto connected = theirs->Connect(ours->address(), "x", Soon());

  EXPECT_EQ(connected.status().code(), absl::StatusCode::kPermissionDenied)
      << connected.status();
}

TEST_F(TlsTransportTest, APlainWorkerIsToldThatItNeedsAnIdentity) {
  auto plain = CreateTcpTransport("127.0.0.1:0").value();
  auto secured = Create(authority_.MakeContext("worker-1"));

  auto connected = plain->Connect(secured->address(), "x", Soon());

  EXPECT_EQ(connected.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(connected.status().message()),
              HasSubstr("the peer refused: it takes TLS connections only"));
  EXPECT_TRUE(log_.Await("TLS handshake failed"));
}

TEST_F(TlsTransportTest, APlainListenerIsNotTalkedTo) {
  auto plain = CreateTcpTransport("127.0.0.1:0").value();
  auto secured = Create(authority_.MakeContext("worker-1"));

  auto connected = secured->Connect(plain->address(), "x",
                                    Deadline::After(milliseconds(300)));

  EXPECT_EQ(connected.status().code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(std::string(connected.status().message()),
              HasSubstr("is it secured with TLS, too?"));
  EXPECT_TRUE(log_.Await("it speaks TLS, and this worker plain text"));
}

TEST_F(TlsTransportTest, WithoutACertificateYetNothingIsConnected) {
  auto secured = Create(authority_.MakeContext("worker-1"));
  auto early = Create(nullptr);

  EXPECT_EQ(early->Connect(secured->address(), "x", Soon()).status().code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TlsTransportTest, ChannelsOutliveTheirCertificatesAndNewOnesUseTheNew) {
  CurrentTlsContext current(authority_.MakeContext("worker-1", hours(1)));
  TcpOptions options;
  options.tls = [&current] { return current.Get(); };
  auto renewing = CreateTcpTransport("127.0.0.1:0", options).value();
  auto peer = Create(authority_.MakeContext("worker-2", hours(9)));
  auto old_near = renewing->Connect(peer->address(), "old", Soon()).value();
  auto old_far = peer->Accept("old", Soon()).value();

  clock_.Advance(hours(2));
  const absl::Status between =
      renewing->Connect(peer->address(), "between", Soon()).status();
  current.Set(authority_.MakeContext("worker-1", hours(1)));
  auto new_near = renewing->Connect(peer->address(), "new", Soon());

  EXPECT_EQ(between.code(), absl::StatusCode::kPermissionDenied) << between;
  ASSERT_TRUE(new_near.ok()) << new_near.status();
  EXPECT_TRUE(old_near->Send({Bytes("still here")}, Soon()).ok());
  EXPECT_EQ(Text(old_far->Receive(Soon())), "still here");
}

TEST_F(TlsTransportTest, ADamagedRecordBreaksTheChannel) {
  int fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  int far_fds[2];
  ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, far_fds), 0);
  auto near = MakeTlsStream(UniqueFd(fds[0]), TlsRole::kConnect,
                            *authority_.MakeContext("worker-1"));
  auto far = MakeTlsStream(UniqueFd(far_fds[0]), TlsRole::kAccept,
                           *authority_.MakeContext("worker-2"));
  const UniqueFd near_wire(fds[1]), far_wire(far_fds[1]);
  // Carries bytes from one wire to the other; may flip one.
  const auto carry = [](const UniqueFd& from, const UniqueFd& to, bool flip) {
    char bytes[16384];
    const ssize_t got = recv(from.get(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got <= 0) return;
    if (flip) bytes[got / 2] ^= 1;
    send(to.get(), bytes, static_cast<size_t>(got), MSG_NOSIGNAL);
  };
  for (int i = 0; i < 6; ++i) {
    near->ShakeHands();
    carry(near_wire, far_wire, false);
    far->ShakeHands();
    carry(far_wire, near_wire, false);
  }
  ASSERT_EQ(far->peer_identity(), "worker-1");

  const std::string text = "a message";
  const iovec piece{const_cast<char*>(text.data()), text.size()};
  ASSERT_EQ(near->Send({&piece, 1}).kind, IoResult::kMoved);
  carry(near_wire, far_wire, true);
  char received[64];
  const iovec into{received, sizeof(received)};
  const IoResult result = far->Receive({&into, 1});

  EXPECT_EQ(result.kind, IoResult::kFailed);
  EXPECT_THAT(result.error, HasSubstr("bad record mac"));
}

// The two ends of a socket, past the handshake, which change keys often.
std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> JoinedChannels(
    TestAuthority* authority, int64_t bytes_per_key) {
  int fds[2];
  EXPECT_EQ(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
  auto near = MakeTlsStream(UniqueFd(fds[0]), TlsRole::kConnect,
                            *authority->MakeContext("worker-1"), bytes_per_key);
  auto far = MakeTlsStream(UniqueFd(fds[1]), TlsRole::kAccept,
                           *authority->MakeContext("worker-2"), bytes_per_key);
  for (int i = 0; i < 6; ++i) {
    near->ShakeHands();
    far->ShakeHands();
  }
  constexpr int64_t kMost = int64_t{1} << 30;
  return {CreateTcpChannel(std::move(near), "far", kMost),
          CreateTcpChannel(std::move(far), "near", kMost)};
}

TEST_F(TlsTransportTest, KeysChangeOnTheWayInBothDirectionsAtOnce) {
  auto [near, far] = JoinedChannels(&authority_, 100'000);
  const std::string message(70'001, 'm');
  constexpr int kCount = 100;
  const auto send = [&](Channel* channel) {
    for (int i = 0; i < kCount; ++i) {
      if (!channel->Send({Bytes(message)}, Soon()).ok()) return;
    }
  };
  const auto receive = [&](Channel* channel) {
    int good = 0;
    for (int i = 0; i < kCount; ++i) {
      if (Text(channel->Receive(Soon())) == message) ++good;
    }
    return good;
  };
  int good_at_near = 0;

  int good_at_far = 0;
  {
    Thread sender_near("near-send", [&, n = near.get()] { send(n); });
    Thread sender_far("far-send", [&, f = far.get()] { send(f); });
    Thread receiver("near-receive",
                    [&, n = near.get()] { good_at_near = receive(n); });
    good_at_far = receive(far.get());
  }

  EXPECT_EQ(good_at_near, kCount);
  EXPECT_EQ(good_at_far, kCount);
}

}  // namespace
}  // namespace deltapipe
