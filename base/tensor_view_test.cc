#include "base/tensor_view.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace deltapipe {
namespace {

using testing::Each;
using testing::ElementsAre;

TEST(TensorViewTest, CountsElementsAndBytes) {
  float data[6] = {};
  const TensorView view(DType::kFloat32, {2, 3}, data);

  EXPECT_EQ(view.num_elements(), 6);
  EXPECT_EQ(view.num_bytes(), 24);
  EXPECT_EQ(view.Values<float>().size(), 6);
  EXPECT_EQ(view.Values<float>().data(), data);
}

TEST(TensorViewTest, DefaultHasNoElements) {
  EXPECT_EQ(TensorView().num_elements(), 0);
  EXPECT_EQ(NumElements(TensorView().shape()), 0);
}

TEST(TensorViewTest, RankZeroIsOneElement) {
  double value = 3;
  const TensorView view(DType::kFloat64, absl::Span<const int64_t>(), &value);

  EXPECT_EQ(view.num_elements(), 1);
  EXPECT_EQ(ShapeString(view.shape()), "scalar");
}

TEST(TensorViewTest, ShapeStringJoinsDimensions) {
  EXPECT_EQ(ShapeString(Shape({4, 128, 256})), "4x128x256");
}

TEST(TensorViewTest, BytesOfEveryType) {
  EXPECT_EQ(DTypeBytes(DType::kFloat32), 4);
  EXPECT_EQ(DTypeBytes(DType::kFloat16), 2);
  EXPECT_EQ(DTypeBytes(DType::kBFloat16), 2);
  EXPECT_EQ(DTypeBytes(DType::kUInt8), 1);
  EXPECT_EQ(DTypeBytes(DType::kInt32), 4);
  EXPECT_EQ(DTypeBytes(DType::kInt64), 8);
  EXPECT_EQ(DTypeBytes(DType::kFloat64), 8);
}

TEST(HostTensorTest, StartsAtZero) {
  HostTensor tensor(DType::kInt32, {2, 2});

  EXPECT_THAT(tensor.Values<int32_t>(), ElementsAre(0, 0, 0, 0));
}

TEST(HostTensorTest, ViewSharesItsMemory) {
  HostTensor tensor(DType::kFloat32, {3});

  for (float& value : tensor.view().Values<float>()) value = 2.5f;

  EXPECT_THAT(tensor.Values<float>(), Each(2.5f));
}

TEST(HostTensorTest, DefaultIsEmptyAndSoIsItsView) {
  HostTensor tensor;

  EXPECT_TRUE(tensor.empty());
  EXPECT_EQ(tensor.view().num_elements(), 0);
}

}  // namespace
}  // namespace deltapipe
