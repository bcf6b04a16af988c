#include "worker/transport/decorated_transport.h"

#include <utility>

#include "base/status_macros.h"

namespace deltapipe {
namespace {

class DecoratedTransport : public Transport {
 public:
  DecoratedTransport(std::unique_ptr<Transport> transport,
                     TransportDecorator decorate)
      : transport_(std::move(transport)), decorate_(std::move(decorate)) {}

  std::string address() const override { return transport_->address(); }

  using Transport::Connect;
  absl::StatusOr<std::unique_ptr<Channel>> Connect(
      const std::string& address, const std::string& name, Deadline deadline,
      const std::atomic<bool>* is_cancelled) override {
    DP_ASSIGN_OR_RETURN(
        auto channel,
        transport_->Connect(address, name, deadline, is_cancelled));
    return decorate_(std::move(channel), {name, true, address});
  }

  absl::StatusOr<std::unique_ptr<Channel>> Accept(const std::string& name,
                                                  Deadline deadline) override {
    DP_ASSIGN_OR_RETURN(auto channel, transport_->Accept(name, deadline));
    return decorate_(std::move(channel), {name, false, ""});
  }

  void Cancel(absl::Status reason) override {
    transport_->Cancel(std::move(reason));
  }

 private:
  const std::unique_ptr<Transport> transport_;
  const TransportDecorator decorate_;
};

}  // namespace

std::unique_ptr<Transport> DecorateTransport(
    std::unique_ptr<Transport> transport, TransportDecorator decorate) {
  return std::make_unique<DecoratedTransport>(std::move(transport),
                                              std::move(decorate));
}

}  // namespace deltapipe
