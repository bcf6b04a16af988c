// division(low=bf16,high=2): the low frequencies of images in `low`, what is
// left of each pixel in `high` bits; tensors that are no images in groups of
// `high` bits.
//
// An image is a tensor of four extents (N, C, H, W) with at least two rows and
// columns whose zeros need not be kept: what is left of a ReLU once its zeros
// are taken out has no neighbours. The codec keeps means of 8 x 8 pixels, which
// need no padding where 8 divides no extent.
//
// Wang et al., DIVISION, ICML 2023, arXiv 2208.04187, section 3.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

class DivisionPolicy final : public BitsPolicy {
 public:
  DivisionPolicy(std::string text, int low_bits, int high_bits)
      : BitsPolicy(std::move(text), high_bits, "above the low frequencies"),
        low_bits_(low_bits) {}

 protected:
  std::string CodecFor(const SavedTensor& tensor, int bits) const override {
    const bool is_image = tensor.shape.size() == 4 && tensor.shape[2] >= 2 &&
                          tensor.shape[3] >= 2 && !tensor.keeps_zeros;
    if (!is_image) return GroupCodecText(bits);
    return absl::StrCat("dual_precision(", low_bits_, ",", bits, ")");
  }

 private:
  const int low_bits_;
};

constexpr CodecParameter kParameters[] = {
    ChoiceParameter("low", "bf16", "bf16|int8", "how means are kept"),
    IntegerParameter("high", "2", 1, 8, "bits per value for the rest"),
};

}  // namespace

absl::Span<const CodecParameter> DivisionPolicyParameters() {
  return kParameters;
}

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeDivisionPolicy(
    const CodecArguments& arguments) {
  return std::unique_ptr<SavedPolicy>(new DivisionPolicy(
      arguments.CanonicalText(), arguments.Word("low") == "bf16" ? 16 : 8,
      static_cast<int>(arguments.Integer("high"))));
}

}  // namespace deltapipe
