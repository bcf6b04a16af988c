// Chrome's trace format, which Perfetto (ui.perfetto.dev) and chrome://tracing
// open: one process per worker, named by stage and replica, one thread per
// track.
//
// Pure; called by TraceJob.
#ifndef DELTAPIPE_COORDINATOR_METRICS_CHROME_TRACE_H_
#define DELTAPIPE_COORDINATOR_METRICS_CHROME_TRACE_H_

#include <string>
#include <vector>

#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

struct RankTrace {
  int stage = 0;
  int replica = 0;
  v1::StepTrace trace;
};

/// JSON. Times are microseconds since the earliest span; workers of several
/// hosts are as well aligned as their clocks. A span that ends before it begins
/// has no duration.
std::string ChromeTrace(const std::vector<RankTrace>& traces);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_CHROME_TRACE_H_
