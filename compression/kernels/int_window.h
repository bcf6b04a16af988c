// The window of an `int` payload for encoders that make a single pass: it hangs
// on all blocks, and is guessed before they are known.
//
// A guess costs nothing where it was wrong: of two windows that show the units
// of all blocks, both give each block the same unit, three magnitudes per
// octave apart (int_scale.h).
#ifndef DELTAPIPE_COMPRESSION_KERNELS_INT_WINDOW_H_
#define DELTAPIPE_COMPRESSION_KERNELS_INT_WINDOW_H_

#include <algorithm>
#include <array>
#include <cstdint>

#include "base/float_cast.h"
#include "compression/kernels/int_scale.h"

namespace deltapipe {

/// The largest magnitudes of the blocks so far, but for those of zeros and
/// those that are not finite.
struct IntBlockMaxima {
  /// `bits`: those of a block's largest magnitude.
  void Add(uint32_t bits) {
    if (bits == 0 || bits >= 0x7F800000u) return;
    ++fields[bits >> 23];
    least = std::min(least, bits);
    largest = std::max(largest, bits);
  }

  std::array<uint32_t, 255> fields{};  // how many, by exponent field
  uint32_t least = 0x7F7FFFFFu;
  uint32_t largest = 0;
};

/// The payload's window: that of the largest and of the (lower) median maximum.
inline int ChooseIntWindow(const IntFormat& format,
                           const IntBlockMaxima& maxima) {
  int64_t total = 0;
  for (const uint32_t count : maxima.fields) total += count;
  if (total == 0) return 0;
  int median = 0;
  for (int64_t seen = maxima.fields[0]; 2 * seen < total;) {
    seen += maxima.fields[++median];
  }
  return IntWindow(format, static_cast<int>(maxima.largest >> 23), median);
}

/// The window to begin with, from the maxima of a few blocks: with room for
/// larger and for smaller ones.
inline int GuessIntWindow(const IntFormat& format,
                          const IntBlockMaxima& maxima) {
  constexpr int kOctavesAbove = 8;
  return std::min(ChooseIntWindow(format, maxima) + kOctavesAbove,
                  kIntMaxWindow);
}

/// Whether a block's units hang on its largest magnitude alone, so that
/// ShowsAllUnits can tell.
inline bool CanGuessIntWindow(const IntFormat& format) {
  return !format.searches_clip ||
         (format.bits >= 3 && format.model == IntClipModel::kNone);
}

/// Whether all units that are tried for blocks of these maxima are among the
/// fine magnitudes of `window`, and not its last. Only if CanGuessIntWindow.
inline bool ShowsAllUnits(const IntFormat& format, int window,
                          const IntBlockMaxima& maxima) {
  if (maxima.largest == 0) return true;
  // As ListIntScales has it.
  const int half_range = 1 << (format.bits - 1);
  const int levels = format.searches_clip ? half_range
                     : format.bits <= 2   ? 2 * half_range - 1
                                          : half_range - 1;
  const int num_tried = !format.searches_clip ? 1 : format.bits == 3 ? 3 : 2;
  const auto magnitude = [&](uint32_t bits) {
    return IntCeilMagnitude(window,
                            BitsToFloat(bits) / static_cast<float>(levels));
  };
  const int lowest = magnitude(maxima.least) - num_tried;
  return lowest >= 1 && magnitude(maxima.least) <= kIntFineMagnitudes &&
         magnitude(maxima.largest) <= kIntFineMagnitudes;
}

/// The scale codes of one window, as of another that shows all their units.
inline void MoveIntScales(int from_window, int to_window, uint8_t* scales,
                          int64_t count) {
  const int shift = 3 * (from_window - to_window);
  for (int64_t i = 0; i < count; ++i) {
    const int magnitude = scales[i] & kIntScaleMagnitude;
    const bool has_unit =
        magnitude != kIntScaleZero && magnitude != kIntScaleNonFinite;
    scales[i] = static_cast<uint8_t>(scales[i] + (has_unit ? shift : 0));
  }
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_KERNELS_INT_WINDOW_H_
