#include "coordinator/stragglers/trace_timings.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace deltapipe {
namespace {

using ::testing::DoubleNear;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pointwise;

void AddSpan(const std::string& name, int microbatch, int64_t begin_micros,
             int64_t micros, v1::StepTrace* trace) {
  v1::TraceSpan* span = trace->add_spans();
  span->set_name(name);
  span->set_microbatch(microbatch);
  span->set_begin_nanos(begin_micros * 1000);
  span->set_end_nanos((begin_micros + micros) * 1000);
}

/// Two micro-batches; its wall clock stands at `clock_micros`.
WorkerSample Sample(int64_t clock_micros, int64_t forward_micros) {
  WorkerSample sample;
  sample.trace.set_step(30);
  const int64_t at = clock_micros;
  for (int mb = 0; mb < 2; ++mb) {
    AddSpan("LOAD", mb, at, 7, &sample.trace);
    AddSpan("RECEIVE_ACTIVATION", mb, at, 90000, &sample.trace);
    AddSpan("FORWARD", mb, at, forward_micros + mb, &sample.trace);
    AddSpan("SEND_ACTIVATION", mb, at, 3, &sample.trace);
    AddSpan("BACKWARD", mb, at, 2 * forward_micros + mb, &sample.trace);
  }
  AddSpan("REDUCE", 0, at, 500, &sample.trace);
  AddSpan("APPLY", 0, at, 80000, &sample.trace);
  return sample;
}

TEST(TraceTimingsTest, ComputeIsWithoutWaitingOnAnyClock) {
  const auto timings =
      TimingsOfTraces(2, 1, {Sample(0, 1000), Sample(1700000000000000, 4000)});

  ASSERT_TRUE(timings.ok()) << timings.status();
  EXPECT_EQ(timings->step, 30);
  EXPECT_THAT(timings->At(0, 0).forward_seconds,
              Pointwise(DoubleNear(1e-9), {0.001000, 0.001001}));
  EXPECT_THAT(timings->At(1, 0).forward_seconds,
              Pointwise(DoubleNear(1e-9), {0.004000, 0.004001}));
  EXPECT_THAT(timings->At(1, 0).backward_seconds,
              Pointwise(DoubleNear(1e-9), {0.008000, 0.008001}));
  EXPECT_THAT(timings->At(1, 0).load_seconds,
              Pointwise(DoubleNear(1e-9), {0.000007, 0.000007}));
  EXPECT_NEAR(timings->At(1, 0).reduce_seconds, 0.0005, 1e-9);
}

TEST(TraceTimingsTest, LinksShareTheirSecondsAmongTheMicrobatches) {
  WorkerSample first = Sample(0, 1000);
  first.activation_send_seconds = 0.5;

  const auto timings = TimingsOfTraces(2, 1, {first, Sample(0, 1000)});

  ASSERT_TRUE(timings.ok()) << timings.status();
  EXPECT_THAT(timings->At(0, 0).activation_send_seconds,
              ElementsAre(0.25, 0.25));
  EXPECT_THAT(timings->At(0, 0).gradient_send_seconds, IsEmpty());
  EXPECT_THAT(timings->At(1, 0).gradient_send_seconds, IsEmpty());
}

TEST(TraceTimingsTest, MicrobatchesThatWereLeftOutDoNotCount) {
  WorkerSample short_step;
  short_step.trace.set_step(30);
  AddSpan("FORWARD", 0, 0, 1000, &short_step.trace);
  AddSpan("FORWARD", 1, 0, 2, &short_step.trace);  // ends the step
  AddSpan("BACKWARD", 0, 0, 2000, &short_step.trace);
  WorkerSample empty_step;
  empty_step.trace.set_step(30);
  AddSpan("FORWARD", 0, 0, 2, &empty_step.trace);

  const auto timings = TimingsOfTraces(1, 2, {short_step, empty_step});

  ASSERT_TRUE(timings.ok()) << timings.status();
  EXPECT_EQ(timings->At(0, 0).forward_seconds.size(), 1u);
  EXPECT_THAT(timings->At(0, 1).forward_seconds, IsEmpty());
}

TEST(TraceTimingsTest, WhatWasReadForNothingIsSharedByTheRest) {
  WorkerSample sample = Sample(0, 1000);  // two micro-batches, read in 7 us
  AddSpan("LOAD", 2, 0, 10, &sample.trace);
  AddSpan("LOAD", 3, 0, 20, &sample.trace);

  const auto timings = TimingsOfTraces(1, 1, {sample});

  ASSERT_TRUE(timings.ok()) << timings.status();
  EXPECT_THAT(timings->At(0, 0).load_seconds,
              Pointwise(DoubleNear(1e-9), {0.000022, 0.000022}));
}

void ExpectRefused(std::vector<WorkerSample> workers, const std::string& text) {
  const auto timings = TimingsOfTraces(2, 1, workers);

  EXPECT_EQ(timings.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(timings.status().message()), HasSubstr(text));
}

TEST(TraceTimingsTest, NamesWhatDoesNotFit) {
  WorkerSample later = Sample(0, 1000);
  later.trace.set_step(31);
  WorkerSample backwards = Sample(0, 1000);
  AddSpan("FORWARD", 2, 100, -5, &backwards.trace);
  WorkerSample twice = Sample(0, 1000);
  AddSpan("BACKWARD", 1, 0, 5, &twice.trace);
  WorkerSample holed = Sample(0, 1000);
  AddSpan("FORWARD", 3, 0, 5, &holed.trace);
  AddSpan("BACKWARD", 3, 0, 5, &holed.trace);
  WorkerSample more = Sample(0, 1000);
  AddSpan("FORWARD", 2, 0, 5, &more.trace);
  AddSpan("BACKWARD", 2, 0, 5, &more.trace);

  ExpectRefused({later}, "traces of 1 workers, expected 2 stages of 1");
  ExpectRefused({Sample(0, 1), later}, "rank 1: is of step 31");
  ExpectRefused({Sample(0, 1), backwards}, "FORWARD of micro-batch 2 takes -");
  ExpectRefused({Sample(0, 1), twice}, "BACKWARD of micro-batch 1 twice");
  ExpectRefused({Sample(0, 1), holed}, "micro-batch 2 of 3 has no BACKWARD");
  ExpectRefused({Sample(0, 1), more}, "has 3 micro-batches");
}

}  // namespace
}  // namespace deltapipe
