// The bytes of frames. docs/wire-format.md cites this table.
//
// offset size field
//      0    4 magic 'D' 'P' 'F' 'R'
//      4    2 version (kFrameVersion)
//      6    1 kind (FrameKind)
//      7    1 direction
//      8    2 flags (FrameHeader::flags)
//     10    2 wire flags: 1 the payload has no checksum, 2 answer at once
//     12    4 codec_hash
//     16    8 generation
//     24    8 sequence: data frames count from 1; control frames: the highest
//             sequence sent before this frame on its channel
//     32    8 acknowledged: control frames: every data frame below this number
//             has arrived; 0 in data frames, so that their bytes depend on what
//             they carry and not on timing
//     40    4 plan_revision
//     44    4 tuning_revision
//     48    4 step
//     52    4 microbatch
//     56    4 boundary
//     60    4 num_rows
//     64    4 row_elements
//     68    4 zero
//     72    8 payload bytes
//     80    8 XXH3-64 of the payload (0 with wire flag 1)
//     88    8 XXH3-64 of bytes 0..87
//     96      payload
//
// Integers are little-endian. Magic, version and the last field keep their
// place in every version. Payload of control frames: u64 number of data frames
// that the user of the channel has taken; then, in a resend request, pairs of
// u64 first and u64 end (exclusive) of missing sequences.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FRAME_WIRE_H_
#define DELTAPIPE_WORKER_TRANSPORT_FRAME_WIRE_H_

#include <cstdint>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "worker/transport/channel.h"
#include "worker/transport/frame.h"

namespace deltapipe {

inline constexpr uint16_t kFrameVersion = 1;
inline constexpr int64_t kFrameHeaderBytes = 96;
inline constexpr uint16_t kWireNoPayloadChecksum = 1;
inline constexpr uint16_t kWireAnswerAtOnce = 2;

/// Everything of the fixed header.
struct WireHeader {
  FrameHeader frame;
  uint16_t wire_flags = 0;
  uint64_t sequence = 0;
  uint64_t acknowledged = 0;
  uint64_t payload_bytes = 0;
  uint64_t payload_checksum = 0;
};

/// Whether the channel itself uses frames of this kind.
bool IsControl(FrameKind kind);

/// Writes the kFrameHeaderBytes at `out`, header checksum included.
void EncodeFrameHeader(const WireHeader& header, uint8_t* out);

enum class HeaderVerdict {
  kOk,
  kDamaged,  // too short, no magic, or the checksum differs
  kOtherVersion,
  kBadSize,  // the message's size is not what the header says
};

/// Parses the start of a message. Nothing of the payload is read. With kOk and
/// kBadSize `header` is filled; a kind that is not known is kDamaged.
HeaderVerdict ParseFrameHeader(ByteSpan message, WireHeader* header);

/// Whether the payload's checksum fits (or there is none by its sender's
/// choice).
bool PayloadIsIntact(const WireHeader& header, ByteSpan payload);

/// Half-open ranges of sequences.
using SequenceRanges = std::vector<std::pair<uint64_t, uint64_t>>;
inline constexpr size_t kMaxRequestedRanges = 64;
inline constexpr int64_t kMaxControlPayloadBytes = 8 + 16 * kMaxRequestedRanges;

struct ControlFrame {
  uint64_t generation = 0;
  uint64_t highest_sent = 0;
  uint64_t acknowledged = 0;
  uint64_t consumed = 0;
  bool answer_at_once = false;
  SequenceRanges missing;  // at most kMaxRequestedRanges
};

/// A whole message; a resend request if `missing` is not empty.
Buffer EncodeControlFrame(const ControlFrame& control);
/// INVALID_ARGUMENT if the payload has an impossible size or ranges.
absl::Status ParseControlFrame(const WireHeader& header, ByteSpan payload,
                               ControlFrame* control);

/// Tells the messages whose bytes a run determines from those that depend on
/// timing: true for each data frame the first time it is sent, false for
/// acknowledgements, requests and repetitions. For byte-identity tests, one
/// object per direction.
class FirstTransmissionFilter {
 public:
  bool Accepts(ByteSpan message);

 private:
  uint64_t next_sequence_ = 1;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FRAME_WIRE_H_
