// A simulated step as a strip of characters per stage:
//
//   stage 0  FFFF....BBBBBBBB....
//   stage 1  ..FFBBBB..FFBBBB....
//            0 s         12.5 s
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_TIMELINE_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_TIMELINE_H_

#include <string>

#include "coordinator/schedule/simulate.h"

namespace deltapipe {

/// `simulation` was run with keep_spans. Each of `width` columns (at least 16)
/// shows what its stage does in the middle of that slice of time: F forward, B
/// backward, R reduce, A apply, '.' nothing. Lines end with '\n'.
std::string RenderTimeline(const Simulation& simulation, int width);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_RENDER_TIMELINE_H_
