#include "compression/delta/boundary_body.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "base/checksum.h"
#include "base/little_endian.h"

namespace deltapipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

BodyContext TestContext() {
  BodyContext context;
  context.codec_hash = 0x1122334455667788u;
  context.boundary_id = 2;
  context.direction = 1;
  context.elements_per_sample = 64;
  context.step = 118;
  return context;
}

/// Makes the checksum fit after a change, as a liar would.
void Seal(std::vector<uint8_t>* body) {
  const BodyContext context = TestContext();
  uint8_t seed[29];
  uint8_t* at = StoreLittleEndian(context.codec_hash, seed);
  at = StoreLittleEndian(context.boundary_id, at);
  at = StoreLittleEndian(context.direction, at);
  at =
      StoreLittleEndian(static_cast<uint64_t>(context.elements_per_sample), at);
  at = StoreLittleEndian(context.step, at);
  *at = 0;  // not keyframes
  StoreLittleEndian(
      Checksum(absl::MakeConstSpan(*body).subspan(8), Checksum(seed)),
      body->data());
}

/// A body of the given rows whose payloads are bytes 1, 2, 3, ...
std::vector<uint8_t> BodyOf(const std::vector<BodyRow>& rows,
                            int64_t extra_bytes = 0) {
  int64_t size =
      BodyTableBytes(static_cast<int64_t>(rows.size())) + extra_bytes;
  for (const BodyRow& row : rows) size += row.payload_bytes;
  std::vector<uint8_t> body(static_cast<size_t>(size));
  uint8_t next = 1;
  for (size_t i = static_cast<size_t>(
           BodyTableBytes(static_cast<int64_t>(rows.size())));
       i < body.size(); ++i) {
    body[i] = next++;
  }
  WriteBodyTable(TestContext(), 41, rows, absl::MakeSpan(body));
  return body;
}

const std::vector<BodyRow>& SomeRows() {
  static const std::vector<BodyRow>* const rows = new std::vector<BodyRow>{
      {0xFFFFFFFFFFFFFFFEu, 0, RowMode::kValue, 0, 3},
      {7, 40, RowMode::kDelta, 0, 2},
      {9, 12, RowMode::kEvict, 0, 0},
  };
  return *rows;
}

absl::StatusOr<ParsedBody> ParseAs(const BodyContext& context,
                                   absl::Span<const uint8_t> body) {
  ParsedBody parsed;
  const absl::Status status = ParseBody(context, body, &parsed);
  if (!status.ok()) return status;
  return parsed;
}

std::string ErrorOf(const std::vector<BodyRow>& rows, int64_t extra_bytes = 0) {
  const auto parsed = ParseAs(TestContext(), BodyOf(rows, extra_bytes));
  EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(parsed.status().message());
}

TEST(BoundaryBodyTest, ParsesWhatWasWritten) {
  const std::vector<uint8_t> body = BodyOf(SomeRows());

  const ParsedBody parsed = ParseAs(TestContext(), body).value();

  EXPECT_EQ(parsed.first_version, 41);
  ASSERT_EQ(parsed.rows.size(), 3);
  EXPECT_EQ(parsed.num_evictions, 1);
  EXPECT_EQ(parsed.rows[0].key, 0xFFFFFFFFFFFFFFFEu);
  EXPECT_EQ(parsed.rows[0].mode, RowMode::kValue);
  EXPECT_EQ(parsed.rows[1].base_version, 40);
  EXPECT_EQ(parsed.rows[1].mode, RowMode::kDelta);
  EXPECT_EQ(parsed.rows[2].mode, RowMode::kEvict);
  EXPECT_THAT(parsed.payloads[0], ElementsAre(1, 2, 3));
  EXPECT_THAT(parsed.payloads[1], ElementsAre(4, 5));
  EXPECT_TRUE(parsed.payloads[2].empty());
}

TEST(BoundaryBodyTest, WhatWasParsedBeforeIsForgotten) {
  ParsedBody parsed;
  ASSERT_TRUE(ParseBody(TestContext(), BodyOf(SomeRows()), &parsed).ok());
  const std::vector<uint8_t> body = BodyOf({{8, 0, RowMode::kValue, 0, 1}});

  ASSERT_TRUE(ParseBody(TestContext(), body, &parsed).ok());

  ASSERT_EQ(parsed.rows.size(), 1);
  EXPECT_EQ(parsed.rows[0].key, 8);
  EXPECT_THAT(parsed.payloads, ElementsAre(ElementsAre(1)));
  EXPECT_EQ(parsed.num_evictions, 0);
}

