#include "compression/codecs/int_channels.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "base/float_cast.h"

namespace deltapipe {
namespace {

// What memory of this codec begins with.
constexpr float kMemoryTag = 7361.0f;
constexpr size_t kMemoryHead = 2;  // the tag, the number of channels
constexpr double kDecay = 0.9;
constexpr int kLowestOctave = -126;

// 2^(i / 8).
constexpr double kEighths[8] = {1.0,
                                1.0905077326652577,
                                1.189207115002721,
                                1.2968395546510096,
                                1.4142135623730951,
                                1.5422108254079407,
                                1.681792830507429,
                                1.8340080864093424};

// 2^((2 i + 1) / 16): where the nearest eighth changes.
constexpr double kMiddles[8] = {1.0442737824274138, 1.1387886347566916,
                                1.241857812073484,  1.3542555469368927,
                                1.4768261459394993, 1.6104903319492543,
                                1.7562521603732995, 1.9152065613971474};

// The nearest number of eighths of an octave to log2(value); value > 0.
int NearestEighth(double value) {
  const float narrow = static_cast<float>(
      std::min(std::max(value, double{FLT_MIN}), double{FLT_MAX}));
  const uint32_t bits = FloatBits(narrow);
  const int exponent = static_cast<int>(bits >> 23) - 127;
  const double mantissa = BitsToFloat((bits & 0x7FFFFFu) | 0x3F800000u);
  int eighth = 8 * exponent;
  for (const double middle : kMiddles) eighth += mantissa >= middle ? 1 : 0;
  return eighth;
}

bool IsOurs(const std::vector<float>& memory, size_t num_channels) {
  return memory.size() == kMemoryHead + num_channels &&
         memory[0] == kMemoryTag &&
         memory[1] == static_cast<float>(num_channels) &&
         std::all_of(memory.begin(), memory.end(),
                     [](float x) { return x >= 0 && x <= FLT_MAX; });
}

}  // namespace

IntChannelScales::IntChannelScales(int64_t num_channels) {
  scales_->assign(num_channels, 1.0);
  inverses_->assign(num_channels, 1.0);
}

void IntChannelScales::Update(absl::Span<const double> mean_squares,
                              std::vector<float>* memory, uint8_t* out) {
  const size_t num_channels = scales_->size();
  if (!IsOurs(*memory, num_channels)) {
    memory->assign(kMemoryHead + num_channels, 0.0f);
    (*memory)[0] = kMemoryTag;
    (*memory)[1] = static_cast<float>(num_channels);
  }
  // The memory holds roots, which fit into floats.
  float* const roots = memory->data() + kMemoryHead;
  int largest = 8 * kLowestOctave;
  for (size_t c = 0; c < num_channels; ++c) {
    const double running = double{roots[c]} * roots[c];
    const double next = running == 0
                            ? mean_squares[c]
                            : kDecay * running + (1 - kDecay) * mean_squares[c];
    roots[c] = static_cast<float>(std::min(std::sqrt(next), double{FLT_MAX}));
    if (roots[c] > 0) largest = std::max(largest, NearestEighth(roots[c]));
  }
  const int top = (largest - 8 * kLowestOctave + 7) / 8;
  out[0] = static_cast<uint8_t>(top);
  for (size_t c = 0; c < num_channels; ++c) {
    const int code =
        roots[c] > 0
            ? 255 - (8 * (top + kLowestOctave) - NearestEighth(roots[c]))
            : 0;
    out[1 + c] = static_cast<uint8_t>(std::max(code, 0));
  }
  Read(out);
}

void IntChannelScales::Read(const uint8_t* in) {
  for (size_t c = 0; c < scales_->size(); ++c) {
    // Eighths above 2^-160, which is below the least scale.
    const int eighths = 8 * (in[0] + kLowestOctave + 160) - (255 - in[1 + c]);
    (*scales_)[c] = std::ldexp(kEighths[eighths % 8], eighths / 8 - 160);
    (*inverses_)[c] = 1 / (*scales_)[c];
  }
}

}  // namespace deltapipe
