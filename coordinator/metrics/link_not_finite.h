// How many NaNs and infinities a link has sent: a series of its own beside
// JobMetrics, whose links have no field for it.
#ifndef DELTAPIPE_COORDINATOR_METRICS_LINK_NOT_FINITE_H_
#define DELTAPIPE_COORDINATOR_METRICS_LINK_NOT_FINITE_H_

#include <cstdint>
#include <string>

namespace deltapipe {

/// What one replica sent over a boundary in one direction.
struct LinkNotFinite {
  std::string job_id;
  int boundary = 0;
  bool is_gradient = false;
  int replica = 0;
  /// Since the start, all generations together; above 0.
  int64_t values = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_LINK_NOT_FINITE_H_
