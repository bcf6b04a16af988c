// The streams that packing works on: the current one, in the order of calls,
// and one beside it for copies each way.
//
// By LibTorch's streams and events of any device, so that nothing here needs
// CUDA's headers; a device that has none (the host, where tests run kernels)
// does all at once. Nothing waits on the host. One thread at a time.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_STREAMS_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_STREAMS_H_

#include <functional>
#include <memory>
#include <optional>

#include "ATen/core/Tensor.h"
#include "c10/core/Event.h"
#include "c10/core/Stream.h"
#include "compression/cuda/device_codec.h"

namespace deltapipe {

class DeviceStreams {
 public:
  /// Of the work so far on some stream; null: done.
  using Done = std::shared_ptr<c10::Event>;

  explicit DeviceStreams(at::Device device) : device_(device) {}

  /// The current stream. Work that is given to it from here on comes after all
  /// that was given to the streams of former calls before this one.
  DeviceStream Join();
  /// Memory of `tensor`, freed by then, is used again only after the current
  /// stream's work so far.
  void KeepUntilDone(const at::Tensor& tensor);
  /// The current stream waits.
  void WaitFor(const Done& done);

  /// Calls `copy` with another stream as the current one: after the current
  /// stream's work so far, or after `after`.
  Done Outward(const std::function<void()>& copy);
  Done Inward(const Done& after, const std::function<void()>& copy);

 private:
  bool has_streams() const { return !device_.is_cpu(); }
  c10::Stream Current() const;
  Done Aside(const Done& after, const std::function<void()>& copy,
             std::optional<c10::Stream>* side);

  const at::Device device_;
  std::optional<c10::Stream> last_;
  std::optional<c10::Stream> outward_;
  std::optional<c10::Stream> inward_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_DEVICE_STREAMS_H_
