#include "worker/stage/operators/dropout_draw.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/checksum.h"
#include "base/philox.h"
#include "compression/kernels/philox_words.h"

namespace deltapipe {
namespace {

// Of RandomKey: messages, gradients and saved tensors have 0 to 3.
constexpr uint32_t kDirection = 4;
constexpr double kDraws = 65536;

// A block of random words decides about twice as many elements: the low halves
// of its words about the first ones, the high halves about the others.
constexpr size_t kWords = 64;
constexpr uint32_t kCountersPerBlock = 16;

thread_local std::shared_ptr<const DropoutDraw> current_draw;

RandomKey KeyOf(const DropoutDraw& draw, absl::string_view place,
                uint64_t sample_key) {
  RandomKey key;
  key.seed = draw.seed;
  // Samples differ in `slot`, and where they do not in the rest of their key.
  key.tensor_id = static_cast<uint32_t>(
      Checksum({reinterpret_cast<const uint8_t*>(place.data()), place.size()},
               /*seed=*/sample_key >> 32));
  key.step = static_cast<uint32_t>(draw.step);
  key.slot = static_cast<uint32_t>(sample_key);
  key.direction = kDirection;
  return key;
}

}  // namespace

uint32_t DropoutDraw::threshold() const {
  return static_cast<uint32_t>(std::lround(share * kDraws));
}

float DropoutDraw::scale() const {
  return static_cast<float>(kDraws / (kDraws - threshold()));
}

void DropSample(const DropoutDraw& draw, absl::string_view place, size_t sample,
                absl::Span<const float> in, absl::Span<float> out) {
  const RandomKey key = KeyOf(draw, place, draw.sample_keys[sample]);
  const uint32_t threshold = draw.threshold();
  const float scale = draw.scale();
  alignas(64) uint32_t words[kWords];
  uint32_t counter = 0;
  for (size_t begin = 0; begin < in.size(); begin += kWords) {
    const bool is_low = begin % (2 * kWords) == 0;
    if (is_low) {
      FillPhiloxWords(key, counter, words);
      counter += kCountersPerBlock;
    }
    const uint32_t shift = is_low ? 0 : 16;
    const size_t count = std::min(kWords, in.size() - begin);
    const float* const from = in.data() + begin;
    float* const to = out.data() + begin;
    for (size_t i = 0; i < count; ++i) {
      const uint32_t drawn = words[i] >> shift & 0xFFFFu;
      to[i] = from[i] * (drawn < threshold ? 0.0f : scale);
    }
  }
}

DropoutScope::DropoutScope(std::shared_ptr<const DropoutDraw> draw)
    : outer_(std::exchange(current_draw, std::move(draw))) {}
DropoutScope::~DropoutScope() { current_draw = std::move(outer_); }

std::shared_ptr<const DropoutDraw> DropoutScope::Current() {
  if (current_draw == nullptr || current_draw->threshold() == 0) return nullptr;
  return current_draw;
}

}  // namespace deltapipe
