#include "worker/saved_activations/device_streams.h"

#include "c10/core/StreamGuard.h"
#include "c10/core/impl/VirtualGuardImpl.h"

namespace deltapipe {

c10::Stream DeviceStreams::Current() const {
  return c10::impl::VirtualGuardImpl(device_.type()).getStream(device_);
}

DeviceStream DeviceStreams::Join() {
  if (!has_streams()) return nullptr;
  const c10::Stream current = Current();
  if (last_.has_value() && *last_ != current) {
    c10::Event before(device_.type());
    before.record(*last_);
    before.block(current);
  }
  last_ = current;
  return static_cast<DeviceStream>(current.native_handle());
}

void DeviceStreams::KeepUntilDone(const at::Tensor& tensor) {
  if (has_streams()) tensor.record_stream(Current());
}

void DeviceStreams::WaitFor(const Done& done) {
  if (done != nullptr) done->block(Current());
}

DeviceStreams::Done DeviceStreams::Outward(const std::function<void()>& copy) {
  Done before;
  if (has_streams()) {
    before = std::make_shared<c10::Event>(device_.type());
    before->record(Current());
  }
  return Aside(before, copy, &outward_);
}

DeviceStreams::Done DeviceStreams::Inward(const Done& after,
                                          const std::function<void()>& copy) {
  return Aside(after, copy, &inward_);
}

DeviceStreams::Done DeviceStreams::Aside(const Done& after,
                                         const std::function<void()>& copy,
                                         std::optional<c10::Stream>* side) {
  if (!has_streams()) {
    copy();
    return nullptr;
  }
  if (!side->has_value()) {
    *side = c10::impl::VirtualGuardImpl(device_.type())
                .getStreamFromGlobalPool(device_);
  }
  c10::StreamGuard guard(**side);
  WaitFor(after);
  copy();
  const Done done = std::make_shared<c10::Event>(device_.type());
  done->record(**side);
  return done;
}

}  // namespace deltapipe
