#include "worker/transport/frame_wire.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "base/checksum.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

WireHeader ExampleHeader(ByteSpan payload) {
  WireHeader header;
  header.frame.kind = FrameKind::kActivationGradient;
  header.frame.direction = 1;
  header.frame.flags = kFrameEvaluation;
  header.frame.generation = 0x0102030405060708u;
  header.frame.plan_revision = 0x11121314u;
  header.frame.tuning_revision = 0x21222324u;
  header.frame.step = 0x31323334u;
  header.frame.microbatch = 0x41424344u;
  header.frame.boundary = 0x51525354u;
  header.frame.codec_hash = 0x61626364u;
  header.frame.num_rows = 0x71727374u;
  header.frame.row_elements = 0x01828384u;
  header.sequence = 0x9192939495969798u;
  header.payload_bytes = payload.size();
  header.payload_checksum = Checksum(payload);
  return header;
}

Buffer ExampleMessage(const std::string& payload_text) {
  Buffer message(kFrameHeaderBytes + static_cast<int64_t>(payload_text.size()));
  std::memcpy(message.data() + kFrameHeaderBytes, payload_text.data(),
              payload_text.size());
  EncodeFrameHeader(ExampleHeader(message.span().subspan(kFrameHeaderBytes)),
                    message.data());
  return message;
}

TEST(FrameWireTest, HeaderBytesOfVersion1) {
  const Buffer message = ExampleMessage("payload");

  EXPECT_EQ(
      absl::BytesToHexString(absl::string_view(
          reinterpret_cast<const char*>(message.data()), kFrameHeaderBytes)),
      "44504652"  // magic
      "0100"
      "02"
      "01"  // version, kind, direction
      "0100"
      "0000"              // flags, wire flags
      "64636261"          // codec hash
      "0807060504030201"  // generation
      "9897969594939291"  // sequence
      "0000000000000000"  // acknowledged
      "14131211"          // plan revision
      "24232221"          // tuning revision
      "34333231"          // step
      "44434241"          // micro-batch
      "54535251"          // boundary
      "74737271"          // rows
      "84838201"          // elements of a row
      "00000000"          // zero
      "0700000000000000"  // payload bytes
      "7b8d2d5bf061fe32"
      "2dbd42d0cf2eec40");
}

TEST(FrameWireTest, ParsesWhatItEncodes) {
  const Buffer message = ExampleMessage("payload");

  WireHeader header;
  ASSERT_EQ(ParseFrameHeader(message.span(), &header), HeaderVerdict::kOk);

  const WireHeader expected =
      ExampleHeader(message.span().subspan(kFrameHeaderBytes));
  std::vector<uint8_t> again(kFrameHeaderBytes);
  EncodeFrameHeader(header, again.data());
  EXPECT_EQ(absl::MakeConstSpan(again),
            message.span().subspan(0, kFrameHeaderBytes));
  EXPECT_EQ(header.frame.generation, expected.frame.generation);
  EXPECT_EQ(header.frame.row_elements, expected.frame.row_elements);
  EXPECT_TRUE(
      PayloadIsIntact(header, message.span().subspan(kFrameHeaderBytes)));
}

TEST(FrameWireTest, EveryFlippedBitIsNoticed) {
  const Buffer original = ExampleMessage("payload");

  for (int64_t bit = 0; bit < original.size() * 8; ++bit) {
    Buffer message = Buffer::CopyOf(original.span());
    message.data()[bit / 8] ^= static_cast<uint8_t>(1u << (bit % 8));
    WireHeader header;
    const HeaderVerdict verdict = ParseFrameHeader(message.span(), &header);
    const bool is_accepted =
        verdict == HeaderVerdict::kOk &&
        PayloadIsIntact(header, message.span().subspan(kFrameHeaderBytes));
    EXPECT_FALSE(is_accepted) << "bit " << bit;
  }
}

TEST(FrameWireTest, EveryOtherLengthIsNoticed) {
  const Buffer original = ExampleMessage("payload");

  WireHeader header;
  for (int64_t size = 0; size < original.size(); ++size) {
    Buffer message = Buffer::CopyOf(original.span());
    message.Truncate(size);
    EXPECT_EQ(ParseFrameHeader(message.span(), &header),
              size < kFrameHeaderBytes ? HeaderVerdict::kDamaged
                                       : HeaderVerdict::kBadSize)
        << size;
  }
  Buffer longer(original.size() + 1);
  std::memcpy(longer.data(), original.data(),
              static_cast<size_t>(original.size()));
  EXPECT_EQ(ParseFrameHeader(longer.span(), &header), HeaderVerdict::kBadSize);
}

