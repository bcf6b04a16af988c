// The TCP transport against a peer that speaks the protocol badly or dies in
// the middle of it: plain sockets play the peer.
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

#include "base/thread.h"
#include "worker/transport/tcp/handshake.h"
#include "worker/transport/tcp/socket_wait.h"
#include "worker/transport/tcp/tcp_connector.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using std::chrono::milliseconds;
using ::testing::HasSubstr;

Deadline Soon() { return Deadline::After(std::chrono::seconds(20)); }

sockaddr_in SocketAddress(const std::string& address) {
  const auto host_port = SplitHostPort(address).value();
  sockaddr_in result{};
  result.sin_family = AF_INET;
  result.sin_port = htons(static_cast<uint16_t>(std::stoi(host_port.second)));
  inet_pton(AF_INET, host_port.first.c_str(), &result.sin_addr);
  return result;
}

// A blocking plain socket, connected.
UniqueFd ConnectPlainly(const std::string& address) {
  UniqueFd fd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const sockaddr_in to = SocketAddress(address);
  EXPECT_EQ(
      connect(fd.get(), reinterpret_cast<const sockaddr*>(&to), sizeof(to)), 0);
  return fd;
}

void Write(const UniqueFd& fd, const std::string& bytes) {
  EXPECT_EQ(send(fd.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

// What comes until the other side closes or `size` bytes are here.
std::string Read(const UniqueFd& fd, size_t size) {
  std::string bytes;
  char byte;
  while (bytes.size() < size && recv(fd.get(), &byte, 1, 0) == 1) {
    bytes.push_back(byte);
  }
  return bytes;
}

std::string AsString(const std::vector<uint8_t>& bytes) {
  return std::string(bytes.begin(), bytes.end());
}

std::string Prefix(uint64_t size) {
  std::string prefix;
  for (int i = 0; i < 8; ++i) {
    prefix.push_back(static_cast<char>(size >> (8 * i)));
  }
  return prefix;
}

class TcpWireTest : public ::testing::Test {
 protected:
  // A plain socket past the handshake and the channel at its other end.
  std::pair<UniqueFd, std::unique_ptr<Channel>> Open() {
    UniqueFd plain = ConnectPlainly(transport_->address());
    Write(plain, AsString(EncodeHello("raw")));
    EXPECT_EQ(Read(plain, kHandshakePrefixBytes),
              AsString(EncodeAnswer(HandshakeVerdict::kOk, "")));
    return {std::move(plain), transport_->Accept("raw", Soon()).value()};
  }

  static void Reset(UniqueFd* fd) {
    const linger at_once{1, 0};
    setsockopt(fd->get(), SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    *fd = UniqueFd();
  }

  std::unique_ptr<Transport> transport_ =
      CreateTcpTransport("127.0.0.1:0").value();
};

TEST_F(TcpWireTest, PeerDiesBeforeAPrefix) {
  auto [plain, channel] = Open();

  plain = UniqueFd();

  const absl::Status status = channel->Receive(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("(raw)"));
}

TEST_F(TcpWireTest, PeerDiesWithinAPrefix) {
  auto [plain, channel] = Open();
  Write(plain, Prefix(100).substr(0, 3));

  plain = UniqueFd();

  const absl::Status status = channel->Receive(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("within a message's length"));
}

TEST_F(TcpWireTest, PeerDiesAfterAPrefix) {
  auto [plain, channel] = Open();
  Write(plain, Prefix(100));

  plain = UniqueFd();

  const absl::Status status = channel->Receive(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("0 of 100 bytes"));
}

TEST_F(TcpWireTest, PeerDiesWithinAMessage) {
  auto [plain, channel] = Open();
  Write(plain, Prefix(100) + "some");

  plain = UniqueFd();

  const absl::Status status = channel->Receive(Soon()).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(status.message()), HasSubstr("4 of 100 bytes"));
}

TEST_F(TcpWireTest, PeerResetsTheConnection) {
  auto [plain, channel] = Open();

  Reset(&plain);

  EXPECT_EQ(channel->Receive(Soon()).status().code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(TcpWireTest, DeadlinesWithinAMessageLoseNothing) {
  auto [plain, channel] = Open();
  const std::string wire = Prefix(3) + "abc" + Prefix(0) + Prefix(2) + "de";

  std::string received;
  for (char byte : wire) {
    Write(plain, std::string(1, byte));
    auto message = channel->Receive(Deadline::After(milliseconds(1)));
    if (!message.ok()) continue;
    received += "[" +
                std::string(reinterpret_cast<const char*>(message->data()),
                            static_cast<size_t>(message->size())) +
                "]";
  }
  // The last byte may come after its millisecond on a busy machine.
  for (auto rest = channel->Receive(Deadline::After(milliseconds(50)));
       rest.ok(); rest = channel->Receive(Deadline::After(milliseconds(50)))) {
    received += "[" +
                std::string(reinterpret_cast<const char*>(rest->data()),
                            static_cast<size_t>(rest->size())) +
                "]";
  }

  EXPECT_EQ(received, "[abc][][de]");
}

TEST_F(TcpWireTest, AnImpossibleLengthBreaksTheChannel) {
  auto [plain, channel] = Open();
  Write(plain, Prefix(uint64_t{1} << 62));

  const absl::Status status = channel->Receive(Soon()).status();

  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(channel->Send({}, Soon()), status);
  EXPECT_EQ(Read(plain, 1), "");
}

TEST_F(TcpWireTest, AStrangersConnectionIsClosed) {
  UniqueFd plain = ConnectPlainly(transport_->address());

  Write(plain, "GET / HTTP/1.1\r\n\r\n");

  EXPECT_EQ(Read(plain, 100), "");
}

TEST_F(TcpWireTest, AnotherVersionIsRefusedWithTheReason) {
  UniqueFd plain = ConnectPlainly(transport_->address());
  std::vector<uint8_t> hello = EncodeHello("raw");
  hello[4] = 9;

  Write(plain, AsString(hello));
  const std::string answer = Read(plain, 300);

  ASSERT_GE(answer.size(), kHandshakePrefixBytes);
  EXPECT_EQ(answer[6], 1);
  EXPECT_THAT(answer, HasSubstr("version 9, expected 1"));
}

TEST_F(TcpWireTest, AnImpossibleNameIsRefused) {
  UniqueFd plain = ConnectPlainly(transport_->address());

  Write(plain, AsString(EncodeHello(std::string(201, 'n'))));
  const std::string answer = Read(plain, 300);

  ASSERT_GE(answer.size(), kHandshakePrefixBytes);
  EXPECT_EQ(answer[6], 2);
}

TEST_F(TcpWireTest, ASilentConnectionIsClosed) {
  TcpOptions options;
  options.handshake_within = milliseconds(20);
  auto impatient = CreateTcpTransport("127.0.0.1:0", options).value();

  UniqueFd plain = ConnectPlainly(impatient->address());

  EXPECT_EQ(Read(plain, 1), "");
}

// A plain listener that answers the first connection with `answer`.
class PlainListener {
 public:
  explicit PlainListener(const std::string& answer)
      : fd_(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in at = SocketAddress("127.0.0.1:0");
    socklen_t size = sizeof(at);
    EXPECT_EQ(bind(fd_.get(), reinterpret_cast<sockaddr*>(&at), size), 0);
    EXPECT_EQ(listen(fd_.get(), 1), 0);
    getsockname(fd_.get(), reinterpret_cast<sockaddr*>(&at), &size);
    address_ = "127.0.0.1:" + std::to_string(ntohs(at.sin_port));
    thread_ = Thread("plain-listener", [this, answer] {
      UniqueFd connection(accept(fd_.get(), nullptr, nullptr));
      Read(connection, kHandshakePrefixBytes);
      Write(connection, answer);
      Read(connection, 1000);
    });
  }
  const std::string& address() const { return address_; }

 private:
  UniqueFd fd_;
  std::string address_;
  Thread thread_;
};

TEST_F(TcpWireTest, ConnectSaysThatSomethingElseListens) {
  PlainListener listener("HTTP/1.1 400 Bad Request\r\n\r\n");

  auto channel = transport_->Connect(listener.address(), "x", Soon());

  EXPECT_EQ(channel.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(channel.status().message()),
              HasSubstr("something other than a deltapipe worker"));
}

TEST_F(TcpWireTest, ConnectReportsARefusal) {
  PlainListener listener(
      AsString(EncodeAnswer(HandshakeVerdict::kOtherVersion, "too new")));

  auto channel = transport_->Connect(listener.address(), "x", Soon());

  EXPECT_EQ(channel.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(channel.status().message()), HasSubstr("too new"));
}

TEST_F(TcpWireTest, ConnectRetriesUntilThePeerListens) {
  const std::string address =
      CreateTcpTransport("127.0.0.1:0").value()->address();
  absl::StatusOr<std::unique_ptr<Channel>> connected;
  std::unique_ptr<Transport> late;
  {
    Thread connector("connector", [&] {
      connected = transport_->Connect(address, "x", Soon());
    });
    EXPECT_FALSE(
        transport_->Accept("nobody", Deadline::After(milliseconds(20))).ok());
    late = CreateTcpTransport(address).value();
  }

  ASSERT_TRUE(connected.ok()) << connected.status();
  EXPECT_TRUE(late->Accept("x", Soon()).ok());
}

}  // namespace
}  // namespace deltapipe
