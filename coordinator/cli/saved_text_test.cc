#include "coordinator/cli/saved_text.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

v1::JobMetrics Metrics() {
  v1::JobMetrics metrics;
  for (int stage = 0; stage < 2; ++stage) {
    v1::RankMetrics* rank = metrics.add_ranks();
    rank->set_stage(stage);
    v1::SavedReport* saved = rank->mutable_saved();
    saved->set_raw_bytes(900'000'000);
    saved->set_unique_bytes(600'000'000);
    saved->set_packed_bytes(70'000'000);
    saved->set_passed_bytes(8'000'000);
    saved->set_metadata_bytes(2'000'000);
    saved->set_peak_bytes(stage == 0 ? 40'000'000 : 20'000'000);
    saved->set_scratch_peak_bytes(1'000'000);
  }
  v1::SavedError* error =
      metrics.mutable_ranks(1)->mutable_saved()->add_errors();
  error->set_operator_("gelu");
  error->set_relative_error(0.034);
  return metrics;
}

TEST(SavedTextTest, LineSumsOverWorkersAndNamesTheWorst) {
  EXPECT_EQ(SavedLine(Metrics()),
            "saved 1.2 GB -> 160 MB (0.13), peak 40 MB on stage 0, gradient "
            "error 0.034 gelu on stage 1\n");
}

TEST(SavedTextTest, AnErrorThatIsNoNumberIsTheWorst) {
  v1::JobMetrics metrics = Metrics();
  v1::SavedError* error =
      metrics.mutable_ranks(0)->mutable_saved()->add_errors();
  error->set_operator_("addmm");
  error->set_relative_error(std::nan(""));

  EXPECT_THAT(SavedLine(metrics), HasSubstr("nan addmm on stage 0"));
}

TEST(SavedTextTest, TableHasARowForEachWorkerThatPacks) {
  v1::JobMetrics metrics = Metrics();
  metrics.add_ranks()->set_stage(2);

  EXPECT_EQ(SavedTable(metrics),
            "STAGE  REPLICA   SAVED   KEPT  RATIO   PEAK  SCRATCH  GRADIENT "
            "ERROR\n"
            "    0        0  600 MB  80 MB   0.13  40 MB     1 MB  -\n"
            "    1        0  600 MB  80 MB   0.13  20 MB     1 MB  0.034 "
            "gelu\n");
}

TEST(SavedTextTest, WhatIsInHostMemoryIsShownWhereThereIsAny) {
  v1::JobMetrics metrics = Metrics();
  metrics.mutable_ranks(1)->mutable_saved()->set_offloaded_peak_bytes(
      12'000'000);

  EXPECT_THAT(SavedLine(metrics),
              HasSubstr("peak 40 MB on stage 0 and 12 MB in host memory on "
                        "stage 1, gradient error"));
  EXPECT_EQ(SavedTable(metrics),
            "STAGE  REPLICA   SAVED   KEPT  RATIO   PEAK  SCRATCH  IN HOST  "
            "GRADIENT ERROR\n"
            "    0        0  600 MB  80 MB   0.13  40 MB     1 MB      0 B  -\n"
            "    1        0  600 MB  80 MB   0.13  20 MB     1 MB    12 MB  "
            "0.034 gelu\n");
}

TEST(SavedTextTest, NothingIsSaidWhereNothingIsPacked) {
  v1::JobMetrics metrics;
  metrics.add_ranks();

  EXPECT_EQ(SavedLine(metrics), "");
  EXPECT_EQ(SavedTable(metrics), "");
}

TEST(SavedTextTest, WorkerThatKeptNothingHasNoRatio) {
  v1::JobMetrics metrics;
  metrics.add_ranks()->mutable_saved();

  EXPECT_EQ(SavedLine(metrics), "saved 0 B -> 0 B (-), peak 0 B on stage 0\n");
}

}  // namespace
}  // namespace deltapipe
