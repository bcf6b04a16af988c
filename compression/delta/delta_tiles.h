// One row of a delta in two passes over memory, where an unfused one takes
// four with whole tensors between them: what costs is memory, not arithmetic.
//
// The first pass subtracts the record for the norms that decide whether a delta
// pays and for what `int` must know of all blocks before it encodes one. The
// second one subtracts again and takes each tile, while it is in the
// first-level cache, through quantising, restoring and the next record. Between
// the passes nothing is kept but what lies in the payload.
//
// Called by the boundary encoder for `int` codecs that IntTileFormat knows and
// records in bf16 or fp32. Payload, norms and records are bit for bit those of
// SubtractRecord, IntQuantize, IntDequantize and AddToRecord. One object per
// end, used by one thread at a time; allocates nothing after its construction.
//
//   const SquaredNorms norms = tiles.Measure(value, *base, key, payload);
//   if (pays) tiles.Encode(value, *base, next.get(), nullptr);
//
// AQ-SGD, arXiv 2206.01299, section 3: m <- store(m + deq(Q(a - m))).
#ifndef DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_
#define DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "base/philox.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/record.h"
#include "compression/kernels/int_quantize.h"

namespace deltapipe {

class DeltaTiles {
 public:
  /// For rows of `num_elements` and records in fp32, or else in bf16.
  DeltaTiles(const IntFormat& format, bool is_float32, int64_t num_elements);

  /// The norms of value - base and of value. Overwrites the
  /// IntPayloadBytes(format, num_elements) bytes of `payload`, which Encode
  /// completes; without Encode they are free again.
  SquaredNorms Measure(const float* value, const Record& base,
                       const RandomKey& key, uint8_t* payload);

  /// After Measure of the same value and base: the payload, and next =
  /// store(base + what the payload decodes to). `sent` (may be null) becomes
  /// the norms of value - next and of value.
  void Encode(const float* value, const Record& base, Record* next,
              SquaredNorms* sent);

 private:
  template <typename Store>
  SquaredNorms MeasureAs(const float* value, const Store* base);
  template <typename Store>
  void EncodeAs(const float* value, const Store* base, Store* next,
                SquaredNorms* sent);

  const IntFormat format_;
  const bool is_float32_;
  const int64_t num_elements_;
  std::vector<float> tile_;
  std::optional<IntTileEncoder> encoder_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_
