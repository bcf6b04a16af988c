// The slow scales of int(channel=slow): one per channel, by which a value is
// divided before its block is quantized, so that a few channels that are always
// large do not take the resolution from the others in their blocks.
//
// A scale is the root of the channel's mean square, rounded to an eighth of an
// octave (to within 4.5 %). In a payload of c channels:
//   u8      the octave t of the largest scale, plus 126
//   u8[c]   scale 2^(t - (255 - code) / 8); what is further below takes code 0
// and a channel of zeros code 0.
//
// Encoders that remember take running mean squares,
//   running = 0.9 * running + 0.1 * (what this tensor has)
// begun with a channel's first that is not 0. Not thread-safe.
#ifndef DELTAPIPE_COMPRESSION_CODECS_INT_CHANNELS_H_
#define DELTAPIPE_COMPRESSION_CODECS_INT_CHANNELS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {

inline int64_t IntChannelBytes(int64_t num_channels) {
  return 1 + num_channels;
}

class IntChannelScales {
 public:
  explicit IntChannelScales(int64_t num_channels);

  /// From the channels' mean squares of one tensor and from `memory`, which it
  /// updates; writes IntChannelBytes to `out`. What is in `memory` and was not
  /// left there for as many channels is taken for empty.
  void Update(absl::Span<const double> mean_squares, std::vector<float>* memory,
              uint8_t* out);

  /// Reads IntChannelBytes; any bytes do.
  void Read(const uint8_t* in);

  /// The scale of a channel; positive.
  double scale(int64_t channel) const { return (*scales_)[channel]; }
  double inverse(int64_t channel) const { return (*inverses_)[channel]; }

 private:
  ThreadScratch<double> scales_;
  ThreadScratch<double> inverses_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_INT_CHANNELS_H_
