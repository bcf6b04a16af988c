#include "worker/saved_activations/device_policy.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

/// A policy of any text, which packs by one codec.
class AnyPolicy final : public SavedPolicy {
 public:
  AnyPolicy(std::string text, const std::string& codec)
      : text_(std::move(text)), codec_(MakeCodec(codec).value()) {}

  std::string text() const override { return text_; }
  SavedTreatment Treat(const SavedTensor& /*tensor*/) const override {
    return {codec_, false, "tried"};
  }
  SavedMeasures measures() const override { return {}; }
  absl::Status Plan(
      int64_t /*step*/,
      absl::Span<const SavedMeasurement> /*measurements*/) override {
    return absl::OkStatus();
  }
  std::string Raise(absl::string_view /*op*/) override { return ""; }
  int recompute_every() const override { return 0; }
  std::string Save() const override { return ""; }
  absl::Status Restore(absl::string_view /*state*/) override {
    return absl::OkStatus();
  }

 private:
  const std::string text_;
  const std::shared_ptr<const Codec> codec_;
};

absl::Status Check(const std::string& text, const std::string& codec) {
  return CheckDevicePolicy(AnyPolicy(text, codec), SavedTensor(), "cuda:0");
}

TEST(DevicePolicyTest, CodecsDecide) {
  for (const char* codec :
       {"int(4)", "int(1,block=256,round=stochastic,levels=affine,scale=bf16)",
        "cast(fp16)", "luq", "sign", "rowwise4", "aqsgd(4)"}) {
    EXPECT_TRUE(Check("any", codec).ok()) << Check("any", codec);
  }
  for (const char* codec :
       {"topk(0.1)", "nonzero(int(4))", "per_head(int(4))", "prune(0.5)"}) {
    EXPECT_EQ(Check("any", codec).code(), absl::StatusCode::kUnimplemented)
        << codec;
  }
}

// Whatever they pack by before their first plan.
TEST(DevicePolicyTest, PoliciesThatComeToHostCodecsAreRefusedInWrappersToo) {
  for (const char* text :
       {"comet(target=0.01)", "wrapped(comet(target=0.01),derivative=2)"}) {
    const absl::Status status = Check(text, "int(4)");

    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string(text) + " packs by codec error_bound"));
    EXPECT_THAT(std::string(status.message()), HasSubstr("on device cuda:0"));
  }
  EXPECT_TRUE(Check("wrapped(gact(bits=2),derivative=2)", "int(4)").ok());
}

TEST(DevicePolicyTest, HostMemoryIsOfWorkersWithADevice) {
  for (const char* text : {"offload(int(8))", "auto(8,offload=4)",
                           "lean(auto(8,slowdown=0.1,offload=4))"}) {
    const absl::Status status = CheckHostPolicy(*MakeSavedPolicy(text).value());

    EXPECT_EQ(status.code(), absl::StatusCode::kUnimplemented) << text;
    EXPECT_THAT(std::string(status.message()),
                HasSubstr(std::string("compression.saved_activations: ") +
                          MakeSavedPolicy(text).value()->text() +
                          " moves packed tensors to host memory, where those "
                          "of a cpu worker are already: use fixed(codec), or "
                          "auto without offload, there"));
  }
  EXPECT_TRUE(CheckHostPolicy(*MakeSavedPolicy("auto(8)").value()).ok());
}

}  // namespace
}  // namespace deltapipe
