#include "compression/delta/delta_tiles.h"

#include <algorithm>

#include "absl/types/span.h"

namespace deltapipe {
namespace {

// With its values and records, and with the next ones, half of a first-level
// cache of 32 KiB.
constexpr int64_t kTile = 1024;

// Asks for the tile of `count` elements from `at` on, while another one is
// worked on: hardware that follows a stream is late at the start of each tile.
template <typename Element>
void Prefetch(const Element* elements, int64_t at, int64_t count,
              int64_t num_elements) {
  constexpr int64_t kLine = 64 / sizeof(Element);
  const int64_t end = std::min(at + count, num_elements);
  for (int64_t i = at; i < end; i += kLine) __builtin_prefetch(elements + i);
}

template <typename Store>
Store* Mutable(Record* record) {
  return reinterpret_cast<Store*>(record->values.data());
}

}  // namespace

DeltaTiles::DeltaTiles(const IntFormat& format, bool is_float32,
                       int64_t num_elements)
    : format_(format),
      is_float32_(is_float32),
      num_elements_(num_elements),
      tile_(std::max(kTile / format.block, int64_t{1}) * format.block) {}

template <typename Store>
SquaredNorms DeltaTiles::MeasureAs(const float* value, const Store* base) {
  const int64_t tile = static_cast<int64_t>(tile_.size());
  NormLanes lanes;
  for (int64_t begin = 0; begin < num_elements_; begin += tile) {
    const int64_t count = std::min(tile, num_elements_ - begin);
    Prefetch(value, begin + tile, tile, num_elements_);
    Prefetch(base, begin + tile, tile, num_elements_);
    SubtractRecordPart(value + begin, base + begin, tile_.data(), count,
                       &lanes);
    encoder_->Measure(absl::MakeConstSpan(tile_).first(count));
  }
  return lanes.Sum();
}

template <typename Store>
void DeltaTiles::EncodeAs(const float* value, const Store* base, Store* next,
                          SquaredNorms* sent) {
  const int64_t tile = static_cast<int64_t>(tile_.size());
  NormLanes lanes;
  for (int64_t begin = 0; begin < num_elements_; begin += tile) {
    const int64_t count = std::min(tile, num_elements_ - begin);
    Prefetch(value, begin + tile, tile, num_elements_);
    Prefetch(base, begin + tile, tile, num_elements_);
    SubtractRecordOnly(value + begin, base + begin, tile_.data(), count);
    encoder_->Encode(absl::MakeConstSpan(tile_).first(count), tile_.data());
    AddToRecord(base + begin, tile_.data(), next + begin, count);
    if (sent == nullptr) continue;
    SubtractRecordPart(value + begin, next + begin, tile_.data(), count,
                       &lanes);
  }
  if (sent != nullptr) *sent = lanes.Sum();
}

SquaredNorms DeltaTiles::Measure(const float* value, const Record& base,
                                 const RandomKey& key, uint8_t* payload) {
  encoder_.emplace(format_, num_elements_, key, payload);
  return is_float32_ ? MeasureAs(value, base.elements<float>())
                     : MeasureAs(value, base.elements<uint16_t>());
}

void DeltaTiles::Encode(const float* value, const Record& base, Record* next,
                        SquaredNorms* sent) {
  is_float32_
      ? EncodeAs(value, base.elements<float>(), Mutable<float>(next), sent)
      : EncodeAs(value, base.elements<uint16_t>(), Mutable<uint16_t>(next),
                 sent);
}

}  // namespace deltapipe
