// A job that never was, told to a MetricSink: for tests, and to look at the
// status page without training anything.
#ifndef DELTAPIPE_COORDINATOR_METRICS_TESTING_DEMO_JOB_H_
#define DELTAPIPE_COORDINATOR_METRICS_TESTING_DEMO_JOB_H_

#include <cstdint>
#include <string>
#include <vector>

#include "coordinator/background/metric_sink.h"

namespace deltapipe {

class DemoJob {
 public:
  /// `sink` outlives this.
  DemoJob(std::string id, int stages, int replicas, MetricSink* sink);

  /// A new generation, at the last checkpoint.
  void Start();
  /// One step of all workers, `seconds` long; the worker of the last stage's
  /// last replica takes `slowness` times as long to compute as the others.
  void Step(double seconds, double slowness = 1);
  /// That worker is found to be a straggler, and from here on the first replica
  /// leaves out one of its 4 micro-batches in each step.
  void FindStraggler();
  /// All workers pack what they save for backward passes from here on.
  void PackActivations() { packs_ = true; }
  void Checkpoint();
  /// Damaged and missing frames, of the last worker alone, from here on.
  void DamageFrames() { damages_frames_ = true; }
  void Change(v1::JobState state, const std::string& reason);
  void Restart();

  const v1::Job& job() const { return job_; }
  /// Those that a store would have.
  const std::vector<v1::JobEvent>& events() const { return events_; }

 private:
  v1::StepReport Report(int stage, int replica, double seconds,
                        double compute) const;
  void AddEvent(const std::string& kind, const std::string& text);

  const int stages_;
  const int replicas_;
  MetricSink* const sink_;
  v1::Job job_;
  v1::Plan plan_;
  std::vector<v1::JobEvent> events_;
  bool leaves_out_ = false;
  bool packs_ = false;
  bool damages_frames_ = false;
  int64_t step_ = 0;              // done
  int64_t generation_steps_ = 0;  // done in this generation
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_TESTING_DEMO_JOB_H_
