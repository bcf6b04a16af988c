// Rates of the transports. One run measures a plain socket and the TCP
// transport side by side on this machine's loopback, taking turns, and prints
// both and the ratio of the medians; then frames over it, with and without
// checksums; then TLS against plain text, one way, both ways and in frames;
// then how exactly shaped links keep their rate.
//
//   bazel run //worker/transport:transport_benchmark [-- tls]
#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/thread.h"
#include "base/tls/testing_identities.h"
#include "worker/transport/frame_channel.h"
#include "worker/transport/shaped/shaped_channel.h"
#include "worker/transport/tcp/socket_wait.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

using SteadyClock = std::chrono::steady_clock;

constexpr int kRounds = 9;
constexpr int64_t kBytesPerRound = int64_t{512} << 20;

Deadline Soon() { return Deadline::After(std::chrono::minutes(2)); }

double SecondsSince(SteadyClock::time_point start) {
  return std::chrono::duration<double>(SteadyClock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

// Runs `send` and `receive` at once; bytes per second until both are done.
double Rate(int64_t bytes, const std::function<void()>& send,
            const std::function<void()>& receive) {
  const auto start = SteadyClock::now();
  {
    Thread sender("sender", send);
    receive();
  }
  return static_cast<double>(bytes) / SecondsSince(start);
}

// Two blocking sockets, connected, with the options of the transport.
class PlainSockets {
 public:
  PlainSockets() {
    UniqueFd listener(socket(AF_INET, SOCK_STREAM, 0));
    sockaddr_in address{};
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    socklen_t size = sizeof(address);
    Tune(listener.get());
    bind(listener.get(), reinterpret_cast<sockaddr*>(&address), size);
    listen(listener.get(), 1);
    getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size);
    near_ = UniqueFd(socket(AF_INET, SOCK_STREAM, 0));
    Tune(near_.get());
    connect(near_.get(), reinterpret_cast<sockaddr*>(&address), size);
    far_ = UniqueFd(accept(listener.get(), nullptr, nullptr));
  }

  double Measure(int64_t message_bytes) {
    const int64_t count = kBytesPerRound / message_bytes;
    std::vector<uint8_t> out(message_bytes, 1);
    std::vector<uint8_t> in(message_bytes);
    return Rate(
        count * message_bytes,
        [&] {
          for (int64_t i = 0; i < count; ++i) SendAll(out);
        },
        [&] {
          for (int64_t i = 0; i < count; ++i) {
            recv(far_.get(), in.data(), in.size(), MSG_WAITALL);
          }
        });
  }

 private:
  static void Tune(int fd) {
    const int on = 1;
    const int bytes = TcpOptions().socket_buffer_bytes;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
  }
  void SendAll(const std::vector<uint8_t>& bytes) {
    size_t sent = 0;
    while (sent < bytes.size()) {
      const ssize_t now = send(near_.get(), bytes.data() + sent,
                               bytes.size() - sent, MSG_NOSIGNAL);
      if (now <= 0) return;
      sent += static_cast<size_t>(now);
    }
  }

  UniqueFd near_;
  UniqueFd far_;
};

struct TcpPair {
  std::unique_ptr<Transport> transport =
      CreateTcpTransport("127.0.0.1:0").value();
  std::unique_ptr<Channel> near =
      transport->Connect(transport->address(), "benchmark", Soon()).value();
  std::unique_ptr<Channel> far = transport->Accept("benchmark", Soon()).value();
};

struct TlsPair {
  TestAuthority authority{Clock::Real()};
  std::shared_ptr<const TlsContext> context = authority.MakeContext("worker-1");
  std::unique_ptr<Transport> transport = [this] {
    TcpOptions options;
    options.tls = [this] { return context; };
    return CreateTcpTransport("127.0.0.1:0", options).value();
  }();
  std::unique_ptr<Channel> near =
      transport->Connect(transport->address(), "benchmark", Soon()).value();
  std::unique_ptr<Channel> far = transport->Accept("benchmark", Soon()).value();
};

double MeasureChannel(Channel* near, Channel* far, int64_t message_bytes,
                      int64_t count) {
  const std::vector<uint8_t> out(message_bytes, 1);
  return Rate(
      count * message_bytes,
      [&] {
        for (int64_t i = 0; i < count; ++i) {
          if (!near->Send({out}, Soon()).ok()) return;
        }
      },
      [&] {
        for (int64_t i = 0; i < count; ++i) {
          if (!far->Receive(Soon()).ok()) return;
        }
      });
}

double MeasureFrames(FrameChannel* near, FrameChannel* far,
                     int64_t message_bytes) {
  const int64_t count = kBytesPerRound / message_bytes;
  const std::vector<uint8_t> out(message_bytes, 1);
  return Rate(
      count * message_bytes,
      [&] {
        for (int64_t i = 0; i < count; ++i) {
          if (!near->Send({}, {out}, Soon()).ok()) return;
        }
      },
      [&] {
        for (int64_t i = 0; i < count; ++i) {
          if (!far->Receive(Soon()).ok()) return;
        }
      });
}

std::unique_ptr<FrameChannel> Frames(std::unique_ptr<Channel> channel,
                                     bool verify_checksums) {
  FrameChannelOptions options;
  options.verify_checksums = verify_checksums;
  return FrameChannel::Create(std::move(channel), options).value();
}

void CompareWithPlainSocket(int64_t message_bytes) {
  PlainSockets plain;
  TcpPair tcp;
  TcpPair below_checked, below_unchecked;
  auto checked_near = Frames(std::move(below_checked.near), true);
  auto checked_far = Frames(std::move(below_checked.far), true);
  auto unchecked_near = Frames(std::move(below_unchecked.near), false);
  auto unchecked_far = Frames(std::move(below_unchecked.far), false);
  std::vector<double> plain_rates, tcp_rates, checked_rates, unchecked_rates;
  for (int round = 0; round < kRounds; ++round) {
    plain_rates.push_back(plain.Measure(message_bytes));
    tcp_rates.push_back(MeasureChannel(tcp.near.get(), tcp.far.get(),
                                       message_bytes,
                                       kBytesPerRound / message_bytes));
    checked_rates.push_back(
        MeasureFrames(checked_near.get(), checked_far.get(), message_bytes));
    unchecked_rates.push_back(MeasureFrames(
        unchecked_near.get(), unchecked_far.get(), message_bytes));
  }
  const double plain_rate = Median(plain_rates);
  const double tcp_rate = Median(tcp_rates);
  std::printf(
      "tcp/loopback/%lldMiB plain_gb_per_s=%.2f tcp_gb_per_s=%.2f ratio=%.2f "
      "frames_gb_per_s=%.2f frames_without_checksum_gb_per_s=%.2f\n",
      static_cast<long long>(message_bytes >> 20), plain_rate / 1e9,
      tcp_rate / 1e9, tcp_rate / plain_rate, Median(checked_rates) / 1e9,
      Median(unchecked_rates) / 1e9);
}

// Both directions of one channel at once, bytes of both counted.
double MeasureBothWays(Channel* near, Channel* far, int64_t message_bytes,
                       int64_t count) {
  const auto start = SteadyClock::now();
  {
    Thread one("one", [&] { MeasureChannel(near, far, message_bytes, count); });
    MeasureChannel(far, near, message_bytes, count);
  }
  return static_cast<double>(2 * count * message_bytes) / SecondsSince(start);
}

void CompareTlsWithPlain(int64_t message_bytes) {
  TcpPair plain;
  TlsPair tls;
  TcpPair plain_below;
  TlsPair tls_below;
  auto plain_near = Frames(std::move(plain_below.near), true);
  auto plain_far = Frames(std::move(plain_below.far), true);
  auto tls_near = Frames(std::move(tls_below.near), true);
  auto tls_far = Frames(std::move(tls_below.far), true);
  const int64_t count = kBytesPerRound / message_bytes;
  std::vector<double> one_way, both_ways, frames, plain_rates, tls_rates;
  for (int round = 0; round < kRounds; ++round) {
    plain_rates.push_back(MeasureChannel(plain.near.get(), plain.far.get(),
                                         message_bytes, count));
    tls_rates.push_back(
        MeasureChannel(tls.near.get(), tls.far.get(), message_bytes, count));
    one_way.push_back(tls_rates.back() / plain_rates.back());
    const double plain_both = MeasureBothWays(plain.near.get(), plain.far.get(),
                                              message_bytes, count / 2);
    both_ways.push_back(MeasureBothWays(tls.near.get(), tls.far.get(),
                                        message_bytes, count / 2) /
                        plain_both);
    const double plain_frames =
        MeasureFrames(plain_near.get(), plain_far.get(), message_bytes);
    frames.push_back(
        MeasureFrames(tls_near.get(), tls_far.get(), message_bytes) /
        plain_frames);
  }
  std::printf(
      "tls/loopback/%lldkiB plain_gb_per_s=%.2f tls_gb_per_s=%.2f ratio=%.2f "
      "both_ways_ratio=%.2f frames_ratio=%.2f\n",
      static_cast<long long>(message_bytes >> 10), Median(plain_rates) / 1e9,
      Median(tls_rates) / 1e9, Median(one_way), Median(both_ways),
      Median(frames));
}

void MeasureRoundTrip() {
  TcpPair tcp;
  auto near = Frames(std::move(tcp.near), true);
  auto far = Frames(std::move(tcp.far), true);
  constexpr int kCount = 5000;
  Thread echo("echo", [&] {
    for (int i = 0; i < kCount; ++i) {
      if (!far->Receive(Soon()).ok() || !far->Send({}, {}, Soon()).ok()) {
        return;
      }
    }
  });
  const auto start = SteadyClock::now();
  for (int i = 0; i < kCount; ++i) {
    if (!near->Send({}, {}, Soon()).ok() || !near->Receive(Soon()).ok()) break;
  }
  std::printf("frames/loopback/round_trip micros=%.1f\n",
              SecondsSince(start) / kCount * 1e6);
}

void MeasureShaped(double bits_per_second, int64_t message_bytes,
                   int64_t count) {
  TcpPair tcp;
  LinkOptions options;
  options.bits_per_second = bits_per_second;
  options.latency = std::chrono::milliseconds(10);
  auto near =
      ShapeChannel(std::move(tcp.near), LinkShaper::Create(options).value());
  const auto start = SteadyClock::now();
  MeasureChannel(near.get(), tcp.far.get(), message_bytes, count);
  const double seconds = SecondsSince(start) - 0.010;
  const double rate =
      static_cast<double>(count * (message_bytes + 8)) * 8 / seconds;
  std::printf("shaped/%.0fMbit/%lldkB mbit_per_s=%.2f ratio=%.4f\n",
              bits_per_second / 1e6,
              static_cast<long long>(message_bytes / 1000), rate / 1e6,
              rate / bits_per_second);
}

}  // namespace
}  // namespace deltapipe

// All of it, or one part: tcp, tls, frames or shaped.
int main(int argc, char** argv) {
  const std::string part = argc > 1 ? argv[1] : "";
  const auto wants = [&](const char* name) {
    return part.empty() || part == name;
  };
  // Each line as soon as it is known, also into a pipe.
  std::setvbuf(stdout, nullptr, _IOLBF, BUFSIZ);
  if (wants("tcp")) {
    for (int64_t mebibytes : {1, 4, 16, 64}) {
      deltapipe::CompareWithPlainSocket(mebibytes << 20);
    }
  }
  if (wants("tls")) {
    for (int64_t kibibytes : {64, 1024, 16384}) {
      deltapipe::CompareTlsWithPlain(kibibytes << 10);
    }
  }
  if (wants("frames")) deltapipe::MeasureRoundTrip();
  if (wants("shaped")) {
    deltapipe::MeasureShaped(1e8, 1000000, 20);
    deltapipe::MeasureShaped(1e8, 10000, 2000);
    deltapipe::MeasureShaped(5e8, 1000000, 100);
    deltapipe::MeasureShaped(1e9, 1000000, 200);
  }
  return 0;
}
