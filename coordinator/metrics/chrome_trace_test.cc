#include "coordinator/metrics/chrome_trace.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using nlohmann::json;

RankTrace Trace(int stage, int replica, int64_t begin_nanos) {
  RankTrace rank;
  rank.stage = stage;
  rank.replica = replica;
  rank.trace.set_step(12);
  v1::TraceSpan* span = rank.trace.add_spans();
  span->set_name("FORWARD");
  span->set_microbatch(3);
  span->set_thread("compute");
  span->set_begin_nanos(begin_nanos);
  span->set_end_nanos(begin_nanos + 2500);
  return rank;
}

TEST(ChromeTraceTest, HasAProcessPerWorkerAndAThreadPerTrack) {
  RankTrace first = Trace(0, 1, 5000);
  *first.trace.add_spans() = first.trace.spans(0);
  first.trace.mutable_spans(1)->set_thread("send");

  EXPECT_EQ(
      ChromeTrace({Trace(1, 0, 6000), first}),
      "{\"displayTimeUnit\":\"ms\",\"traceEvents\":["
      "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":0,\"tid\":0,\"args\":"
      "{\"name\":\"stage 0, replica 1\"}},"
      "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":0,\"tid\":0,"
      "\"args\":{\"sort_index\":0}},"
      "{\"ph\":\"M\",\"name\":\"process_name\",\"pid\":1,\"tid\":0,\"args\":"
      "{\"name\":\"stage 1, replica 0\"}},"
      "{\"ph\":\"M\",\"name\":\"process_sort_index\",\"pid\":1,\"tid\":0,"
      "\"args\":{\"sort_index\":1}},"
      "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":1,\"tid\":0,\"args\":"
      "{\"name\":\"compute\"}},"
      "{\"ph\":\"X\",\"name\":\"FORWARD\",\"cat\":\"step\",\"pid\":1,"
      "\"tid\":0,\"ts\":1.0,\"dur\":2.5,\"args\":{\"step\":12,"
      "\"microbatch\":3}},"
      "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":0,\"tid\":0,\"args\":"
      "{\"name\":\"compute\"}},"
      "{\"ph\":\"X\",\"name\":\"FORWARD\",\"cat\":\"step\",\"pid\":0,"
      "\"tid\":0,\"ts\":0.0,\"dur\":2.5,\"args\":{\"step\":12,"
      "\"microbatch\":3}},"
      "{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":0,\"tid\":1,\"args\":"
      "{\"name\":\"send\"}},"
      "{\"ph\":\"X\",\"name\":\"FORWARD\",\"cat\":\"step\",\"pid\":0,"
      "\"tid\":1,\"ts\":0.0,\"dur\":2.5,\"args\":{\"step\":12,"
      "\"microbatch\":3}}]}");
}

TEST(ChromeTraceTest, NamesOfSpansAreEscaped) {
  RankTrace rank = Trace(0, 0, 1);
  rank.trace.mutable_spans(0)->set_name("\"\n\xff");

  const json trace = json::parse(ChromeTrace({rank}));

  EXPECT_EQ(trace["traceEvents"].back()["name"], "\"\n\xEF\xBF\xBD");
}

TEST(ChromeTraceTest, ASpanThatEndsBeforeItBeginsHasNoDuration) {
  RankTrace rank = Trace(0, 0, 5000);
  rank.trace.mutable_spans(0)->set_end_nanos(1);

  const json trace = json::parse(ChromeTrace({rank}));

  EXPECT_EQ(trace["traceEvents"].back()["dur"], 0);
}

TEST(ChromeTraceTest, NothingIsATraceToo) {
  EXPECT_EQ(ChromeTrace({}), "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[]}");
}

}  // namespace
}  // namespace deltapipe
