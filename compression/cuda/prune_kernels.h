// The kernels of `prune`: payloads of codecs/prune.h, equal to those of the
// host in every bit where the threshold is (prune_threshold_kernels.h). What is
// above the threshold goes through the kernels of another codec.
//
// Kept values are numbered by tiles: each tile counts its own, one half warp
// adds up, and tiles then know where theirs begin. The rare codec of a size
// that varies, it is written plainly, not for speed.
#ifndef DELTAPIPE_COMPRESSION_CUDA_PRUNE_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_PRUNE_KERNELS_H_

#include <cfloat>
#include <cmath>
#include <cstdint>
#include <cstring>

#include "base/host_device.h"
#include "compression/cuda/code_stream.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/cuda/narrow_kernels.h"
#include "compression/cuda/prune_threshold_kernels.h"
#include "compression/cuda/random_words.h"
#include "compression/kernels/largest_magnitude.h"
#include "compression/kernels/minifloat_quantize.h"

namespace deltapipe {
namespace cuda {

/// The codec of what is above the threshold.
struct PruneValues {
  bool is_minifloat = true;
  MinifloatFormat minifloat;
  PlainFloat plain = PlainFloat::kFloat32;

  DP_HOST_DEVICE int64_t PayloadBytes(int64_t count) const {
    return is_minifloat ? MinifloatPayloadBytes(minifloat, count)
                        : count * PlainFloatBytes(plain);
  }
};

DP_HOST_DEVICE inline int64_t PruneMapEnd(int64_t count) {
  return 4 + (count + 7) / 8;
}

/// A body whose number of values and place in the payload were found on the
/// device.
template <class Body>
struct Placed {
  Body body;
  const PruneState* state;

  DP_HOST_DEVICE void operator()(int64_t index, HalfWarpMemory* memory) const {
    if (state->is_bad != 0) return;
    Body placed = body;
    placed.message.count = state->num_large;
    placed.payload += state->values_begin;
    placed(index, memory);
  }
};

/// How many values of a tile are kept, and how many of these are above the
/// threshold; then of all tiles before it.
struct TileCounts {
  int64_t kept;
  int64_t large;
};

/// What becomes of each value.
struct PruneRule {
  EncodeMessage message;
  RandomWords random;

  struct Four {
    bool is_kept[4];
    bool is_large[4];
  };

  DP_HOST_DEVICE Four Of(int64_t group, int lane, float threshold) const {
    const FourWords words =
        random.Block(static_cast<uint32_t>(group) * 16 + lane);
    Four four;
    for (int j = 0; j < 4; ++j) {
      const int64_t i = group * 64 + 16 * j + lane;
      const float magnitude = std::fabs(message.Input(i));
      const bool is_small = magnitude < threshold;
      const float level = UniformOf(words.word[j]) * threshold;
      const bool is_kept = is_small ? level < magnitude : magnitude != 0;
      four.is_kept[j] = i < message.count && is_kept;
      four.is_large[j] = four.is_kept[j] && !is_small;
    }
    return four;
  }
};

/// Half warp `tile` counts its kPruneRun values.
struct PruneCount {
  PruneRule rule;
  const PruneState* state;
  TileCounts* tiles;

