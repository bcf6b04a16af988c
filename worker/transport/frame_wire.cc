#include "worker/transport/frame_wire.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/little_endian.h"

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
  frame->flags = LoadLittleEndian<uint16_t>(in + 8);
  frame->codec_hash = LoadLittleEndian<uint32_t>(in + 12);
  frame->generation = LoadLittleEndian<uint64_t>(in + 16);
  frame->plan_revision = LoadLittleEndian<uint32_t>(in + 40);
  frame->tuning_revision = LoadLittleEndian<uint32_t>(in + 44);
  frame->step = LoadLittleEndian<uint32_t>(in + 48);
  frame->microbatch = LoadLittleEndian<uint32_t>(in + 52);
  frame->boundary = LoadLittleEndian<uint32_t>(in + 56);
  frame->num_rows = LoadLittleEndian<uint32_t>(in + 60);
  frame->row_elements = LoadLittleEndian<uint32_t>(in + 64);
}

}  // namespace

bool IsControl(FrameKind kind) {
  return kind == FrameKind::kAcknowledge || kind == FrameKind::kResendRequest;
}

void EncodeFrameHeader(const WireHeader& header, uint8_t* out) {
  const FrameHeader& frame = header.frame;
  std::memcpy(out, kMagic, sizeof(kMagic));
  StoreLittleEndian<uint16_t>(kFrameVersion, out + 4);
  out[6] = static_cast<uint8_t>(frame.kind);
  out[7] = frame.direction;
  StoreLittleEndian<uint16_t>(frame.flags, out + 8);
  StoreLittleEndian<uint16_t>(header.wire_flags, out + 10);
  StoreLittleEndian<uint32_t>(frame.codec_hash, out + 12);
  StoreLittleEndian<uint64_t>(frame.generation, out + 16);
  StoreLittleEndian<uint64_t>(header.sequence, out + 24);
  StoreLittleEndian<uint64_t>(header.acknowledged, out + 32);
  StoreLittleEndian<uint32_t>(frame.plan_revision, out + 40);
  StoreLittleEndian<uint32_t>(frame.tuning_revision, out + 44);
  StoreLittleEndian<uint32_t>(frame.step, out + 48);
  StoreLittleEndian<uint32_t>(frame.microbatch, out + 52);
  StoreLittleEndian<uint32_t>(frame.boundary, out + 56);
  StoreLittleEndian<uint32_t>(frame.num_rows, out + 60);
  StoreLittleEndian<uint32_t>(frame.row_elements, out + 64);
  StoreLittleEndian<uint32_t>(0, out + 68);
  StoreLittleEndian<uint64_t>(header.payload_bytes, out + 72);
  StoreLittleEndian<uint64_t>(header.payload_checksum, out + 80);
  StoreLittleEndian<uint64_t>(Checksum({out, kChecksumOffset}),
                              out + kChecksumOffset);
}

HeaderVerdict ParseFrameHeader(ByteSpan message, WireHeader* header) {
  if (message.size() < kFrameHeaderBytes) return HeaderVerdict::kDamaged;
  const uint8_t* in = message.data();
  if (std::memcmp(in, kMagic, sizeof(kMagic)) != 0 ||
      LoadLittleEndian<uint64_t>(in + kChecksumOffset) !=
          Checksum({in, kChecksumOffset})) {
    return HeaderVerdict::kDamaged;
  }
  if (LoadLittleEndian<uint16_t>(in + 4) != kFrameVersion) {
    return HeaderVerdict::kOtherVersion;
  }
  if (!IsKnown(in[6])) return HeaderVerdict::kDamaged;
  LoadFrame(in, &header->frame);
  header->wire_flags = LoadLittleEndian<uint16_t>(in + 10);
  header->sequence = LoadLittleEndian<uint64_t>(in + 24);
  header->acknowledged = LoadLittleEndian<uint64_t>(in + 32);
  header->payload_bytes = LoadLittleEndian<uint64_t>(in + 72);
  header->payload_checksum = LoadLittleEndian<uint64_t>(in + 80);
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
  StoreLittleEndian<uint64_t>(control.consumed, payload);
  for (size_t i = 0; i < num_ranges; ++i) {
    uint8_t* range = payload + kConsumedBytes + i * kRangeBytes;
    StoreLittleEndian<uint64_t>(control.missing[i].first, range);
    StoreLittleEndian<uint64_t>(control.missing[i].second, range + 8);
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
  control->consumed = LoadLittleEndian<uint64_t>(payload.data());
  control->missing.clear();
  uint64_t previous_end = 0;
  for (size_t at = kConsumedBytes; at < payload.size(); at += kRangeBytes) {
    const uint64_t first = LoadLittleEndian<uint64_t>(payload.data() + at);
    const uint64_t end = LoadLittleEndian<uint64_t>(payload.data() + at + 8);
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
