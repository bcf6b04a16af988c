#include "worker/transport/testing/transport_conformance.h"

#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/clock.h"
#include "base/tls/testing_identities.h"
#include "worker/transport/decorated_transport.h"
#include "worker/transport/faulty/faulty_channel.h"
#include "worker/transport/loopback/loopback_transport.h"
#include "worker/transport/recording/recording_channel.h"
#include "worker/transport/shaped/shaped_channel.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

constexpr int64_t kMaxMessageBytes = int64_t{96} << 20;

TransportPair CreateLoopbackPair() {
  LoopbackOptions options;
  options.max_message_bytes = kMaxMessageBytes;
  LoopbackNetwork network(options);
  return {network.CreateTransport("a").value(),
          network.CreateTransport("b").value(), "nobody"};
}

TransportPair CreateTcpPair() {
  TcpOptions options;
  options.max_message_bytes = kMaxMessageBytes;
  const std::string address = "127.0.0.1:0";
  // A port that was free a moment ago: nobody listens there any more.
  const std::string nobody =
      CreateTcpTransport(address, options).value()->address();
  return {CreateTcpTransport(address, options).value(),
          CreateTcpTransport(address, options).value(), nobody};
}

TransportPair CreateTlsPair() {
  // Made once: a key takes longer than a handshake.
  static TestAuthority* const authority = new TestAuthority(Clock::Real());
  static const auto* const contexts = new std::pair(
      authority->MakeContext("worker-1"), authority->MakeContext("worker-2"));
  TcpOptions a, b;
  a.max_message_bytes = b.max_message_bytes = kMaxMessageBytes;
  a.tls = [] { return contexts->first; };
  b.tls = [] { return contexts->second; };
  const std::string address = "127.0.0.1:0";
  const std::string nobody = CreateTcpTransport(address, a).value()->address();
  return {CreateTcpTransport(address, a).value(),
          CreateTcpTransport(address, b).value(), nobody};
}

TransportPair Decorate(TransportPair pair, const TransportDecorator& decorate) {
  pair.a = DecorateTransport(std::move(pair.a), decorate);
  pair.b = DecorateTransport(std::move(pair.b), decorate);
  return pair;
}

// Each transport has its own link to the other; fast enough for large messages.
TransportPair Shape(TransportPair pair) {
  LinkOptions options;
  options.bits_per_second = 20e9;
  options.latency = std::chrono::microseconds(100);
  auto decorate = [&options] {
    return [link = LinkShaper::Create(options).value()](
               std::unique_ptr<Channel> channel, const ChannelOrigin&) {
      return ShapeChannel(std::move(channel), link);
    };
  };
  pair.a = DecorateTransport(std::move(pair.a), decorate());
  pair.b = DecorateTransport(std::move(pair.b), decorate());
  return pair;
}

TransportPair Record(TransportPair pair) {
  return Decorate(std::move(pair), [](std::unique_ptr<Channel> channel,
                                      const ChannelOrigin&) {
    return RecordChannel(std::move(channel), std::make_shared<Recording>());
  });
}

TransportPair MakeFaultless(TransportPair pair) {
  return Decorate(std::move(pair), [](std::unique_ptr<Channel> channel,
                                      const ChannelOrigin&) {
    return FaultyChannel::Create(std::move(channel), FaultOptions());
  });
}

INSTANTIATE_TEST_SUITE_P(
    All, TransportConformanceTest,
    ::testing::Values(
        TransportFactory{"Loopback", CreateLoopbackPair},
        TransportFactory{"Tcp", CreateTcpPair},
        TransportFactory{"Tls", CreateTlsPair},
        TransportFactory{"ShapedLoopback",
                         [] { return Shape(CreateLoopbackPair()); }},
        TransportFactory{"ShapedTcp", [] { return Shape(CreateTcpPair()); }},
        TransportFactory{"ShapedTls", [] { return Shape(CreateTlsPair()); }},
        TransportFactory{"RecordingLoopback",
                         [] { return Record(CreateLoopbackPair()); }},
        TransportFactory{"FaultlessTcp",
                         [] { return MakeFaultless(CreateTcpPair()); }}),
    FactoryName);

}  // namespace
}  // namespace deltapipe
