// Timings for tests: uniform ones, and a source of noisy ones with injected
// stragglers, deterministic by seed.
#ifndef DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TIMINGS_H_
#define DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TIMINGS_H_

#include <cmath>
#include <random>
#include <vector>

#include "coordinator/stragglers/op_timings.h"

namespace deltapipe {

struct ComputeSeconds {
  double forward = 1;
  double backward = 2;
};

inline StepTimings EmptyTimings(int num_stages, int num_replicas,
                                int num_microbatches) {
  StepTimings step;
  step.num_stages = num_stages;
  step.num_replicas = num_replicas;
  step.workers.resize(static_cast<size_t>(num_stages) * num_replicas);
  for (WorkerTimings& worker : step.workers) {
    worker.forward_seconds.assign(num_microbatches, 0);
    worker.backward_seconds.assign(num_microbatches, 0);
  }
  return step;
}

inline StepTimings UniformTimings(int num_stages, int num_replicas,
                                  int num_microbatches,
                                  const ComputeSeconds& compute) {
  StepTimings step = EmptyTimings(num_stages, num_replicas, num_microbatches);
  for (WorkerTimings& worker : step.workers) {
    worker.forward_seconds.assign(num_microbatches, compute.forward);
    worker.backward_seconds.assign(num_microbatches, compute.backward);
  }
  return step;
}

struct NoisyJob {
  int num_stages = 4;
  int num_replicas = 4;
  int num_microbatches = 16;
  /// Of every duration: lognormal with mean 1 and this spread of its logarithm.
  double jitter = 0.1;
  ComputeSeconds compute = {0.004, 0.008};
  double send_seconds = 0.003;
  double load_seconds = 0.0005;
};

/// Steps of a job; what is slowed stays so until Heal.
class TimingsSource {
 public:
  TimingsSource(const NoisyJob& job, unsigned seed)
      : job_(job), random_(seed), jitter_(0, 1) {
    Heal();
  }

  void Heal() {
    const size_t size =
        static_cast<size_t>(job_.num_stages) * job_.num_replicas;
    compute_.assign(size, 1);
    send_.assign(size, 1);
    extra_load_.assign(size, 0);
    sequence_spread_ = 0;
  }
  void SlowCompute(int stage, int replica, double times) {
    compute_[Rank(stage, replica)] = times;
  }
  /// What the worker sends takes so many times as long.
  void SlowLink(int stage, int replica, double times) {
    send_[Rank(stage, replica)] = times;
  }
  /// Loading takes longer by a share of the compute.
  void SlowInput(int stage, int replica, double share) {
    extra_load_[Rank(stage, replica)] =
        share * (job_.compute.forward + job_.compute.backward);
  }
  /// Micro-batches differ in length, and all stages of a replica feel it.
  void set_sequence_spread(double spread) { sequence_spread_ = spread; }

  StepTimings Step(int64_t step) {
    const int count = job_.num_microbatches;
    StepTimings timings =
        EmptyTimings(job_.num_stages, job_.num_replicas, count);
    timings.step = step;
    for (int replica = 0; replica < job_.num_replicas; ++replica) {
      std::vector<double> lengths(count, 1);
      for (double& length : lengths) length = Noise(sequence_spread_);
      for (int stage = 0; stage < job_.num_stages; ++stage) {
        WorkerTimings& worker = timings.At(stage, replica);
        const size_t rank = Rank(stage, replica);
        for (int m = 0; m < count; ++m) {
          const double factor = compute_[rank] * lengths[m];
          worker.forward_seconds[m] =
              job_.compute.forward * factor * Noise(job_.jitter);
          worker.backward_seconds[m] =
              job_.compute.backward * factor * Noise(job_.jitter);
          if (stage + 1 < job_.num_stages) {
            worker.activation_send_seconds.push_back(
                job_.send_seconds * send_[rank] * Noise(job_.jitter));
          }
          if (stage > 0) {
            worker.gradient_send_seconds.push_back(
                job_.send_seconds * send_[rank] * Noise(job_.jitter));
          }
          worker.load_seconds.push_back(
              (job_.load_seconds + extra_load_[rank]) * Noise(job_.jitter));
        }
      }
    }
    return timings;
  }

 private:
  size_t Rank(int stage, int replica) const {
    return static_cast<size_t>(stage) * job_.num_replicas + replica;
  }
  double Noise(double spread) {
    return std::exp(spread * jitter_(random_) - spread * spread / 2);
  }

  const NoisyJob job_;
  std::mt19937_64 random_;
  std::normal_distribution<double> jitter_;
  std::vector<double> compute_;
  std::vector<double> send_;
  std::vector<double> extra_load_;
  double sequence_spread_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STRAGGLERS_TESTING_TIMINGS_H_
