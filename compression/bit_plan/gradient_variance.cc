#include "compression/bit_plan/gradient_variance.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>

#include "absl/strings/match.h"
#include "compression/bit_plan/bit_ladder.h"

namespace deltapipe {
namespace {

bool IsProduct(const std::string& reader) {
  return absl::EndsWith(reader, "mm") || absl::StrContains(reader, "matmul") ||
         absl::StrContains(reader, "linear") ||
         absl::StrContains(reader, "conv");
}

int64_t Positions(const SavedMeasurement& measurement) {
  return measurement.positions > 0 ? measurement.positions
                                   : NumPositions(measurement.tensor);
}

}  // namespace

int64_t NumPositions(const SavedTensor& tensor) {
  if (tensor.shape.empty()) return 1;
  const int64_t channels =
      tensor.shape.size() == 4 ? tensor.shape[1] : tensor.shape.back();
  return channels <= 0 ? 1
                       : std::max<int64_t>(tensor.num_elements / channels, 1);
}

double GradientVariance(const SavedMeasurement& measurement) {
  const bool is_product = IsProduct(measurement.reader);
  const auto terms = static_cast<double>(
      is_product ? Positions(measurement)
                 : std::max<int64_t>(measurement.gradient_elements, 1));
  const auto group = static_cast<double>(
      std::min<int64_t>(measurement.tensor.num_elements, kBitGroup));
  const double variance = group / 6 * measurement.range_squares *
                          (is_product ? measurement.reuse : 1.0) *
                          measurement.alignment *
                          (measurement.gradient_squares / terms);
  const bool is_measured = measurement.range_squares >= 0 &&
                           measurement.gradient_squares >= 0 &&
                           std::isfinite(variance) && variance >= 0;
  return is_measured ? variance : std::numeric_limits<double>::quiet_NaN();
}

double MeasuredVariance(const SavedMeasurement& measurement) {
  return std::isfinite(measurement.sensitivity) && measurement.sensitivity > 0
             ? measurement.sensitivity / 2
             : GradientVariance(measurement);
}

}  // namespace deltapipe
