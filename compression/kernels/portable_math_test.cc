#include "compression/kernels/portable_math.h"

#include <cmath>

#include "gtest/gtest.h"

namespace deltapipe {
namespace {

TEST(PortableMathTest, IsWithinItsBoundsOfTheLibraryFunctions) {
  for (double x = -690; x <= 690; x += 0.37) {
    ASSERT_NEAR(PortableExp(x) / std::exp(x), 1, 2e-13) << x;
  }
  for (double x = -1; x <= 1; x += 0.001) {
    ASSERT_NEAR(PortableExp(x) / std::exp(x), 1, 1e-14) << x;
  }
  for (double x = -10; x <= 10; x += 0.01) {
    ASSERT_NEAR(NormalDistribution(x), std::erfc(-x / std::sqrt(2.0)) / 2,
                7.5e-8)
        << x;
  }
  EXPECT_GT(PortableExp(-1e6), 0);
  EXPECT_TRUE(std::isfinite(PortableExp(1e6)));
}

}  // namespace
}  // namespace deltapipe
