#include "worker/transport/frame_wire.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "worker/transport/little_endian.h"

namespace deltapipe {
namespace {

constexpr uint8_t kMagic[4] = {'D', 'P', 'F', 'R'};
constexpr size_t kChecksumOffset = 88;
constexpr size_t kConsumedBytes = 8;
constexpr size_t kRangeBytes = 16;

bool IsKnown(uint8_t kind) {
  return (kind >= static_cast<uint8_t>(FrameKind::kActivation) &&
          kind <= static_cast<uint8_t>(FrameKind::kWeights)) ||
         IsControl(static_cast<FrameKind>(kind));
}

void LoadFrame(const uint8_t* in, FrameHeader* frame) {
  frame->kind = static_cast<FrameKind>(in[6]);
  frame->direction = in[7];
  frame->flags = LoadLittleEndian16(in + 8);
  frame->codec_hash = LoadLittleEndian32(in + 12);
  frame->generation = LoadLittleEndian64(in + 16);
  frame->plan_revision = LoadLittleEndian32(in + 40);
  frame->tuning_revision = LoadLittleEndian32(in + 44);
  frame->step = LoadLittleEndian32(in + 48);
  frame->microbatch = LoadLittleEndian32(in + 52);
  frame->boundary = LoadLittleEndian32(in + 56);
  frame->num_rows = LoadLittleEndian32(in + 60);
  frame->row_elements = LoadLittleEndian32(in + 64);
}

}  // namespace

bool IsControl(FrameKind kind) {
  return kind == FrameKind::kAcknowledge || kind == FrameKind::kResendRequest;
}

void EncodeFrameHeader(const WireHeader& header, uint8_t* out) {
  const FrameHeader& frame = header.frame;
  std::memcpy(out, kMagic, sizeof(kMagic));
  StoreLittleEndian16(out + 4, kFrameVersion);
  out[6] = static_cast<uint8_t>(frame.kind);
  out[7] = frame.direction;
  StoreLittleEndian16(out + 8, frame.flags);
  StoreLittleEndian16(out + 10, header.wire_flags);
  StoreLittleEndian32(out + 12, frame.codec_hash);
  StoreLittleEndian64(out + 16, frame.generation);
  StoreLittleEndian64(out + 24, header.sequence);
  StoreLittleEndian64(out + 32, header.acknowledged);
  StoreLittleEndian32(out + 40, frame.plan_revision);
  StoreLittleEndian32(out + 44, frame.tuning_revision);
  StoreLittleEndian32(out + 48, frame.step);
  StoreLittleEndian32(out + 52, frame.microbatch);
  StoreLittleEndian32(out + 56, frame.boundary);
  StoreLittleEndian32(out + 60, frame.num_rows);
  StoreLittleEndian32(out + 64, frame.row_elements);
  StoreLittleEndian32(out + 68, 0);
  StoreLittleEndian64(out + 72, header.payload_bytes);
  StoreLittleEndian64(out + 80, header.payload_checksum);
  StoreLittleEndian64(out + kChecksumOffset, Checksum({out, kChecksumOffset}));
}

HeaderVerdict ParseFrameHeader(ByteSpan message, WireHeader* header) {
  if (message.size() < kFrameHeaderBytes) return HeaderVerdict::kDamaged;
  const uint8_t* in = message.data();
  if (std::memcmp(in, kMagic, sizeof(kMagic)) != 0 ||
      LoadLittleEndian64(in + kChecksumOffset) !=
          Checksum({in, kChecksumOffset})) {
    return HeaderVerdict::kDamaged;
  }
  if (LoadLittleEndian16(in + 4) != kFrameVersion) {
    return HeaderVerdict::kOtherVersion;
  }
  if (!IsKnown(in[6])) return HeaderVerdict::kDamaged;
  LoadFrame(in, &header->frame);
  header->wire_flags = LoadLittleEndian16(in + 10);
  header->sequence = LoadLittleEndian64(in + 24);
  header->acknowledged = LoadLittleEndian64(in + 32);
  header->payload_bytes = LoadLittleEndian64(in + 72);
  header->payload_checksum = LoadLittleEndian64(in + 80);
  return header->payload_bytes == message.size() - kFrameHeaderBytes
             ? HeaderVerdict::kOk
             : HeaderVerdict::kBadSize;
}

bool PayloadIsIntact(const WireHeader& header, ByteSpan payload) {
  return (header.wire_flags & kWireNoPayloadChecksum) != 0 ||
         Checksum(payload) == header.payload_checksum;
}

Buffer EncodeControlFrame(const ControlFrame& control) {
  const size_t num_ranges =
      std::min(control.missing.size(), kMaxRequestedRanges);
  Buffer message(kFrameHeaderBytes + kConsumedBytes +
                 static_cast<int64_t>(num_ranges * kRangeBytes));
  uint8_t* payload = message.data() + kFrameHeaderBytes;
  StoreLittleEndian64(payload, control.consumed);
  for (size_t i = 0; i < num_ranges; ++i) {
    uint8_t* range = payload + kConsumedBytes + i * kRangeBytes;
    StoreLittleEndian64(range, control.missing[i].first);
    StoreLittleEndian64(range + 8, control.missing[i].second);
  }
  WireHeader header;
  header.frame.kind =
      num_ranges > 0 ? FrameKind::kResendRequest : FrameKind::kAcknowledge;
  header.frame.generation = control.generation;
  header.wire_flags = control.answer_at_once ? kWireAnswerAtOnce : 0;
  header.sequence = control.highest_sent;
  header.acknowledged = control.acknowledged;
  header.payload_bytes =
      static_cast<uint64_t>(message.size() - kFrameHeaderBytes);
  header.payload_checksum = Checksum(message.span().subspan(kFrameHeaderBytes));
  EncodeFrameHeader(header, message.data());
  return message;
}

absl::Status ParseControlFrame(const WireHeader& header, ByteSpan payload,
                               ControlFrame* control) {
  if (payload.size() < kConsumedBytes ||
      (payload.size() - kConsumedBytes) % kRangeBytes != 0 ||
      (payload.size() - kConsumedBytes) / kRangeBytes > kMaxRequestedRanges) {
    return absl::InvalidArgumentError(absl::StrCat(
        "control frame with a payload of ", payload.size(), " bytes"));
  }
  control->generation = header.frame.generation;
  control->highest_sent = header.sequence;
  control->acknowledged = header.acknowledged;
  control->answer_at_once = (header.wire_flags & kWireAnswerAtOnce) != 0;
  control->consumed = LoadLittleEndian64(payload.data());
  control->missing.clear();
  uint64_t previous_end = 0;
  for (size_t at = kConsumedBytes; at < payload.size(); at += kRangeBytes) {
    const uint64_t first = LoadLittleEndian64(payload.data() + at);
    const uint64_t end = LoadLittleEndian64(payload.data() + at + 8);
    if (first < previous_end || end <= first) {
      return absl::InvalidArgumentError(absl::StrCat(
          "resend request for an impossible range ", first, " to ", end));
    }
    previous_end = end;
    control->missing.emplace_back(first, end);
  }
  return absl::OkStatus();
}

bool FirstTransmissionFilter::Accepts(ByteSpan message) {
  WireHeader header;
  if (ParseFrameHeader(message, &header) != HeaderVerdict::kOk) return false;
  if (IsControl(header.frame.kind) || header.sequence != next_sequence_) {
    return false;
  }
  ++next_sequence_;
  return true;
}

}  // namespace deltapipe