TEST(FrameWireTest, TellsAnotherVersionFromDamage) {
  Buffer message = ExampleMessage("payload");
  message.data()[4] = 2;
  const uint64_t checksum = Checksum(message.span().subspan(0, 88));
  for (int i = 0; i < 8; ++i) {
    message.data()[88 + i] = static_cast<uint8_t>(checksum >> (8 * i));
  }

  WireHeader header;
  EXPECT_EQ(ParseFrameHeader(message.span(), &header),
            HeaderVerdict::kOtherVersion);
}

TEST(FrameWireTest, RandomBytesAreNeverAFrame) {
  const uint64_t seed = 20240501;
  SCOPED_TRACE(seed);
  std::mt19937_64 random(seed);

  for (int i = 0; i < 20000; ++i) {
    std::vector<uint8_t> bytes(random() % 300);
    for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(random());
    if (i % 2 == 0 && bytes.size() >= 6) {
      std::memcpy(bytes.data(), "DPFR\x01\x00", 6);
    }
    WireHeader header;
    ASSERT_EQ(ParseFrameHeader(bytes, &header), HeaderVerdict::kDamaged);
  }
}

TEST(FrameWireTest, ControlFramesCarryTheirNumbersAndRanges) {
  ControlFrame sent;
  sent.generation = 7;
  sent.highest_sent = 40;
  sent.acknowledged = 12;
  sent.consumed = 9;
  sent.answer_at_once = true;
  sent.missing = {{12, 14}, {20, 21}};

  const Buffer message = EncodeControlFrame(sent);
  WireHeader header;
  ASSERT_EQ(ParseFrameHeader(message.span(), &header), HeaderVerdict::kOk);
  ControlFrame received;
  ASSERT_TRUE(ParseControlFrame(
                  header, message.span().subspan(kFrameHeaderBytes), &received)
                  .ok());

  EXPECT_EQ(header.frame.kind, FrameKind::kResendRequest);
  EXPECT_EQ(received.generation, 7u);
  EXPECT_EQ(received.highest_sent, 40u);
  EXPECT_EQ(received.acknowledged, 12u);
  EXPECT_EQ(received.consumed, 9u);
  EXPECT_TRUE(received.answer_at_once);
  EXPECT_THAT(received.missing, ElementsAre(Pair(12, 14), Pair(20, 21)));
}

TEST(FrameWireTest, RefusesImpossibleControlPayloads) {
  std::vector<std::vector<uint8_t>> payloads = {
      {},
      std::vector<uint8_t>(7),
      std::vector<uint8_t>(9),
      std::vector<uint8_t>(16),
      std::vector<uint8_t>(24),  // range 0 to 0
      std::vector<uint8_t>(8 + 16 * (kMaxRequestedRanges + 1))};
  std::vector<uint8_t> backwards(8 + 16);
  backwards[8] = 5;
  backwards[16] = 4;
  payloads.push_back(backwards);

  for (const auto& payload : payloads) {
    ControlFrame control;
    EXPECT_EQ(ParseControlFrame({}, payload, &control).code(),
              absl::StatusCode::kInvalidArgument)
        << payload.size();
  }
}

TEST(FrameWireTest, FilterKeepsFirstTransmissionsOnly) {
  auto frame = [](uint64_t sequence) {
    WireHeader header;
    header.sequence = sequence;
    header.payload_checksum = Checksum({});
    Buffer message(kFrameHeaderBytes);
    EncodeFrameHeader(header, message.data());
    return message;
  };
  FirstTransmissionFilter filter;

  EXPECT_TRUE(filter.Accepts(frame(1).span()));
  EXPECT_FALSE(filter.Accepts(EncodeControlFrame({}).span()));
  EXPECT_TRUE(filter.Accepts(frame(2).span()));
  EXPECT_FALSE(filter.Accepts(frame(1).span()));
  EXPECT_TRUE(filter.Accepts(frame(3).span()));
  EXPECT_FALSE(filter.Accepts({}));
}

}  // namespace
}  // namespace deltapipe
