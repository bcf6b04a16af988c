// mesa(bits=8,head=64): a running range per attention head or group of
// channels.
//
// The codec remembers ranges (per_head): whoever packs keeps its memory by the
// tensor's name, and payloads carry the range they were packed with, so that a
// backward pass decodes right whatever was packed since.
//
// Pan et al., Mesa, arXiv 2111.11124, section 3.2.
#include <memory>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "compression/bit_plan/bits_policy.h"
#include "compression/bit_plan/saved_policy_makers.h"
#include "compression/codecs/parameters.h"

namespace deltapipe {
namespace {

class MesaPolicy final : public BitsPolicy {
 public:
  MesaPolicy(std::string text, int bits, int64_t head)
      : BitsPolicy(std::move(text), bits, "in running ranges of heads"),
        head_(head) {}

 protected:
  std::string CodecFor(const SavedTensor& /*tensor*/, int bits) const override {
    return absl::StrCat("per_head(int(", bits,
                        ",round=stochastic),head=", head_, ")");
  }

 private:
  const int64_t head_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("bits", "8", 1, 8, "bits per value"),
    IntegerParameter("head", "64", 1, 1 << 20, "columns of a head"),
};

}  // namespace

absl::Span<const CodecParameter> MesaPolicyParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<SavedPolicy>> MakeMesaPolicy(
    const CodecArguments& arguments) {
  return std::unique_ptr<SavedPolicy>(new MesaPolicy(
      arguments.CanonicalText(), static_cast<int>(arguments.Integer("bits")),
      arguments.Integer("head")));
}

}  // namespace deltapipe
