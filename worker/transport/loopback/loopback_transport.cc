#include "worker/transport/loopback/loopback_transport.h"

#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "worker/transport/held_connections.h"
#include "worker/transport/loopback/loopback_channel.h"
#include "worker/transport/message.h"

namespace deltapipe {

struct LoopbackNetwork::State {
  explicit State(const LoopbackOptions& options) : options(options) {}

  const LoopbackOptions options;
  Mutex mutex;
  CondVar changed;
  // Shared with the transport, so that a Connect may use it while the transport
  // goes away.
  std::map<std::string, std::shared_ptr<HeldConnections>> listeners
      DP_GUARDED_BY(mutex);
  int num_created DP_GUARDED_BY(mutex) = 0;
};

namespace {

class LoopbackTransport : public Transport {
 public:
  LoopbackTransport(std::shared_ptr<LoopbackNetwork::State> network,
                    std::shared_ptr<HeldConnections> held, std::string address)
      : network_(std::move(network)),
        held_(std::move(held)),
        address_(std::move(address)) {}

  ~LoopbackTransport() override {
    Cancel(absl::CancelledError("the transport was destroyed"));
  }

  std::string address() const override { return address_; }

  using Transport::Connect;
  absl::StatusOr<std::unique_ptr<Channel>> Connect(
      const std::string& address, const std::string& name, Deadline deadline,
      const std::atomic<bool>* is_cancelled) override {
    DP_RETURN_IF_ERROR(CheckChannelName(name));
    std::shared_ptr<HeldConnections> listener;
    {
      MutexLock lock(&network_->mutex);
      bool is_there = false;
      do {
        if (is_cancelled != nullptr && *is_cancelled) return CalledOff();
        const Deadline slice = std::min(deadline, Deadline::After(kCancelPoll));
        is_there = network_->changed.WaitUntil(lock, slice, [&] {
          return !cancelled_.ok() || network_->listeners.count(address) > 0;
        });
      } while (!is_there && !deadline.has_passed());
      if (!cancelled_.ok()) return cancelled_;
      if (!is_there) {
        return absl::DeadlineExceededError(
            absl::StrCat("connect to ", address, " (", name,
                         ") timed out: nobody listens there"));
      }
      listener = network_->listeners[address];
    }
    const LoopbackOptions& options = network_->options;
    auto ends = CreateLoopbackChannelPair(
        options.capacity_bytes, options.max_message_bytes,
        absl::StrCat(address, " (", name, ")"),
        absl::StrCat(address_, " (", name, ")"));
    listener->Add(name, std::move(ends.second));
    return std::move(ends.first);
  }

  absl::StatusOr<std::unique_ptr<Channel>> Accept(const std::string& name,
                                                  Deadline deadline) override {
    DP_RETURN_IF_ERROR(CheckChannelName(name));
    return held_->Take(name, address_, deadline);
  }

  void Cancel(absl::Status reason) override {
    {
      MutexLock lock(&network_->mutex);
      if (!cancelled_.ok()) return;
      cancelled_ = CancelReason(reason);
      network_->listeners.erase(address_);
    }
    network_->changed.NotifyAll();
    held_->Cancel(CancelReason(reason));
  }

 private:
  const std::shared_ptr<LoopbackNetwork::State> network_;
  const std::shared_ptr<HeldConnections> held_;
  const std::string address_;
  absl::Status cancelled_;  // under network_->mutex
};

}  // namespace

LoopbackNetwork::LoopbackNetwork(const LoopbackOptions& options)
    : state_(std::make_shared<State>(options)) {}

LoopbackNetwork::~LoopbackNetwork() = default;

absl::StatusOr<std::unique_ptr<Transport>> LoopbackNetwork::CreateTransport(
    const std::string& address) {
  auto held = std::make_shared<HeldConnections>();
  std::string at = address;
  {
    MutexLock lock(&state_->mutex);
    if (at.empty()) at = absl::StrCat("loopback:", ++state_->num_created);
    if (!state_->listeners.emplace(at, held).second) {
      return absl::AlreadyExistsError(
          absl::StrCat("cannot listen on ", at, ": a transport lives there"));
    }
  }
  state_->changed.NotifyAll();
  return std::make_unique<LoopbackTransport>(state_, std::move(held), at);
}

}  // namespace deltapipe
