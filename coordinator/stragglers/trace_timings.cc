#include "coordinator/stragglers/trace_timings.h"

#include <map>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// Seconds by micro-batch.
using SpanSeconds = std::map<int, double>;

struct WorkerSpans {
  SpanSeconds load, forward, backward;
  double reduce_seconds = 0;
};

absl::Status BadTrace(size_t rank, const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat("trace of rank ", rank, ": ", what));
}

absl::Status ReadSpans(size_t rank, const v1::StepTrace& trace,
                       WorkerSpans* spans) {
  for (const v1::TraceSpan& span : trace.spans()) {
    const double seconds =
        static_cast<double>(span.end_nanos() - span.begin_nanos()) / 1e9;
    SpanSeconds* by_microbatch = span.name() == "LOAD"       ? &spans->load
                                 : span.name() == "FORWARD"  ? &spans->forward
                                 : span.name() == "BACKWARD" ? &spans->backward
                                                             : nullptr;
    const bool is_reduce = span.name() == "REDUCE";
    if (by_microbatch == nullptr && !is_reduce) continue;
    // The wall clock was set back meanwhile.
    if (seconds < 0) {
      return BadTrace(
          rank, absl::StrCat(span.name(), " of micro-batch ", span.microbatch(),
                             " takes ", seconds, " s"));
    }
    if (is_reduce) {
      spans->reduce_seconds += seconds;
    } else if (!by_microbatch->emplace(span.microbatch(), seconds).second) {
      return BadTrace(rank, absl::StrCat(span.name(), " of micro-batch ",
                                         span.microbatch(), " twice"));
    }
  }
  return absl::OkStatus();
}

void FillLoads(const SpanSeconds& loads, int count, WorkerTimings* worker) {
  if (loads.empty() || count == 0) return;
  worker->load_seconds.assign(static_cast<size_t>(count), 0);
  double left_out = 0;
  for (const auto& [mb, seconds] : loads) {
    if (mb >= 0 && mb < count) {
      worker->load_seconds[static_cast<size_t>(mb)] = seconds;
    } else {
      left_out += seconds;
    }
  }
  for (double& seconds : worker->load_seconds) seconds += left_out / count;
}

absl::Status FillWorker(size_t rank, const WorkerSample& sample,
                        WorkerTimings* worker) {
  WorkerSpans spans;
  const absl::Status read = ReadSpans(rank, sample.trace, &spans);
  if (!read.ok()) return read;
  const int count = static_cast<int>(spans.backward.size());
  for (int mb = 0; mb < count; ++mb) {
    const auto forward = spans.forward.find(mb);
    const auto backward = spans.backward.find(mb);
    if (forward == spans.forward.end() || backward == spans.backward.end()) {
      return BadTrace(
          rank, absl::StrCat(
                    "micro-batch ", mb, " of ", count, " has no ",
                    backward == spans.backward.end() ? "BACKWARD" : "FORWARD"));
    }
    worker->forward_seconds.push_back(forward->second);
    worker->backward_seconds.push_back(backward->second);
  }
  FillLoads(spans.load, count, worker);
  worker->reduce_seconds = spans.reduce_seconds;
  const auto spread = [count](const std::optional<double>& seconds,
                              std::vector<double>* sends) {
    if (seconds.has_value() && count > 0) {
      sends->assign(static_cast<size_t>(count), *seconds / count);
    }
  };
  spread(sample.activation_send_seconds, &worker->activation_send_seconds);
  spread(sample.gradient_send_seconds, &worker->gradient_send_seconds);
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<StepTimings> TimingsOfTraces(
    int num_stages, int num_replicas, absl::Span<const WorkerSample> workers) {
  const size_t num_ranks =
      static_cast<size_t>(num_stages) * static_cast<size_t>(num_replicas);
  if (workers.size() != num_ranks || num_ranks == 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("traces of ", workers.size(), " workers, expected ",
                     num_stages, " stages of ", num_replicas, " replicas"));
  }
  StepTimings timings;
  timings.step = workers[0].trace.step();
  timings.num_stages = num_stages;
  timings.num_replicas = num_replicas;
  timings.workers.resize(num_ranks);
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    const int64_t step = workers[rank].trace.step();
    if (step != timings.step) {
      return BadTrace(rank, absl::StrCat("is of step ", step, ", that of rank ",
                                         "0 of step ", timings.step));
    }
    WorkerTimings& worker = timings.workers[rank];
    const absl::Status filled = FillWorker(rank, workers[rank], &worker);
    if (!filled.ok()) return filled;
    const size_t first =
        timings.workers[rank % static_cast<size_t>(num_replicas)]
            .backward_seconds.size();
    if (worker.backward_seconds.size() != first) {
      return BadTrace(
          rank,
          absl::StrCat("has ", worker.backward_seconds.size(),
                       " micro-batches, the replica's first stage ", first));
    }
  }
  return timings;
}

}  // namespace deltapipe
