// The arithmetic of records, for whichever form a channel stores them in: the
// kernels of delta_kernels.h for bf16 and fp32, a codec between two passes for
// any other.
//
// Both ends must store the same bits, so that such a codec is deterministic
// (its key is always the same) and of a fixed size. Its errors are those of
// damaged records. One object per end, used by one thread at a time.
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/buffer.h"
#include "compression/codec.h"
#include "compression/delta/delta_kernels.h"
#include "compression/delta/record.h"

namespace deltapipe {

/// What records are kept in.
struct RecordForm {
  bool is_float32 = false;
  /// Borrowed; null: bf16, or fp32.
  const Codec* codec = nullptr;
};

class RecordMath {
 public:
  RecordMath(const RecordForm& form, int64_t num_elements);

  /// difference = value - record.
  absl::StatusOr<SquaredNorms> Subtract(const float* value,
                                        const Record& record,
                                        float* difference);

  /// next = store(record + restored).
  absl::Status Add(const Record& record, const float* restored, Record* next);

  /// The same; `restored` becomes the stored values.
  absl::Status AddAndUse(const Record& record, float* restored, Record* next);

  /// next = store(value).
  absl::Status Store(const float* value, Record* next);

  /// The same; `value` becomes the stored values.
  absl::Status StoreAndUse(float* value, Record* next);

  /// value = record.
  absl::Status Load(const Record& record, float* value);

 private:
  /// num_elements values; allocated where it is first used.
  float* scratch();
  /// scratch = record + restored, infinities as the largest floats.
  absl::Status Sum(const Record& record, const float* restored);

  RecordForm form_;
  int64_t num_elements_;
  Buffer scratch_;  // of a codec only
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_
