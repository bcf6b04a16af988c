// Policies, tensors and measurements for tests.
#ifndef DELTAPIPE_COMPRESSION_BIT_PLAN_TESTING_POLICIES_H_
#define DELTAPIPE_COMPRESSION_BIT_PLAN_TESTING_POLICIES_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/numbers.h"
#include "compression/bit_plan/saved_policy.h"
#include "gtest/gtest.h"

namespace deltapipe {

inline std::unique_ptr<SavedPolicy> Make(const std::string& text) {
  auto policy = MakeSavedPolicy(text);
  EXPECT_TRUE(policy.ok()) << policy.status();
  return *std::move(policy);
}

inline SavedTensor Tensor(std::string name, std::vector<int64_t> shape,
                          std::string op = "gelu") {
  SavedTensor tensor;
  tensor.name = std::move(name);
  tensor.op = std::move(op);
  tensor.num_elements = 1;
  for (const int64_t extent : shape) tensor.num_elements *= extent;
  tensor.shape = std::move(shape);
  return tensor;
}

inline std::string CodecFor(const SavedPolicy& policy,
                            const SavedTensor& tensor) {
  const SavedTreatment treatment = policy.Treat(tensor);
  return treatment.codec == nullptr ? "as it is" : treatment.codec->text();
}

inline SavedMeasurement Measured(SavedTensor tensor, double range_squares) {
  SavedMeasurement measurement;
  measurement.tensor = std::move(tensor);
  measurement.range_squares = range_squares;
  measurement.gradient_squares = 1;
  measurement.gradient_elements = measurement.tensor.num_elements;
  measurement.reader = "addmm";
  measurement.sensitivity = range_squares;
  return measurement;
}

// The bits of a treatment, 32 as it is, from "int(4,..." or "mixed(bits=2,...".
inline int BitsOf(const SavedPolicy& policy, const SavedTensor& tensor) {
  const std::string text = CodecFor(policy, tensor);
  if (text == "as it is") return 32;
  int bits = 0;
  const size_t digit = text.find_first_of("12345678");
  EXPECT_TRUE(absl::SimpleAtoi(text.substr(digit, 1), &bits)) << text;
  return bits;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_BIT_PLAN_TESTING_POLICIES_H_