  DP_HOST_DEVICE void operator()(int64_t tile,
                                 HalfWarpMemory* /*memory*/) const {
    const float threshold = state->threshold;
    Lanes<uint32_t> kept, large;
    EachLane([&](int lane) {
      kept[lane] = large[lane] = 0;
      for (int64_t part = 0; part < kPruneRun / 64; ++part) {
        const int64_t group = tile * (kPruneRun / 64) + part;
        if (group * 64 >= rule.message.count) break;
        const PruneRule::Four four = rule.Of(group, lane, threshold);
        for (int j = 0; j < 4; ++j) {
          kept[lane] += four.is_kept[j];
          large[lane] += four.is_large[j];
        }
      }
    });
    const uint32_t kept_sum = SumOf(kept), large_sum = SumOf(large);
    EachLane([&](int lane) {
      if (lane == 0) tiles[tile] = {kept_sum, large_sum};
    });
  }
};

/// Replaces each tile's counts by those of the tiles before it; returns the
/// totals.
DP_HOST_DEVICE inline TileCounts AddUpTiles(int64_t num_tiles,
                                            TileCounts* tiles) {
  const int64_t per_lane = (num_tiles + kLanes - 1) / kLanes;
  Lanes<int64_t> kept, large;
  EachLane([&](int lane) {
    kept[lane] = large[lane] = 0;
    const int64_t end = SmallerOf((lane + 1) * per_lane, num_tiles);
    for (int64_t tile = lane * per_lane; tile < end; ++tile) {
      kept[lane] += tiles[tile].kept;
      large[lane] += tiles[tile].large;
    }
  });
  TileCounts total{0, 0};
  for (int owner = 0; owner < kLanes; ++owner) {
    const TileCounts of_owner{ValueOf(kept, owner), ValueOf(large, owner)};
    EachLane([&](int lane) {
      if (lane != owner) return;
      TileCounts before = total;
      const int64_t end = SmallerOf((lane + 1) * per_lane, num_tiles);
      for (int64_t tile = lane * per_lane; tile < end; ++tile) {
        const TileCounts own = tiles[tile];
        tiles[tile] = before;
        before.kept += own.kept;
        before.large += own.large;
      }
    });
    total.kept += of_owner.kept;
    total.large += of_owner.large;
  }
  return total;
}

/// Adds up the tiles and writes the threshold.
struct PruneConclude {
  EncodeMessage message;
  Turn turn;
  PruneValues values;
  int64_t num_tiles;
  TileCounts* tiles;
  PruneState* state;
  uint8_t* payload;
  EncodeOutcome* outcome;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    const TileCounts total = AddUpTiles(num_tiles, tiles);
    const int64_t values_begin =
        PruneMapEnd(message.count) + (2 * total.kept + 7) / 8;
    EachLane([&](int lane) {
      if (lane != 0) return;
      state->num_kept = total.kept;
      state->num_large = total.large;
      state->values_begin = values_begin;
      if (!turn.IsMine()) return;
      const float threshold = state->threshold;
      std::memcpy(payload, &threshold, sizeof(threshold));
      if (outcome == nullptr) return;
      outcome->payload_bytes = values_begin + values.PayloadBytes(total.large);
      outcome->is_delta = message.prediction == Prediction::kRecord;
    });
  }
};

/// The places of kept values in a group of 64: from ballots of 16.
struct GroupRanks {
  uint32_t votes[4];

  DP_HOST_DEVICE int64_t Before(int j, int lane) const {
    int64_t before = CountOnes(votes[j] & ((1u << lane) - 1));
    for (int k = 0; k < j; ++k) before += CountOnes(votes[k]);
    return before;
  }
  DP_HOST_DEVICE int64_t All() const {
    int64_t all = 0;
    for (int k = 0; k < 4; ++k) all += CountOnes(votes[k]);
    return all;
  }
};

/// Half warp `tile` writes its part of the map and, to scratch memory, a mark
/// per kept value and the excesses over the threshold.
struct PruneWrite {
  PruneRule rule;
  Turn turn;
  const PruneState* state;
  const TileCounts* tiles;
  uint8_t* payload;
  uint8_t* marks;
  float* excesses;

