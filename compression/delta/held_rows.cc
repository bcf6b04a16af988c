#include "compression/delta/held_rows.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/delta/record_math.h"

namespace deltapipe {

absl::Status HeldRows::Read(absl::Span<float> values) const {
  const auto row = static_cast<size_t>(num_elements_);
  if (values.size() != records_.size() * row) {
    return absl::InvalidArgumentError(
        absl::StrCat("records hold ", records_.size(), " rows of ", row,
                     " values, expected ", values.size(), " values"));
  }
  RecordMath math({is_float32_, codec_.get()}, num_elements_);
  for (size_t i = 0; i < records_.size(); ++i) {
    DP_RETURN_IF_ERROR(math.Load(*records_[i], &values[i * row]));
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
