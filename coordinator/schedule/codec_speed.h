// How long codecs take, for predictions: assumed rates of one core, not
// measurements of the machine at hand.
//
// Encodes and decodes run beside compute, on threads of their own; a prediction
// needs only their order of magnitude, as a part of the round trip. The rates
// are cautious; `deltapipe lab codec` measures real ones.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_CODEC_SPEED_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_CODEC_SPEED_H_

#include <string>

namespace deltapipe {

struct CodecSeconds {
  double encode = 0;
  double decode = 0;
};

/// For `elements` fp32 values through the boundary codec `codec`.
CodecSeconds PredictCodecSeconds(const std::string& codec, double elements);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_CODEC_SPEED_H_
