// How soon a coordinator answers: each kind of call over one connection, one
// after the other, and the median and 99th percentile of each.
//
//   admin_calls_benchmark HOST:PORT JOB [CALLS]
//
// Updates wait for the step from which they hold: they are timed apart, against
// validate_only, which does all but that.
#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>
#include <vector>

#include "coordinator/cli/job_client.h"

namespace deltapipe {
namespace {

using SteadyClock = std::chrono::steady_clock;

/// Of an ascending list.
double Percentile(const std::vector<double>& sorted, double share) {
  const double last = static_cast<double>(sorted.size() - 1);
  return sorted[static_cast<size_t>(share * last + 0.5)];
}

bool Measure(const char* name, int num_calls,
             const std::function<absl::Status()>& call) {
  std::vector<double> millis;
  for (int i = 0; i < num_calls; ++i) {
    const auto begin = SteadyClock::now();
    const absl::Status status = call();
    millis.push_back(
        std::chrono::duration<double, std::milli>(SteadyClock::now() - begin)
            .count());
    if (!status.ok()) {
      std::fprintf(stderr, "%s: %s\n", name, status.ToString().c_str());
      return false;
    }
  }
  std::sort(millis.begin(), millis.end());
  std::printf("%-20s calls=%d p50_ms=%.2f p99_ms=%.2f max_ms=%.2f\n", name,
              num_calls, Percentile(millis, 0.5), Percentile(millis, 0.99),
              millis.back());
  return true;
}

bool MeasureAll(const std::string& address, const std::string& job,
                int num_calls) {
  JobClient client(address);
  int turn = 0;
  const auto update = [&](bool validates_only) {
    v1::UpdateTuningRequest request;
    request.mutable_tuning()->set_job_id(job);
    request.mutable_tuning()->mutable_tuner()->set_error_budget(
        ++turn % 2 == 0 ? 0.1 : 0.2);
    request.mutable_update_mask()->add_paths("tuner.error_budget");
    request.set_validate_only(validates_only);
    return client.UpdateTuning(request).status();
  };
  return Measure("GetVersion", num_calls,
                 [&] { return client.GetVersion().status(); }) &&
         Measure("GetJob", num_calls,
                 [&] { return client.Get(job).status(); }) &&
         Measure("ListJobs", num_calls,
                 [&] { return client.List({}).status(); }) &&
         Measure("ListWorkers", num_calls,
                 [&] { return client.ListWorkers().status(); }) &&
         Measure("GetMetrics", num_calls,
                 [&] { return client.GetMetrics(job).status(); }) &&
         Measure("GetTuning", num_calls,
                 [&] { return client.GetTuning(job).status(); }) &&
         Measure("UpdateTuning, checked", num_calls,
                 [&] { return update(true); }) &&
         Measure("UpdateTuning, in force", std::min(num_calls, 50),
                 [&] { return update(false); });
}

}  // namespace
}  // namespace deltapipe

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "usage: %s HOST:PORT JOB [CALLS]\n", argv[0]);
    return 2;
  }
  const int num_calls = argc > 3 ? std::atoi(argv[3]) : 1000;
  if (num_calls < 1) {
    std::fprintf(stderr, "expected a number of calls, got '%s'\n", argv[3]);
    return 2;
  }
  return deltapipe::MeasureAll(argv[1], argv[2], num_calls) ? 0 : 1;
}
