// HeldRows: what a receiver was given, as long as the records of its channel
// hold the same bits: who needs the tensor again later keeps these and not a
// copy of it.
//
// Records are immutable and counted: a later visit of a sample, an eviction or
// another codec of the channel leaves rows that are held as they are.
// Thread-safe.
#ifndef DELTAPIPE_COMPRESSION_DELTA_HELD_ROWS_H_
#define DELTAPIPE_COMPRESSION_DELTA_HELD_ROWS_H_

#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "compression/codec.h"
#include "compression/delta/record.h"

namespace deltapipe {

class HeldRows {
 public:
  /// One record a row of `num_elements` values, in fp32, in bf16, or by `codec`
  /// unless it is null.
  HeldRows(std::vector<RecordPtr> records, int64_t num_elements,
           bool is_float32, std::shared_ptr<const Codec> codec)
      : records_(std::move(records)),
        num_elements_(num_elements),
        is_float32_(is_float32),
        codec_(std::move(codec)) {}

  /// Fills in the rows, one after the other. INVALID_ARGUMENT unless `values`
  /// has room for exactly these.
  absl::Status Read(absl::Span<float> values) const;

 private:
  const std::vector<RecordPtr> records_;
  const int64_t num_elements_;
  const bool is_float32_;
  const std::shared_ptr<const Codec> codec_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_HELD_ROWS_H_
