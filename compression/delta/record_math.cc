#include "compression/delta/record_math.h"

#include <algorithm>
#include <cfloat>

#include "absl/types/span.h"
#include "base/philox.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

template <typename Element>
Element* Mutable(Record* record) {
  return reinterpret_cast<Element*>(record->values.data());
}

}  // namespace

RecordMath::RecordMath(const RecordForm& form, int64_t num_elements)
    : form_(form), num_elements_(num_elements) {}

float* RecordMath::scratch() {
  scratch_.Reset(num_elements_ * static_cast<int64_t>(sizeof(float)));
  return reinterpret_cast<float*>(scratch_.data());
}

absl::StatusOr<SquaredNorms> RecordMath::Subtract(const float* value,
                                                  const Record& record,
                                                  float* difference) {
  if (form_.codec != nullptr) {
    DP_RETURN_IF_ERROR(Load(record, scratch()));
    return SubtractRecord(value, scratch(), difference, num_elements_);
  }
  return form_.is_float32 ? SubtractRecord(value, record.elements<float>(),
                                           difference, num_elements_)
                          : SubtractRecord(value, record.elements<uint16_t>(),
                                           difference, num_elements_);
}

absl::Status RecordMath::Sum(const Record& record, const float* restored) {
  float* const sum = scratch();
  DP_RETURN_IF_ERROR(Load(record, sum));
  AddResidual(sum, restored, sum, num_elements_);
  // Finite values stay finite in records; NaN passes.
  for (int64_t i = 0; i < num_elements_; ++i) {
    sum[i] = std::clamp(sum[i], -FLT_MAX, FLT_MAX);
  }
  return absl::OkStatus();
}

absl::Status RecordMath::Add(const Record& record, const float* restored,
                             Record* next) {
  if (form_.codec != nullptr) {
    DP_RETURN_IF_ERROR(Sum(record, restored));
    return Store(scratch(), next);
  }
  form_.is_float32 ? AddToRecord(record.elements<float>(), restored,
                                 Mutable<float>(next), num_elements_)
                   : AddToRecord(record.elements<uint16_t>(), restored,
                                 Mutable<uint16_t>(next), num_elements_);
  return absl::OkStatus();
}

absl::Status RecordMath::AddAndUse(const Record& record, float* restored,
                                   Record* next) {
  if (form_.codec != nullptr) {
    DP_RETURN_IF_ERROR(Add(record, restored, next));
    return Load(*next, restored);
  }
  form_.is_float32 ? AddToRecordAndUse(record.elements<float>(), restored,
                                       Mutable<float>(next), num_elements_)
                   : AddToRecordAndUse(record.elements<uint16_t>(), restored,
                                       Mutable<uint16_t>(next), num_elements_);
  return absl::OkStatus();
}

absl::Status RecordMath::Store(const float* value, Record* next) {
  if (form_.codec != nullptr) {
    return form_.codec
        ->Encode(absl::MakeConstSpan(value, static_cast<size_t>(num_elements_)),
                 RandomKey(), next->values.span())
        .status();
  }
  form_.is_float32 ? StoreRecord(value, Mutable<float>(next), num_elements_)
                   : StoreRecord(value, Mutable<uint16_t>(next), num_elements_);
  return absl::OkStatus();
}

absl::Status RecordMath::StoreAndUse(float* value, Record* next) {
  if (form_.codec != nullptr) {
    DP_RETURN_IF_ERROR(Store(value, next));
    return Load(*next, value);
  }
  form_.is_float32
      ? StoreRecordAndUse(value, Mutable<float>(next), num_elements_)
      : StoreRecordAndUse(value, Mutable<uint16_t>(next), num_elements_);
  return absl::OkStatus();
}

absl::Status RecordMath::Load(const Record& record, float* value) {
  if (form_.codec != nullptr) {
    return form_.codec->Decode(
        record.values.span(),
        absl::MakeSpan(value, static_cast<size_t>(num_elements_)));
  }
  form_.is_float32
      ? LoadRecord(record.elements<float>(), value, num_elements_)
      : LoadRecord(record.elements<uint16_t>(), value, num_elements_);
  return absl::OkStatus();
}

}  // namespace deltapipe