  DP_HOST_DEVICE void operator()(int64_t tile,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    const float threshold = state->threshold;
    const int64_t count = rule.message.count;
    TileCounts before = tiles[tile];
    for (int64_t part = 0; part < kPruneRun / 64; ++part) {
      const int64_t group = tile * (kPruneRun / 64) + part;
      if (group * 64 >= count) break;
      Lanes<PruneRule::Four> fours;
      EachLane(
          [&](int lane) { fours[lane] = rule.Of(group, lane, threshold); });
      GroupRanks kept, large;
      for (int j = 0; j < 4; ++j) {
        Lanes<bool> is_kept, is_large;
        EachLane([&](int lane) {
          is_kept[lane] = fours[lane].is_kept[j];
          is_large[lane] = fours[lane].is_large[j];
        });
        kept.votes[j] = Ballot(is_kept);
        large.votes[j] = Ballot(is_large);
      }
      EachLane([&](int lane) {
        const int64_t byte = group * 8 + lane;
        if (lane < 8 && byte * 8 < count) {
          payload[4 + byte] =
              static_cast<uint8_t>(kept.votes[lane / 2] >> (lane % 2 * 8));
        }
        for (int j = 0; j < 4; ++j) {
          if (!fours[lane].is_kept[j]) continue;
          const float input = rule.message.Input(group * 64 + 16 * j + lane);
          const bool is_large = fours[lane].is_large[j];
          marks[before.kept + kept.Before(j, lane)] = static_cast<uint8_t>(
              FloatBits(input) >> 31 | static_cast<uint32_t>(is_large) << 1);
          if (is_large) {
            excesses[before.large + large.Before(j, lane)] =
                std::fabs(input) - threshold;
          }
        }
      });
      before.kept += kept.All();
      before.large += large.All();
    }
  }
};

/// Half warp `index` packs 64 marks to 16 bytes.
struct PrunePackMarks {
  Turn turn;
  int64_t count;
  const PruneState* state;
  const uint8_t* marks;
  uint8_t* payload;

  DP_HOST_DEVICE void operator()(int64_t index,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    uint8_t* const out = payload + PruneMapEnd(count);
    EachLane([&](int lane) {
      const int64_t byte = index * 16 + lane;
      if (byte * 4 >= state->num_kept) return;
      uint32_t bits = 0;
      for (int k = 0; k < 4; ++k) {
        const int64_t rank = byte * 4 + k;
        if (rank < state->num_kept) {
          bits |= static_cast<uint32_t>(marks[rank]) << (2 * k);
        }
      }
      out[byte] = static_cast<uint8_t>(bits);
    });
  }
};

/// Reads what PruneWrite and PrunePackMarks wrote.
struct PruneReader {
  int64_t count;
  const uint8_t* payload;

  DP_HOST_DEVICE bool IsKept(int64_t i) const {
    return i < count && (payload[4 + i / 8] >> (i % 8) & 1) != 0;
  }
  DP_HOST_DEVICE uint32_t Mark(int64_t rank) const {
    return payload[PruneMapEnd(count) + rank / 4] >> (rank % 4 * 2) & 3;
  }
  DP_HOST_DEVICE float Threshold() const {
    float threshold;
    std::memcpy(&threshold, payload, sizeof(threshold));
    return threshold;
  }
};

/// Half warp `tile` counts what a payload keeps of its values.
struct PruneCountKept {
  PruneReader reader;
  TileCounts* tiles;

  DP_HOST_DEVICE void operator()(int64_t tile,
                                 HalfWarpMemory* /*memory*/) const {
    Lanes<uint32_t> kept;
    EachLane([&](int lane) {
      kept[lane] = 0;
      const int64_t end = SmallerOf((tile + 1) * kPruneRun, reader.count);
      for (int64_t i = tile * kPruneRun + lane; i < end; i += kLanes) {
        kept[lane] += reader.IsKept(i);
      }
    });
    const uint32_t sum = SumOf(kept);
    EachLane([&](int lane) {
      if (lane == 0) tiles[tile] = {sum, 0};
    });
  }
};

/// Half warp `tile` adds how many of its kept values are above the threshold;
/// `tiles` then holds counts again, and no sums.
struct PruneCountLarge {
  PruneReader reader;
  int64_t num_tiles;
  const PruneState* state;
  const TileCounts* kept_before;
  TileCounts* tiles;

