// What must be known of a whole message before it is quantised: the exponents
// of `int`'s block maxima, from which the window of its scales follows, and the
// norms that decide between delta and value. One pass over the data for all of
// them, then one half warp that concludes.
//
// Counts and maxima are exact in any order. Norms are sums in double, in a
// fixed order that is not that of the host: their last bits differ, so that the
// choice between delta and value may, where the ratio is within 1e-12 of the
// limit. The choice travels with the message; the receiver makes none.
#ifndef DELTAPIPE_COMPRESSION_CUDA_SURVEY_KERNELS_H_
#define DELTAPIPE_COMPRESSION_CUDA_SURVEY_KERNELS_H_

#include <cmath>
#include <cstdint>

#include "base/host_device.h"
#include "compression/cuda/half_warp.h"
#include "compression/cuda/message.h"
#include "compression/kernels/int_scale.h"
#include "compression/kernels/largest_magnitude.h"

namespace deltapipe {
namespace cuda {

/// Histograms of the exponent fields of block maxima are kept several times, so
/// that half warps rarely add to the same count; all 0 between messages.
constexpr int kHistogramCopies = 16;
constexpr int kHistogramFields = 256;
constexpr int kHistogramSize = kHistogramCopies * kHistogramFields;

/// The blocks that one half warp surveys: about 1,024 values, and no more
/// blocks than lanes.
DP_HOST_DEVICE inline int BlocksPerRun(int64_t block) {
  const int64_t blocks = 1024 / block;
  return static_cast<int>(blocks < 1 ? 1 : blocks > kLanes ? kLanes : blocks);
}

/// Adds 1 to the count of each lane's field; `fields` holds it plus 1, or 0
/// for none.
DP_HOST_DEVICE inline void CountFields(Lanes<uint32_t> fields,
                                       uint32_t* histogram) {
  for (;;) {
    const uint32_t field = LargestOf(fields);
    if (field == 0) return;
    Lanes<bool> has_it;
    EachLane([&](int lane) { has_it[lane] = fields[lane] == field; });
    const uint32_t votes = Ballot(has_it);
    EachLane([&](int lane) {
      if (lane == 0) AtomicAdd(&histogram[field - 1], CountOnes(votes));
      if (fields[lane] == field) fields[lane] = 0;
    });
  }
}

/// The field of a block's maximum, plus 1; 0 for blocks that have no part in
/// the window.
DP_HOST_DEVICE inline uint32_t CountedField(uint32_t largest_bits) {
  return largest_bits == 0 || largest_bits >= kInfinityBits
             ? 0
             : (largest_bits >> 23) + 1;
}

/// Half warp `run` surveys BlocksPerRun(block) blocks.
struct Survey {
  EncodeMessage message;
  Turn turn;
  int64_t block = 64;
  uint32_t* of_inputs = nullptr;  // histograms; null: not wanted
  uint32_t* of_values = nullptr;
  double* norms = nullptr;  // for each run: of the inputs, of the values

  DP_HOST_DEVICE static int64_t NumRuns(int64_t block, int64_t count) {
    const int64_t size = block * BlocksPerRun(block);
    return (count + size - 1) / size;
  }

  DP_HOST_DEVICE void operator()(int64_t run,
                                 HalfWarpMemory* /*memory*/) const {
    if (!turn.IsMine()) return;
    const int num_blocks = BlocksPerRun(block);
    const bool looks_at_values = of_values != nullptr || norms != nullptr;
    Lanes<uint32_t> input_fields, value_fields;
    Lanes<double> input_squares, value_squares;
    EachLane([&](int lane) {
      input_fields[lane] = value_fields[lane] = 0;
      input_squares[lane] = value_squares[lane] = 0;
    });
    for (int b = 0; b < num_blocks; ++b) {
      const int64_t begin = (run * num_blocks + b) * block;
      const int64_t end = SmallerOf(begin + block, message.count);
      if (begin >= end) break;
      Lanes<uint32_t> largest_input, largest_value;
      EachLane([&](int lane) {
        largest_input[lane] = largest_value[lane] = 0;
        for (int64_t i = begin + lane; i < end; i += kLanes) {
          const float input = message.Input(i);
          largest_input[lane] =
              LargerOf(largest_input[lane], MagnitudeBits(input));
          if (!looks_at_values) continue;
          const float value = message.values[i];
          largest_value[lane] =
              LargerOf(largest_value[lane], MagnitudeBits(value));
          input_squares[lane] += static_cast<double>(input) * input;
          value_squares[lane] += static_cast<double>(value) * value;
        }
      });
      const uint32_t input_field = CountedField(LargestOf(largest_input));
      const uint32_t value_field = CountedField(LargestOf(largest_value));
      EachLane([&](int lane) {
        if (lane != b) return;
        input_fields[lane] = input_field;
        value_fields[lane] = value_field;
      });
    }
    const int64_t copy = run % kHistogramCopies * kHistogramFields;
    if (of_inputs != nullptr) CountFields(input_fields, of_inputs + copy);
    if (of_values != nullptr) CountFields(value_fields, of_values + copy);
    if (norms == nullptr) return;
    const double input_sum = SumOf(input_squares);
    const double value_sum = SumOf(value_squares);
    EachLane([&](int lane) {
      if (lane == 0) norms[2 * run] = input_sum;
      if (lane == 1) norms[2 * run + 1] = value_sum;
    });
  }
};

/// Sums runs of `per_sum` pairs of `in` to one pair of `out`.
struct SumPairs {
  const double* in = nullptr;
  int64_t num_in = 0;
  int64_t per_sum = 1;
  double* out = nullptr;

