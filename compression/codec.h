// Codec: floats to few bytes and back, without state.
//
// One file and one row of codecs.def per codec. Callers are the boundary codecs
// (activations and their gradients, per sample) and the gradient collectives.
// A codec is immutable and thread-safe; all randomness comes from the
// RandomKey, so that the same input and key give the same bytes on any machine.
// State (deltas, error feedback) lives beside the codec, in compression/delta.
//
//   DP_ASSIGN_OR_RETURN(auto codec, MakeCodec("int(4,round=nearest)"));
//   Buffer payload(codec->MaxPayloadBytes(n));
//   DP_ASSIGN_OR_RETURN(int64_t size,
//                       codec->Encode(values, key, payload.span()));
//   DP_RETURN_IF_ERROR(codec->Decode(payload.span().first(size), restored));
#ifndef DELTAPIPE_COMPRESSION_CODEC_H_
#define DELTAPIPE_COMPRESSION_CODEC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/philox.h"

namespace deltapipe {

struct CodecSpec;

class Codec {
 public:
  virtual ~Codec() = default;

  /// The canonical text, with every parameter that differs from its default:
  /// MakeCodec(text()) makes an equal codec.
  virtual std::string text() const = 0;

  /// The largest payload that Encode can write for `num_elements` values.
  /// Exactly the payload's size where traits().has_fixed_size.
  virtual int64_t MaxPayloadBytes(int64_t num_elements) const = 0;

  /// Encodes `in` into `out` (at least MaxPayloadBytes(in.size()) bytes) and
  /// returns the number of bytes written. NaN and infinite inputs encode, and
  /// decode as the codec's header says; they never damage their neighbours'
  /// blocks. INVALID_ARGUMENT if `out` is too small.
  virtual absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                         const RandomKey& key,
                                         absl::Span<uint8_t> out) const = 0;

  /// Encode for one tensor after another of the same kind, where
  /// traits().has_memory: starts from what former calls left in `memory`
  /// (a running range, a factor; empty at first) and leaves there what the next
  /// call needs. Only the encoder remembers: payloads decode by themselves.
  /// Plain numbers, so that holders can keep and restore them; what other
  /// codecs left there is taken for empty.
  virtual absl::StatusOr<int64_t> EncodeNext(absl::Span<const float> in,
                                             const RandomKey& key,
                                             std::vector<float>* /*memory*/,
                                             absl::Span<uint8_t> out) const {
    return Encode(in, key, out);
  }

  /// Decodes a payload of exactly `out.size()` values. INVALID_ARGUMENT, naming
  /// expected and actual sizes, if the payload is truncated or impossible;
  /// never reads or writes out of bounds, whatever the bytes.
  virtual absl::Status Decode(absl::Span<const uint8_t> payload,
                              absl::Span<float> out) const = 0;

  struct Traits {
    bool has_fixed_size = true;
    /// The mean of many encodings under different keys is the input.
    bool is_unbiased = false;
    /// The key changes the bytes. So it does where is_unbiased, but for
    /// lossless codecs; the mean of a codec that draws and clips is not the
    /// input, and its header says by how much.
    bool is_stochastic = false;
    /// Decode(Encode(x)) == x for every finite x.
    bool is_lossless = false;
    /// The key changes the bytes, too, but the errors of elements are not
    /// independent of each other.
    bool is_random = false;
    /// EncodeNext differs from Encode.
    bool has_memory = false;
    /// Bits per element for large inputs, scales included; of a size that
    /// varies, those of standard normal values.
    double bits_per_element = 32;
  };
  virtual Traits traits() const = 0;

  /// A bound on |x - Decode(Encode(x))| for each element of a finite input
  /// whose largest magnitude (in the element's block, where there are blocks)
  /// is `block_max`. The conformance kit holds every codec to it.
  virtual double ErrorBound(double block_max) const = 0;

  /// The same for an input of `num_elements` and `tensor_max` in all, where one
  /// element's error can grow with how many others there are: such codecs have
  /// an infinite ErrorBound.
  virtual double TensorErrorBound(double tensor_max,
                                  int64_t /*num_elements*/) const {
    return ErrorBound(tensor_max);
  }
};

/// Makes the codec that `text` names, such as "int(4,block=64)".
/// INVALID_ARGUMENT names the position, what was expected and the nearest known
/// name.
absl::StatusOr<std::unique_ptr<Codec>> MakeCodec(absl::string_view text);

/// MakeCodec for a part of a text: what a codec that takes another one calls.
/// INVALID_ARGUMENT also for wrappers (delta, ef).
absl::StatusOr<std::unique_ptr<Codec>> MakeCodecFromSpec(const CodecSpec& spec);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODEC_H_
