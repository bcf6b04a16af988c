// The transport conformance kit on NCCL channels over the fakes.
//
// Wrapping takes both ends at once, and the kit opens one after the other: so
// here an end is wrapped on a thread of its own, and its first use waits for
// that. A mesh (worker/engine) needs no such thing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <utility>

#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/transport/decorated_transport.h"
#include "worker/transport/loopback/loopback_transport.h"
#include "worker/transport/nccl/nccl_channel.h"
#include "worker/transport/nccl/testing/fake_gpu.h"
#include "worker/transport/shaped/shaped_channel.h"
#include "worker/transport/tcp/tcp_transport.h"
#include "worker/transport/testing/transport_conformance.h"

namespace deltapipe {
namespace {

constexpr int64_t kMaxMessageBytes = int64_t{96} << 20;

class WrappedLater : public Channel {
 public:
  WrappedLater(std::unique_ptr<Channel> channel, NcclContext* context,
               bool is_lower_rank)
      : peer_(channel->peer()), capabilities_(channel->capabilities()) {
    thread_ =
        Thread("wrap", [this, context, is_lower_rank, raw = channel.release()] {
          auto wrapped = WrapWithNccl(
              std::unique_ptr<Channel>(raw), context, is_lower_rank, {},
              Deadline::After(std::chrono::seconds(30)), &is_over_);
          MutexLock lock(&mutex_);
          wrapped_ = std::move(wrapped);
          is_ready_ = true;
          changed_.NotifyAll();
        });
  }
  ~WrappedLater() override { is_over_ = true; }

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    DP_ASSIGN_OR_RETURN(Channel* const channel, Await());
    return channel->Send(pieces, deadline);
  }
  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    DP_ASSIGN_OR_RETURN(Channel* const channel, Await());
    return channel->Receive(deadline);
  }
  void Cancel(absl::Status reason) override {
    {
      MutexLock lock(&mutex_);
      if (cancelled_.ok()) cancelled_ = reason;
    }
    is_over_ = true;  // or it might wait for a peer that never comes
    const auto channel = Await();
    if (channel.ok()) (*channel)->Cancel(std::move(reason));
  }
  ChannelCapabilities capabilities() const override { return capabilities_; }
  ChannelCounters counters() const override {
    const auto channel = const_cast<WrappedLater*>(this)->Await();
    return channel.ok() ? (*channel)->counters() : ChannelCounters();
  }
  std::string peer() const override { return peer_; }

 private:
  absl::StatusOr<Channel*> Await() {
    MutexLock lock(&mutex_);
    changed_.Wait(lock, [this] { return is_ready_; });
    if (wrapped_.ok()) return wrapped_->get();
    return cancelled_.ok() ? wrapped_.status() : cancelled_;
  }

  const std::string peer_;
  const ChannelCapabilities capabilities_;
  std::atomic<bool> is_over_{false};
  Mutex mutex_;
  CondVar changed_;
  bool is_ready_ DP_GUARDED_BY(mutex_) = false;
  absl::Status cancelled_ DP_GUARDED_BY(mutex_);
  absl::StatusOr<std::unique_ptr<Channel>> wrapped_ DP_GUARDED_BY(mutex_);
  Thread thread_;
};

struct Machine {
  FakeGpu gpu;
  std::unique_ptr<NcclContext> context =
      NcclContext::Create(gpu.nccl(), gpu.cuda(), 0).value();
};

// The machine lives as long as one of the two transports, or until the end of
// the test, whichever is later: channels may outlive their transports.
TransportPair Wrap(TransportPair pair) {
  auto machine = std::make_shared<Machine>();
  const auto decorate = [machine](std::unique_ptr<Channel> channel,
                                  const ChannelOrigin& origin) {
    return std::make_unique<WrappedLater>(
        std::move(channel), machine->context.get(), origin.is_connected);
  };
  pair.a = DecorateTransport(std::move(pair.a), decorate);
  pair.b = DecorateTransport(std::move(pair.b), decorate);
  return pair;
}

TransportPair Shape(TransportPair pair) {
  LinkOptions options;
  options.bits_per_second = 20e9;
  options.latency = std::chrono::microseconds(100);
  const auto decorate = [&options] {
    return [link = LinkShaper::Create(options).value()](
               std::unique_ptr<Channel> channel, const ChannelOrigin&) {
      return ShapeChannel(std::move(channel), link);
    };
  };
  pair.a = DecorateTransport(std::move(pair.a), decorate());
  pair.b = DecorateTransport(std::move(pair.b), decorate());
  return pair;
}

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
  const std::string nobody =
      CreateTcpTransport(address, options).value()->address();
  return {CreateTcpTransport(address, options).value(),
          CreateTcpTransport(address, options).value(), nobody};
}

INSTANTIATE_TEST_SUITE_P(
    Nccl, TransportConformanceTest,
    ::testing::Values(
        TransportFactory{"NcclLoopback",
                         [] { return Wrap(CreateLoopbackPair()); }},
        TransportFactory{"NcclTcp", [] { return Wrap(CreateTcpPair()); }},
        TransportFactory{"ShapedNcclTcp",
                         [] { return Shape(Wrap(CreateTcpPair())); }}),
    FactoryName);

}  // namespace
}  // namespace deltapipe