  DP_HOST_DEVICE void operator()(int64_t index,
                                 HalfWarpMemory* /*memory*/) const {
    const int64_t begin = index * per_sum;
    const int64_t end = SmallerOf(begin + per_sum, num_in);
    Lanes<double> first, second;
    EachLane([&](int lane) {
      first[lane] = second[lane] = 0;
      for (int64_t i = begin + lane; i < end; i += kLanes) {
        first[lane] += in[2 * i];
        second[lane] += in[2 * i + 1];
      }
    });
    const double first_sum = SumOf(first);
    const double second_sum = SumOf(second);
    EachLane([&](int lane) {
      if (lane == 0) out[2 * index] = first_sum;
      if (lane == 1) out[2 * index + 1] = second_sum;
    });
  }
};

/// delta/boundary_encoder.cc: a delta goes where ||a - m|| <= 0.7 ||a||; what
/// is not finite is sent as a value.
struct ChooseDelta {
  const double* norms = nullptr;  // one pair
  uint32_t* is_delta = nullptr;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    constexpr double kDeltaRatio = 0.7;
    const double limit = kDeltaRatio * kDeltaRatio * norms[1];
    const bool pays = std::isfinite(norms[1]) && norms[0] <= limit;
    EachLane([&](int lane) {
      if (lane == 0) *is_delta = pays ? 1 : 0;
    });
  }
};

/// IntWindow of a histogram, which becomes 0 again.
struct ChooseWindow {
  IntFormat format;
  uint32_t* histogram = nullptr;
  uint32_t* window = nullptr;

  DP_HOST_DEVICE void operator()(int64_t /*index*/,
                                 HalfWarpMemory* /*memory*/) const {
    constexpr int kFieldsPerLane = kHistogramFields / kLanes;
    struct Fields {
      uint64_t counts[kFieldsPerLane];
    };
    Lanes<Fields> fields;
    Lanes<uint64_t> totals;
    Lanes<uint32_t> largest;  // plus 1
    EachLane([&](int lane) {
      totals[lane] = 0;
      largest[lane] = 0;
      for (int i = 0; i < kFieldsPerLane; ++i) {
        const int field = lane * kFieldsPerLane + i;
        uint64_t count = 0;
        for (int copy = 0; copy < kHistogramCopies; ++copy) {
          uint32_t& part = histogram[copy * kHistogramFields + field];
          count += part;
          part = 0;
        }
        fields[lane].counts[i] = count;
        totals[lane] += count;
        if (count > 0) largest[lane] = static_cast<uint32_t>(field) + 1;
      }
    });
    const uint64_t total = SumOf(totals);
    const uint32_t largest_field = LargestOf(largest);
    // The least field up to which half of the blocks are; as the largest of
    // 256 - field.
    Lanes<uint32_t> above_median;
    uint64_t before = 0;
    EachLane([&](int lane) { above_median[lane] = 0; });
    for (int owner = 0; owner < kLanes; ++owner) {
      EachLane([&](int lane) {
        if (lane != owner) return;
        uint64_t seen = before;
        for (int i = 0; i < kFieldsPerLane; ++i) {
          seen += fields[lane].counts[i];
          if (2 * seen >= total && above_median[lane] == 0) {
            above_median[lane] = static_cast<uint32_t>(
                kHistogramFields - (owner * kFieldsPerLane + i));
          }
        }
      });
      before += ValueOf(totals, owner);
    }
    const int median =
        kHistogramFields - static_cast<int>(LargestOf(above_median));
    const int chosen =
        total == 0
            ? 0
            : IntWindow(format, static_cast<int>(largest_field) - 1, median);
    EachLane([&](int lane) {
      if (lane == 0) *window = static_cast<uint32_t>(chosen);
    });
  }
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_SURVEY_KERNELS_H_
