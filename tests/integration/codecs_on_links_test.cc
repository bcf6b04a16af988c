// A job trains with every codec of the registry on its links, from the job spec
// alone: for activations and their gradients, and for both ends' deltas.
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "compression/codec.h"
#include "compression/testing/codec_settings.h"
#include "gtest/gtest.h"
#include "tests/integration/training_job.h"

namespace deltapipe {
namespace {

// Of 16 of 300 samples: the last ones visit samples again.
constexpr char kSteps[] = "train.steps=24";

void ExpectFiniteLosses(const RunResult& result) {
  ExpectSuccess(result);
  for (const double loss : result.losses) {
    EXPECT_TRUE(std::isfinite(loss) && loss > 0) << loss;
  }
}

class CodecsOnLinksTest : public ::testing::TestWithParam<std::string> {};

TEST_P(CodecsOnLinksTest, CarryActivationsAndTheirGradients) {
  const std::string& codec = GetParam();

  const RunResult result = Job(2, 1,
                               {kSteps, "compression.activations=" + codec,
                                "compression.activation_gradients=" + codec})
                               .Run();

  ExpectFiniteLosses(result);
  // What crossed the boundary is what the codec left of it.
  static const auto* const uncompressed =
      new RunResult(Job(2, 1, {kSteps}).Run());
  if (MakeCodec(codec).value()->traits().is_lossless) {
    EXPECT_EQ(result.losses, uncompressed->losses);
  } else {
    EXPECT_NE(result.losses, uncompressed->losses);
  }
  for (const int rank : {0, 1}) {
    EXPECT_GT(result.reports.at(rank).back().bytes().activation_wire(), 0);
  }
}

TEST_P(CodecsOnLinksTest, CarryChangesOfActivations) {
  const RunResult result =
      Job(2, 1,
          {kSteps, absl::StrCat("compression.activations=delta(", GetParam(),
                                ",first=int(8))")})
          .Run();

  ExpectFiniteLosses(result);
  EXPECT_GT(result.reports.at(0).back().bytes().delta_rows(), 0);
}

// The records of a boundary hold what the second stage was given: nobody keeps
// a copy for its backward pass, and nothing changes.
TEST(RecordsOfALinkTest, ServeTheBackwardPassToo) {
  for (const char* records : {"", ",store=fp32", ",store=int(8)"}) {
    SCOPED_TRACE(records);
    const auto run = [&](bool reads_again, int* num_read) {
      Job job(2, 1,
              {kSteps, absl::StrCat("compression.activations=delta(int(8),",
                                    "first=int(8)", records, ")")});
      job.before_forward = [&](int rank, ElementwiseStage* stage, int64_t,
                               int) {
        if (rank == 1) {
          stage->keeps_inputs = !reads_again;
          *num_read = stage->num_inputs_read_again;
        }
        return absl::OkStatus();
      };
      return job.Run();
    };
    int num_kept = 0;
    int num_read = 0;

    const RunResult kept = run(false, &num_kept);
    const RunResult read = run(true, &num_read);

    ExpectSuccess(kept);
    ExpectSuccess(read);
    EXPECT_EQ(num_kept, 0);
    EXPECT_GT(num_read, 24 * 7);
    EXPECT_EQ(read.losses, kept.losses);
  }
}

// A weight that is infinite in one micro-batch makes a column of activations
// so, and their gradients no numbers.
TEST(ReportOfALinkTest, CountsWhatIsNotFiniteInBothDirections) {
  constexpr int64_t kBadStep = 10;
  Job job(2, 1, {kSteps, "compression.activations=delta(int(8),first=int(8))"});
  float good = 0;
  job.before_forward = [&good](int rank, ElementwiseStage* stage, int64_t step,
                               int mb) {
    if (rank != 0 || step != kBadStep || mb > 1) return absl::OkStatus();
    float& weight = stage->weights()[0];
    if (mb == 0) good = weight;
    weight = mb == 0 ? std::numeric_limits<float>::infinity() : good;
    return absl::OkStatus();
  };

  const RunResult result = job.Run();

  for (const int rank : {0, 1}) {
    int64_t last = 0;
    for (const v1::StepReport& report : result.reports.at(rank)) {
      ASSERT_EQ(report.links_size(), 1);
      EXPECT_EQ(report.links(0).is_gradient(), rank == 1);
      last = report.links(0).not_finite();
      EXPECT_EQ(last > 0, report.step() >= kBadStep)
          << "rank " << rank << ", step " << report.step() << ": " << last;
    }
    EXPECT_GT(last, 0);
  }
}

INSTANTIATE_TEST_SUITE_P(AllCodecs, CodecsOnLinksTest,
                         ::testing::ValuesIn(AllExampleCodecs()),
                         [](const ::testing::TestParamInfo<std::string>& info) {
                           return TestNameOfCodec(info.param);
                         });

}  // namespace
}  // namespace deltapipe
