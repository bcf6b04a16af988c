#include "compression/delta/delta_tiles.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/types/span.h"

namespace deltapipe {
namespace {

// Small: a tile is gone through again and again, with its values, records and
// random words, and larger ones were slower long before they filled a cache.
constexpr int64_t kTile = 256;
// Hardware that follows a stream stops while a tile is worked on.
constexpr int64_t kTilesAhead = 4;

// Of a row, for what is sent: a figure for people, which more would not change.
constexpr int64_t kProbed = int64_t{1} << 20;

// Asks for the tile of `count` elements from `at` on.
template <typename Element>
void Prefetch(const Element* elements, int64_t at, int64_t count,
              int64_t num_elements) {
  constexpr int64_t kLine = 64 / sizeof(Element);
  const int64_t end = std::min(at + count, num_elements);
  for (int64_t i = at; i < end; i += kLine) __builtin_prefetch(elements + i);
}

}  // namespace

DeltaTiles::DeltaTiles(const IntFormat& format, bool is_float32,
                       int64_t num_elements, Pays pays)
    : format_(format),
      is_float32_(is_float32),
      num_elements_(num_elements),
      pays_(std::move(pays)),
      tile_(std::max(kTile / format.block, int64_t{1}) * format.block) {}

template <typename Store>
bool DeltaTiles::PaysAsAWhole(const SquaredNorms& estimate, const float* value,
                              const Store* base) {
  const double error =
      kNormEstimateError * (estimate.difference + estimate.value);
  if (std::isfinite(error) && estimate.value >= num_elements_ * 0x1p-100) {
    const bool at_best =
        pays_({estimate.difference - error, estimate.value + error});
    const bool at_worst =
        pays_({estimate.difference + error, estimate.value - error});
    if (at_best == at_worst) return at_best;
  }
  const int64_t tile = static_cast<int64_t>(tile_.size());
  NormLanes lanes;
  for (int64_t begin = 0; begin < num_elements_; begin += tile) {
    SubtractRecordPart(value + begin, base + begin, tile_.data(),
                       std::min(tile, num_elements_ - begin), &lanes);
  }
  return pays_(lanes.Sum());
}

template <typename Store>
bool DeltaTiles::EncodeAs(const float* value, const Store* base,
                          const RandomKey& key, const Row& row) {
  const int64_t tile = static_cast<int64_t>(tile_.size());
  Store* const next = reinterpret_cast<Store*>(row.next->values.data());
  IntTileEncoder encoder(format_, num_elements_, key, row.payload);
  SquaredNorms estimate;
  NormLanes sent;
  for (bool is_first = true; is_first || !encoder.Finish(); is_first = false) {
    sent = NormLanes();
    for (int64_t begin = 0; begin < num_elements_; begin += tile) {
      const int64_t count = std::min(tile, num_elements_ - begin);
      Prefetch(value, begin + kTilesAhead * tile, tile, num_elements_);
      Prefetch(base, begin + kTilesAhead * tile, tile, num_elements_);
      if (is_first) {
        SubtractRecordAndEstimate(value + begin, base + begin, tile_.data(),
                                  count, &estimate);
        if (!pays_(estimate)) encoder.StopGuessing();
      } else {
        SubtractRecordOnly(value + begin, base + begin, tile_.data(), count);
      }
      if (!encoder.Encode(absl::MakeConstSpan(tile_).first(count),
                          tile_.data())) {
        continue;
      }
      AddToRecord(base + begin, tile_.data(), next + begin, count);
      if (row.sent == nullptr || begin >= kProbed) continue;
      SubtractRecordPart(value + begin, next + begin, tile_.data(), count,
                         &sent);
    }
    if (is_first) {
      // Of values one of which is NaN or infinite, the norm is, too.
      if (row.is_finite != nullptr) {
        *row.is_finite = std::isfinite(estimate.value);
      }
      if (!PaysAsAWhole(estimate, value, base)) return false;
    }
  }
  if (row.sent != nullptr) *row.sent = sent.Sum();
  return true;
}

bool DeltaTiles::Encode(const float* value, const Record& base,
                        const RandomKey& key, const Row& row) {
  return is_float32_ ? EncodeAs(value, base.elements<float>(), key, row)
                     : EncodeAs(value, base.elements<uint16_t>(), key, row);
}

}  // namespace deltapipe
