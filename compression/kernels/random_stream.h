// Independent random streams of one encoding.
//
// A codec that draws more than once for an element, or that hands its input on
// to another codec, gives each use a stream of its own. Streams are the upper
// byte of RandomKey::direction, whose values are small.
#ifndef DELTAPIPE_COMPRESSION_KERNELS_RANDOM_STREAM_H_
#define DELTAPIPE_COMPRESSION_KERNELS_RANDOM_STREAM_H_

#include <cstdint>

#include "base/philox.h"

namespace deltapipe {

/// What a codec gives to the codec that it takes as a parameter; kernels use
/// the streams below it.
constexpr uint32_t kNestedCodecStream = 128;

/// The key of stream `stream` (below 256) of `key`; stream 0 is `key` itself.
inline RandomKey StreamKey(RandomKey key, uint32_t stream) {
  key.direction ^= stream << 24;
  return key;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_RANDOM_STREAM_H_