TEST(BoundaryBodyTest, LayoutIsFixed) {
  // The wire format, byte by byte; to change it means a new frame version.
  const std::vector<uint8_t> body =
      BodyOf({{0x0102030405060708u, 0x0A0B0C0Du, RowMode::kDelta, 0, 2}});

  const std::vector<uint8_t> after_checksum(body.begin() + 8, body.end());
  EXPECT_THAT(after_checksum,
              ElementsAre(1, 0, 0, 0, 41, 0, 0, 0,  // rows, first version
                          8, 7, 6, 5, 4, 3, 2, 1,   // key
                          0x0D, 0x0C, 0x0B, 0x0A,   // base version
                          2, 0, 0, 0, 1, 0, 0, 0,   // bytes, mode, flags
                          1, 2));                   // payload
  std::vector<uint8_t> sealed = body;
  Seal(&sealed);
  EXPECT_EQ(body, sealed);
}

TEST(BoundaryBodyTest, EveryFlippedBitIsFound) {
  std::vector<uint8_t> body = BodyOf(SomeRows());

  for (size_t bit = 0; bit < 8 * body.size(); ++bit) {
    body[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
    EXPECT_FALSE(ParseAs(TestContext(), body).ok()) << bit;
    body[bit / 8] ^= static_cast<uint8_t>(1 << bit % 8);
  }
  EXPECT_TRUE(ParseAs(TestContext(), body).ok());
}

TEST(BoundaryBodyTest, EveryTruncationIsFound) {
  const std::vector<uint8_t> body = BodyOf(SomeRows());

  for (size_t size = 0; size < body.size(); ++size) {
    EXPECT_FALSE(
        ParseAs(TestContext(), absl::MakeConstSpan(body).first(size)).ok())
        << size;
  }
}

TEST(BoundaryBodyTest, BodiesOfOtherContextsAreRefused) {
  const std::vector<uint8_t> body = BodyOf(SomeRows());
  std::vector<BodyContext> others(6, TestContext());
  others[0].codec_hash += 1;
  others[1].boundary_id += 1;
  others[2].direction = 0;
  others[3].elements_per_sample += 1;
  others[4].step += 1;
  others[5].is_keyframes = true;

  for (const BodyContext& other : others) {
    EXPECT_THAT(std::string(ParseAs(other, body).status().message()),
                HasSubstr("checksum"));
  }
}

TEST(BoundaryBodyTest, RowsThatCannotBeAreRefusedEvenWithAGoodChecksum) {
  EXPECT_THAT(ErrorOf({{1, 0, static_cast<RowMode>(4), 0, 0}}),
              HasSubstr("unknown mode"));
  EXPECT_THAT(ErrorOf({{1, 0, RowMode::kValue, 2, 0}}), HasSubstr("flags"));
  EXPECT_THAT(ErrorOf({{1, 1, RowMode::kEvict, 0, 1}}),
              HasSubstr("evicts and has a payload"));
  EXPECT_THAT(
      ErrorOf({{1, 1, RowMode::kEvict, 0, 0}, {2, 0, RowMode::kValue, 0, 1}}),
      HasSubstr("a sample after evictions"));
  EXPECT_THAT(ErrorOf({{1, 0, RowMode::kValue, 0, 2}}, 1),
              HasSubstr("1 bytes belong to no row"));
  EXPECT_THAT(ErrorOf({{1, 0, RowMode::kValue, 0, 2}}, -1),
              HasSubstr("a payload of 2 bytes where 1 are left"));
}

TEST(BoundaryBodyTest, RowCountIsCheckedBeforeMemoryIsTaken) {
  std::vector<uint8_t> body = BodyOf(SomeRows());
  std::fill(body.begin() + 8, body.begin() + 12, uint8_t{0xFF});
  Seal(&body);

  EXPECT_THAT(std::string(ParseAs(TestContext(), body).status().message()),
              HasSubstr("4294967295 rows"));
}

TEST(BoundaryBodyTest, VersionsThatOverflowAreRefused) {
  std::vector<uint8_t> body = BodyOf(SomeRows());
  std::fill(body.begin() + 12, body.begin() + 16, uint8_t{0xFF});
  Seal(&body);

  EXPECT_THAT(std::string(ParseAs(TestContext(), body).status().message()),
              HasSubstr("versions overflow"));
}

}  // namespace
}  // namespace deltapipe
