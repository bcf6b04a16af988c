// What a worker traces of a step with given timings, for tests.
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TRACES_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TRACES_H_

#include <cstdint>
#include <string>

#include "coordinator/stragglers/op_timings.h"
#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

/// Spans one after the other from `begin_nanos` on, with no waiting; sends are
/// not in a trace.
inline v1::StepTrace TraceOf(const WorkerTimings& worker, int64_t step,
                             int64_t begin_nanos = 0) {
  v1::StepTrace trace;
  trace.set_step(step);
  int64_t at = begin_nanos;
  const auto add = [&](const std::string& name, size_t microbatch,
                       double seconds) {
    v1::TraceSpan* span = trace.add_spans();
    span->set_name(name);
    span->set_microbatch(static_cast<int>(microbatch));
    span->set_begin_nanos(at);
    at += static_cast<int64_t>(seconds * 1e9);
    span->set_end_nanos(at);
  };
  for (size_t mb = 0; mb < worker.load_seconds.size(); ++mb) {
    add("LOAD", mb, worker.load_seconds[mb]);
  }
  for (size_t mb = 0; mb < worker.forward_seconds.size(); ++mb) {
    add("FORWARD", mb, worker.forward_seconds[mb]);
  }
  for (size_t mb = 0; mb < worker.backward_seconds.size(); ++mb) {
    add("BACKWARD", mb, worker.backward_seconds[mb]);
  }
  add("REDUCE", 0, worker.reduce_seconds);
  return trace;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TRACES_H_
