// The bytes of a body: what BoundaryEncoder writes and BoundaryDecoder reads.
// docs/wire-format.md repeats this layout; integers are little-endian.
//
//   u64 checksum       of everything after it, seeded with the BodyContext
//   u32 num_rows
//   u32 first_version  row i writes version first_version + i; 0: no state
//   rows, 20 bytes each:
//     u64 key
//     u32 base_version   kDelta: the record that the payload adds to;
//                        kKeyframe, kEvict: the record's own; else 0
//     u32 payload_bytes  0 for kEvict
//     u8 mode            RowMode; rows of kEvict come last
//     u8 flags           1: evaluation, the state is not touched
//     u16 zero
//   payloads, back to back, in the order of their rows
//
// The parser trusts nothing: it returns views into bytes that it has checked.
#ifndef DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_BODY_H_
#define DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_BODY_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "base/buffer.h"
#include "compression/delta/boundary_codec.h"

namespace deltapipe {

inline constexpr int64_t kBodyHeaderBytes = 16;
inline constexpr int64_t kBodyRowBytes = 20;
inline constexpr uint8_t kRowReadsOnly = 1;

/// What a body belongs to. A body of another context fails its checksum.
struct BodyContext {
  uint64_t codec_hash = 0;  // of the canonical text
  uint32_t boundary_id = 0;
  uint32_t direction = 0;
  int64_t elements_per_sample = 0;
  uint32_t step = 0;
  bool is_keyframes = false;  // their step is 0: they answer for any
};

struct BodyRow {
  uint64_t key = 0;
  uint32_t base_version = 0;
  RowMode mode = RowMode::kValue;
  uint8_t flags = 0;
  int64_t payload_bytes = 0;
};

/// Where the payloads begin.
inline int64_t BodyTableBytes(int64_t num_rows) {
  return kBodyHeaderBytes + num_rows * kBodyRowBytes;
}

/// Completes a body whose payloads already lie behind the table: writes the
/// table, then the checksum over body[8..].
void WriteBodyTable(const BodyContext& context, uint32_t first_version,
                    absl::Span<const BodyRow> rows, absl::Span<uint8_t> body);

/// Writes the checksum over body[8..]: what WriteBodyTable ends with. Bodies
/// have at least 8 bytes.
void SealBody(const BodyContext& context, absl::Span<uint8_t> body);

struct ParsedBody {
  uint32_t first_version = 0;
  std::vector<BodyRow> rows;
  /// One per row; views into the parsed bytes.
  std::vector<absl::Span<const uint8_t>> payloads;
  size_t num_evictions = 0;
};

/// Replaces what `parsed` holds, in the memory that it has. INVALID_ARGUMENT
/// says what is wrong: size, checksum, row, sum of payloads; `parsed` then
/// means nothing.
absl::Status ParseBody(const BodyContext& context,
                       absl::Span<const uint8_t> body, ParsedBody* parsed);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_BOUNDARY_BODY_H_
