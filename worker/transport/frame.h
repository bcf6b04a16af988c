// Frame: a message with a fixed header that says which step of which job it
// belongs to, and a checksum over all of it. docs/wire-format.md gives the
// layout. The transport copies the numbers; it does not interpret them.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FRAME_H_
#define DELTAPIPE_WORKER_TRANSPORT_FRAME_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/buffer.h"

namespace deltapipe {

/// What a frame carries. Numbers are part of the wire format; never reuse one.
enum class FrameKind : uint8_t {
  kActivation = 1,
  kActivationGradient = 2,
  kGradient = 3,  // a phase of a collective over gradients or momenta
  kScalar = 4,    // small collectives: norms, verdicts, hashes
  kKeyframeRequest = 5,
  kKeyframe = 6,
  kWeights = 7,  // model shards on their way to the writer
  // Used by FrameChannel itself.
  kAcknowledge = 32,
  kResendRequest = 33,
};

/// In the order of the wire; integers are little-endian there.
struct FrameHeader {
  FrameKind kind = FrameKind::kActivation;
  uint8_t direction = 0;    // 0 activations, 1 activation gradients
  uint16_t flags = 0;       // kEvaluation, ...
  uint64_t generation = 0;  // of the job's membership; others are refused
  uint32_t plan_revision = 0;
  uint32_t tuning_revision = 0;
  uint32_t step = 0;
  uint32_t microbatch = 0;
  uint32_t boundary = 0;      // or bucket, or phase of a collective
  uint32_t codec_hash = 0;    // low half of the checksum of the codec's text
  uint32_t num_rows = 0;      // samples
  uint32_t row_elements = 0;  // elements per sample
  /// "activation, step 119, mb 5, boundary 1": here steps count from 1.
  std::string ToString() const;
};

/// Set in FrameHeader::flags when the frame belongs to an evaluation pass.
inline constexpr uint16_t kFrameEvaluation = 1;
/// Set when the frame stands for an activation that does not come, nor any
/// later one of its step.
inline constexpr uint16_t kFrameEnd = 2;

struct Frame {
  FrameHeader header;
  /// The whole message; the payload is a part of it.
  Buffer message;
  int64_t payload_offset = 0;
  absl::Span<const uint8_t> payload() const {
    return message.span().subspan(static_cast<size_t>(payload_offset));
  }
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FRAME_H_
