#include "compression/delta/boundary_body.h"

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/little_endian.h"

namespace deltapipe {
namespace {

uint64_t SeedOf(const BodyContext& context) {
  uint8_t bytes[29];
  uint8_t* at = StoreLittleEndian(context.codec_hash, bytes);
  at = StoreLittleEndian(context.boundary_id, at);
  at = StoreLittleEndian(context.direction, at);
  at =
      StoreLittleEndian(static_cast<uint64_t>(context.elements_per_sample), at);
  at = StoreLittleEndian(context.is_keyframes ? 0u : context.step, at);
  *at = context.is_keyframes ? 1 : 0;
  return Checksum(bytes);
}

absl::Status Damaged(absl::string_view why) {
  return absl::InvalidArgumentError(absl::StrCat("bad body: ", why));
}

}  // namespace

void WriteBodyTable(const BodyContext& context, uint32_t first_version,
                    absl::Span<const BodyRow> rows, absl::Span<uint8_t> body) {
  uint8_t* at = body.data() + sizeof(uint64_t);
  at = StoreLittleEndian(static_cast<uint32_t>(rows.size()), at);
  at = StoreLittleEndian(first_version, at);
  for (const BodyRow& row : rows) {
    at = StoreLittleEndian(row.key, at);
    at = StoreLittleEndian(row.base_version, at);
    at = StoreLittleEndian(static_cast<uint32_t>(row.payload_bytes), at);
    at = StoreLittleEndian(static_cast<uint8_t>(row.mode), at);
    at = StoreLittleEndian(row.flags, at);
    at = StoreLittleEndian(uint16_t{0}, at);
  }
  SealBody(context, body);
}

void SealBody(const BodyContext& context, absl::Span<uint8_t> body) {
  StoreLittleEndian(Checksum(body.subspan(sizeof(uint64_t)), SeedOf(context)),
                    body.data());
}

absl::Status ParseBody(const BodyContext& context,
                       absl::Span<const uint8_t> body, ParsedBody* parsed) {
  const int64_t size = static_cast<int64_t>(body.size());
  if (size < kBodyHeaderBytes) {
    return Damaged(absl::StrCat("expected at least ", kBodyHeaderBytes,
                                " bytes, got ", size));
  }
  if (Checksum(body.subspan(sizeof(uint64_t)), SeedOf(context)) !=
      LoadLittleEndian<uint64_t>(body.data())) {
    return Damaged(absl::StrCat(
        "its ", size,
        " bytes do not match their checksum: they are damaged or ",
        context.is_keyframes
            ? absl::StrCat("belong to another channel or codec than boundary ",
                           context.boundary_id)
            : absl::StrCat(
                  "belong to another step, channel or codec than step ",
                  context.step, " of boundary ", context.boundary_id)));
  }
  const int64_t num_rows = LoadLittleEndian<uint32_t>(body.data() + 8);
  parsed->rows.clear();
  parsed->payloads.clear();
  parsed->num_evictions = 0;
  parsed->first_version = LoadLittleEndian<uint32_t>(body.data() + 12);
  if (num_rows > (size - kBodyHeaderBytes) / kBodyRowBytes) {
    return Damaged(absl::StrCat(num_rows, " rows in ", size, " bytes"));
  }
  if (parsed->first_version > UINT32_MAX - num_rows) {
    return Damaged("its versions overflow");
  }
  parsed->rows.reserve(static_cast<size_t>(num_rows));
  parsed->payloads.reserve(static_cast<size_t>(num_rows));
  int64_t position = BodyTableBytes(num_rows);
  for (int64_t i = 0; i < num_rows; ++i) {
    const uint8_t* at = body.data() + BodyTableBytes(i);
    BodyRow row;
    row.key = LoadLittleEndian<uint64_t>(at);
    row.base_version = LoadLittleEndian<uint32_t>(at + 8);
    row.payload_bytes = LoadLittleEndian<uint32_t>(at + 12);
    row.mode = static_cast<RowMode>(at[16]);
    row.flags = at[17];
    if (at[16] > static_cast<uint8_t>(RowMode::kEvict) ||
        row.flags > kRowReadsOnly || LoadLittleEndian<uint16_t>(at + 18) != 0) {
      return Damaged(absl::StrCat("row ", i, ": unknown mode ", at[16],
                                  " or flags ", row.flags));
    }
    if (row.payload_bytes > size - position) {
      return Damaged(absl::StrCat("row ", i, ": a payload of ",
                                  row.payload_bytes, " bytes where ",
                                  size - position, " are left"));
    }
    if (row.mode == RowMode::kEvict) {
      ++parsed->num_evictions;
      if (row.payload_bytes != 0) {
        return Damaged(absl::StrCat("row ", i, " evicts and has a payload"));
      }
    } else if (parsed->num_evictions > 0) {
      return Damaged(absl::StrCat("row ", i, ": a sample after evictions"));
    }
    parsed->payloads.push_back(body.subspan(
        static_cast<size_t>(position), static_cast<size_t>(row.payload_bytes)));
    position += row.payload_bytes;
    parsed->rows.push_back(row);
  }
  if (position != size) {
    return Damaged(absl::StrCat(size - position, " bytes belong to no row"));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
