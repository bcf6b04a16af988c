// One row of a delta in one pass over memory, where an unfused one takes four
// with whole tensors between them: what costs is memory, not arithmetic.
//
// Each tile is subtracted from its record and, while it is in the first-level
// cache, taken through the norms that decide whether a delta pays, quantising,
// restoring and the next record. What is known at the end only, whether it pays
// and what `int` must know of all blocks, is guessed from the tiles so far;
// where that was wrong, a second pass is taken.
//
// Called by the boundary encoder for `int` codecs that IntTileFormat knows and
// records in bf16 or fp32. Payload, norms and records are bit for bit those of
// SubtractRecord, IntQuantize, IntDequantize and AddToRecord. One object per
// end, used by one thread at a time; allocates nothing after its construction.
//
//   bool is_finite;
//   if (!tiles.Encode(value, *base, key,
//                     {payload, next.get(), nullptr, &is_finite})) {
//     // A delta does not pay.
//   }
//
// AQ-SGD, arXiv 2206.01299, section 3: m <- store(m + deq(Q(a - m))).
#ifndef DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_
#define DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "base/philox.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/record.h"
#include "compression/kernels/int_quantize.h"

namespace deltapipe {

class DeltaTiles {
 public:
  /// Whether a delta of these norms, of value - base and of value, pays; if so,
  /// also one of a smaller difference or a larger value.
  using Pays = std::function<bool(const SquaredNorms&)>;

  /// Where a row goes.
  struct Row {
    /// IntPayloadBytes(format, num_elements) bytes.
    uint8_t* payload;
    Record* next;
    /// May be null; the norms of value - next and of value, of long rows for
    /// the first 2^20 values or a few more.
    SquaredNorms* sent;
    /// May be null; becomes true if all values are known to be finite, else
    /// false.
    bool* is_finite = nullptr;
  };

  /// For rows of `num_elements` and records in fp32, or else in bf16. What
  /// `pays` says of a row's SubtractRecord holds; it is asked about others too.
  DeltaTiles(const IntFormat& format, bool is_float32, int64_t num_elements,
             Pays pays);

  /// The payload of value - base, and next = store(base + what it decodes to).
  /// False: a delta does not pay; what is in `row` means nothing.
  bool Encode(const float* value, const Record& base, const RandomKey& key,
              const Row& row);

 private:
  template <typename Store>
  bool PaysAsAWhole(const SquaredNorms& estimate, const float* value,
                    const Store* base);
  template <typename Store>
  bool EncodeAs(const float* value, const Store* base, const RandomKey& key,
                const Row& row);

  const IntFormat format_;
  const bool is_float32_;
  const int64_t num_elements_;
  const Pays pays_;
  std::vector<float> tile_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_DELTA_TILES_H_