  DP_HOST_DEVICE void operator()(int64_t tile,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t begin = kept_before[tile].kept;
    const int64_t end =
        tile + 1 < num_tiles ? kept_before[tile + 1].kept : state->num_kept;
    Lanes<uint32_t> large;
    EachLane([&](int lane) {
      large[lane] = 0;
      if (state->is_bad != 0) return;
      for (int64_t rank = begin + lane; rank < end; rank += kLanes) {
        large[lane] += reader.Mark(rank) >> 1;
      }
    });
    const uint32_t sum = SumOf(large);
    EachLane([&](int lane) {
      if (lane == 0) tiles[tile] = {end - begin, sum};
    });
  }
};

/// Adds up tiles, first those of kept values and then of large ones, and checks
/// what is known by then.
struct PruneCheckPayload {
  PruneReader reader;
  PruneValues values;
  bool is_second;
  int64_t size;
  int64_t num_tiles;
  TileCounts* tiles;
  PruneState* state;
  uint32_t* problem;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    const TileCounts total = AddUpTiles(num_tiles, tiles);
    EachLane([&](int lane) {
      if (lane != 0) return;
      const uint32_t found = is_second ? CheckSize(total) : CheckKept(total);
      if (found == 0) return;
      state->is_bad = 1;
      AtomicOr(problem, found);
    });
  }

 private:
  DP_HOST_DEVICE uint32_t CheckKept(const TileCounts& total) const {
    state->num_kept = total.kept;
    state->values_begin = PruneMapEnd(reader.count) + (2 * total.kept + 7) / 8;
    if (state->values_begin > size) return kImpossibleSize;
    const uint32_t threshold = FloatBits(reader.Threshold());
    uint32_t found = threshold >= kInfinityBits ? kImpossibleScale : 0u;
    if (!UnusedBitsAreZero(reader.payload + 4, reader.count) ||
        !UnusedBitsAreZero(reader.payload + PruneMapEnd(reader.count),
                           2 * total.kept)) {
      found |= kUnusedBitsAreSet;
    }
    return found;
  }

  DP_HOST_DEVICE uint32_t CheckSize(const TileCounts& total) const {
    state->num_large = total.large;
    return state->is_bad == 0 &&
                   state->values_begin + values.PayloadBytes(total.large) !=
                       size
               ? kImpossibleSize
               : 0u;
  }
};

/// Half warp `tile` hands its values to `message` (Put), after `excesses` were
/// decoded.
template <class Message>
struct PruneFinish {
  Message message;
  Turn turn;
  PruneReader reader;
  const PruneState* state;
  const TileCounts* tiles;
  const float* excesses;

  DP_HOST_DEVICE void operator()(int64_t tile,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine() || state->is_bad != 0) return;
    const float threshold = reader.Threshold();
    TileCounts before = tiles[tile];
    for (int64_t part = 0; part < kPruneRun / 64; ++part) {
      const int64_t group = tile * (kPruneRun / 64) + part;
      if (group * 64 >= reader.count) break;
      GroupRanks kept, large;
      for (int j = 0; j < 4; ++j) {
        Lanes<bool> is_kept, is_large;
        EachLane([&](int lane) {
          is_kept[lane] = reader.IsKept(group * 64 + 16 * j + lane);
        });
        kept.votes[j] = Ballot(is_kept);
        EachLane([&](int lane) {
          is_large[lane] =
              is_kept[lane] &&
              reader.Mark(before.kept + kept.Before(j, lane)) >> 1 != 0;
        });
        large.votes[j] = Ballot(is_large);
      }
      EachLane([&](int lane) {
        for (int j = 0; j < 4; ++j) {
          const int64_t i = group * 64 + 16 * j + lane;
          if (i >= reader.count) continue;
          float value = 0;
          if ((kept.votes[j] >> lane & 1) != 0) {
            const uint32_t mark =
                reader.Mark(before.kept + kept.Before(j, lane));
            value = threshold;
            if (mark >> 1 != 0) {
              value = Sum(threshold,
                          excesses[before.large + large.Before(j, lane)]);
            }
            if ((mark & 1) != 0) value = -value;
          }
          message.Put(i, value);
        }
      });
      before.kept += kept.All();
      before.large += large.All();
    }
  }

 private:
  /// A finite excess gives a finite sum, a NaN the same one everywhere.
  DP_HOST_DEVICE static float Sum(float threshold, float excess) {
    if (MagnitudeBits(excess) > kInfinityBits) return excess;
    const float sum = threshold + excess;
    return MagnitudeBits(sum) == kInfinityBits &&
                   MagnitudeBits(excess) != kInfinityBits
               ? FLT_MAX
               : sum;
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_PRUNE_KERNELS_H_
