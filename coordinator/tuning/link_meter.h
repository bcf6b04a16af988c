// LinkMeter: what each direction of each boundary sent lately, from the
// workers' reports, whose counters run since the start of the assignment.
//
// Fed by the job's actor; not thread-safe.
//
//   meter.Add(rank, report);             // each StepReport
//   for (const LinkSample& link : meter.Take()) ...
#ifndef DELTAPIPE_COORDINATOR_TUNING_LINK_METER_H_
#define DELTAPIPE_COORDINATOR_TUNING_LINK_METER_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

/// One direction of a boundary, over the steps of a window.
struct LinkSample {
  int boundary = 0;
  bool is_gradient = false;
  std::string codec;
  int64_t steps = 0;
  /// Of all replicas together.
  double wire_bytes_per_step = 0;
  /// Of the slowest replica's link while it sends; 0 if it took no time.
  double bits_per_second = 0;
  /// ||Q(x) - x|| / ||x||; 0: not known.
  double relative_error = 0;
};

class LinkMeter {
 public:
  /// Steps within which a direction changed its codec are left out.
  void Add(int rank, const v1::StepReport& report);

  /// What was added since the last call, by boundary, activations first.
  /// Directions of which a replica has not reported yet wait for it:
  /// `num_replicas` of them make one.
  std::vector<LinkSample> Take(int num_replicas);

  /// Forgets everything: counters begin again with a new assignment.
  void Clear();

 private:
  struct Counters {
    std::string codec;
    int64_t wire_bytes = 0;
    double send_seconds = 0;
  };
  struct Window {
    std::string codec;
    int64_t steps = 0;
    int64_t wire_bytes = 0;
    double send_seconds = 0;
    double relative_error = 0;
  };
  using Direction = std::pair<int, bool>;

  /// By direction, then rank.
  std::map<Direction, std::map<int, Counters>> last_;
  std::map<Direction, std::map<int, Window>> windows_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_LINK_METER_H_
