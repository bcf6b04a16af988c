// The arithmetic of records, for whichever type a channel stores them in: picks
// the kernel of delta_kernels.h. Thread-safe.
#ifndef DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_
#define DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_

#include <cstdint>

#include "compression/delta/delta_kernels.h"
#include "compression/delta/record.h"

namespace deltapipe {

class RecordMath {
 public:
  RecordMath(bool is_float32, int64_t num_elements)
      : is_float32_(is_float32), num_elements_(num_elements) {}

  /// difference = value - record.
  SquaredNorms Subtract(const float* value, const Record& record,
                        float* difference) const {
    return is_float32_ ? SubtractRecord(value, record.elements<float>(),
                                        difference, num_elements_)
                       : SubtractRecord(value, record.elements<uint16_t>(),
                                        difference, num_elements_);
  }

  /// next = store(record + restored).
  void Add(const Record& record, const float* restored, Record* next) const {
    is_float32_ ? AddToRecord(record.elements<float>(), restored,
                              Mutable<float>(next), num_elements_)
                : AddToRecord(record.elements<uint16_t>(), restored,
                              Mutable<uint16_t>(next), num_elements_);
  }

  /// The same; `restored` becomes the stored values.
  void AddAndUse(const Record& record, float* restored, Record* next) const {
    is_float32_ ? AddToRecordAndUse(record.elements<float>(), restored,
                                    Mutable<float>(next), num_elements_)
                : AddToRecordAndUse(record.elements<uint16_t>(), restored,
                                    Mutable<uint16_t>(next), num_elements_);
  }

  /// next = store(value).
  void Store(const float* value, Record* next) const {
    is_float32_ ? StoreRecord(value, Mutable<float>(next), num_elements_)
                : StoreRecord(value, Mutable<uint16_t>(next), num_elements_);
  }

  /// The same; `value` becomes the stored values.
  void StoreAndUse(float* value, Record* next) const {
    is_float32_
        ? StoreRecordAndUse(value, Mutable<float>(next), num_elements_)
        : StoreRecordAndUse(value, Mutable<uint16_t>(next), num_elements_);
  }

  /// value = record.
  void Load(const Record& record, float* value) const {
    is_float32_ ? LoadRecord(record.elements<float>(), value, num_elements_)
                : LoadRecord(record.elements<uint16_t>(), value, num_elements_);
  }

 private:
  template <typename Element>
  static Element* Mutable(Record* record) {
    return reinterpret_cast<Element*>(record->values.data());
  }

  bool is_float32_;
  int64_t num_elements_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_RECORD_MATH_H_
