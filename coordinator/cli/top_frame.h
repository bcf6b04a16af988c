// One picture of a running job for `deltapipe top`: job line, pipeline strip,
// links, stragglers, events. Plain text, pure.
#ifndef DELTAPIPE_COORDINATOR_CLI_TOP_FRAME_H_
#define DELTAPIPE_COORDINATOR_CLI_TOP_FRAME_H_

#include <string>

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

struct TopSize {
  int columns = 80;
  /// Lines; 0: as many as there are.
  int rows = 0;
};

/// Lines of at most size.columns characters; the least important ones are left
/// out where there are too many.
std::string TopFrame(const v1::JobMetrics& metrics, const TopSize& size);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_TOP_FRAME_H_
