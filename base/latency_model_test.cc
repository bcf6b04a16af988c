#include "base/latency_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <utility>

namespace deltapipe {
namespace {

using testing::AllOf;
using testing::HasSubstr;

LatencyModel Parsed(absl::string_view text, uint64_t seed = 1) {
  absl::StatusOr<LatencyModel> model = LatencyModel::Parse(text, seed);
  EXPECT_TRUE(model.ok()) << model.status();
  return model.value_or(LatencyModel());
}

// Every value of the distribution, each with its share of the unit interval:
// the moments of the paper's noise to the digits that it gives them.
TEST(LatencyModelTest, LognormalHasTheMomentsOfThePaper) {
  const int samples = 2000000;
  double sum = 0, squares = 0;
  for (int i = 0; i < samples; ++i) {
    const double z = DiscreteLognormal((i + 0.5) / samples);
    sum += z;
    squares += z * z;
  }
  const double mean = sum / samples;

  EXPECT_NEAR(mean, 1, 1e-5);
  EXPECT_NEAR(0.5 * std::sqrt(squares / samples - mean * mean), 0.58, 0.005);
  EXPECT_NEAR(0.5 * DiscreteLognormal(std::nextafter(1.0, 0.0)), 5.7, 0.005);
  EXPECT_NEAR(DiscreteLognormal(0), 1 / 87.6343, 1e-6);
}

// n = 96,000 draws of sd 0.58: the mean is off by more than 0.0119 (6.3 sigma)
// in fewer than one of 1e9 seeds.
TEST(LatencyModelTest, DrawsOfReplicasStepsAndMicrobatchesAreSpreadAsTheTable) {
  const LatencyModel model = Parsed("lognormal:1.0", 20250101);
  double sum = 0;
  for (int replica = 0; replica < 8; ++replica) {
    for (int step = 0; step < 1000; ++step) {
      for (int mb = 0; mb < 12; ++mb) {
        sum += model.ExtraSeconds(replica, step, mb, 1);
      }
    }
  }

  EXPECT_NEAR(sum / 96000, 0.5, 0.0119);
}

TEST(LatencyModelTest, DependsOnSeedReplicaStepMicrobatchAndPart) {
  const LatencyModel model = Parsed("lognormal:1", 5);
  const double extra = model.ExtraSeconds(1, 2, 3, 1, 4);

  EXPECT_EQ(extra, Parsed("lognormal:1", 5).ExtraSeconds(1, 2, 3, 1, 4));
  EXPECT_EQ(2 * extra, model.ExtraSeconds(1, 2, 3, 2, 4));
  EXPECT_NE(extra, Parsed("lognormal:1", 6).ExtraSeconds(1, 2, 3, 1, 4));
  EXPECT_NE(extra, model.ExtraSeconds(0, 2, 3, 1, 4));
  EXPECT_NE(extra, model.ExtraSeconds(1, 3, 3, 1, 4));
  EXPECT_NE(extra, model.ExtraSeconds(1, 2, 4, 1, 4));
  EXPECT_NE(extra, model.ExtraSeconds(1, 2, 3, 1, 5));
}

TEST(LatencyModelTest, SlowConcernsOneReplica) {
  const LatencyModel model = Parsed("slow:rank=3,x=1.5");

  EXPECT_DOUBLE_EQ(model.ExtraSeconds(3, 7, 2, 0.2), 0.1);
  EXPECT_EQ(model.ExtraSeconds(2, 7, 2, 0.2), 0);
}

TEST(LatencyModelTest, InputIsOfOneReplicaAndNoExtraOfItsCompute) {
  const LatencyModel model = Parsed("input:rank=1,by=20ms;input:by=1s,rank=1");

  EXPECT_DOUBLE_EQ(model.InputSeconds(1), 1.02);
  EXPECT_EQ(model.InputSeconds(0), 0);
  EXPECT_EQ(model.ExtraSeconds(1, 7, 2, 0.2), 0);
  EXPECT_FALSE(model.is_none());
}

TEST(LatencyModelTest, TermsAddUp) {
  const LatencyModel both = Parsed(" lognormal:0.5 ; slow:x=2,rank=0");

  EXPECT_DOUBLE_EQ(both.ExtraSeconds(0, 1, 1, 3),
                   3 + Parsed("lognormal:0.5").ExtraSeconds(0, 1, 1, 3));
}

TEST(LatencyModelTest, TwoLognormalTermsAreIndependent) {
  const double once = Parsed("lognormal:1").ExtraSeconds(0, 1, 1, 1);

  EXPECT_NE(Parsed("lognormal:1;lognormal:1").ExtraSeconds(0, 1, 1, 1),
            2 * once);
}

TEST(LatencyModelTest, NothingIsInjectedUnlessAsked) {
  EXPECT_TRUE(Parsed("").is_none());
  EXPECT_TRUE(Parsed("none").is_none());
  EXPECT_EQ(LatencyModel().ExtraSeconds(0, 0, 0, 1), 0);
}

TEST(LatencyModelTest, RefusesWhatItCannotRead) {
  const std::pair<const char*, const char*> cases[] = {
      {"gamma:1", "unknown kind 'gamma'"},
      {"lognormal", "factor is not a number"},
      {"lognormal:nan", "factor is not a number"},
      {"lognormal:inf", "factor is not a number"},
      {"lognormal:-1", "factor is not a number"},
      {"slow:rank=1", "needs rank and x"},
      {"slow:rank=-1,x=2", "rank is not a replica"},
      {"slow:rank=1,x=0.5", "x is not a number >= 1"},
      {"slow:rank=1,x=nan", "x is not a number >= 1"},
      {"slow:rank=1,x=2,x=3", "unknown or repeated argument 'x=3'"},
      {"slow:node=1,x=2", "unknown or repeated argument 'node=1'"},
      {"input", "needs rank and by"},
      {"input:rank=1", "needs rank and by"},
      {"input:by=20ms", "needs rank and by"},
      {"input:rank=x,by=20ms", "rank is not a replica"},
      {"input:rank=1,by=20", "by: "},
      {"input:rank=1,by=-20ms", "by: "},
      {"input:rank=1,by=", "by: "},
      {"input:rank=1,x=2", "unknown or repeated argument 'x=2'"},
      {"input:rank=1,by=1s,by=2s", "unknown or repeated argument 'by=2s'"},
      {"lognormal:1;", "unknown kind ''"},
  };
  for (const auto& [text, why] : cases) {
    const absl::Status status = LatencyModel::Parse(text, 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << text;
    EXPECT_THAT(std::string(status.message()),
                AllOf(HasSubstr(why), HasSubstr("lognormal:1.0")));
  }
}

TEST(LatencyModelTest, ARankBeyondTheReplicasIsNamed) {
  const LatencyModel model = Parsed("slow:rank=3,x=2");

  EXPECT_TRUE(model.CheckReplicas(4).ok());
  EXPECT_EQ(model.CheckReplicas(3).message(),
            "injected latency names replica 3 of 3; replicas count from 0");
  EXPECT_FALSE(Parsed("input:rank=3,by=1ms").CheckReplicas(3).ok());
}

}  // namespace
}  // namespace deltapipe
