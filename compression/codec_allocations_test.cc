// Every codec in every setting, through the public interface: once a thread has
// seen tensors of a size, Encode, EncodeNext and Decode allocate nothing.
#include <string>
#include <vector>

#include "compression/testing/allocation_meter.h"
#include "compression/testing/codec_conformance.h"
#include "compression/testing/codec_settings.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

class CodecAllocationsTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CodecAllocationsTest, WarmCallsAllocateNothing) {
  ASSERT_TRUE(AllocationMeter::is_counting());

  CheckAllocations({GetParam()});
}

INSTANTIATE_TEST_SUITE_P(AllCodecs, CodecAllocationsTest,
                         ::testing::ValuesIn(AllCodecSettings()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return TestNameOfCodec(info.param);
                         });

}  // namespace
}  // namespace deltapipe
