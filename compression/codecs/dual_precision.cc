#include "compression/codecs/dual_precision.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <cstring>
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/float_cast.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/kernels/bit_packing.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr size_t kChunk = 1024;  // codes on the stack; a multiple of 8

struct DualFormat {
  int low_bits = 16;
  int high_bits = 2;
  int64_t height = 1;  // 1: a row
  int64_t width = 0;   // 0: all values
  int64_t block_height = 1;
  int64_t block_width = 64;
};

// One plane of `count` values.
struct PlaneLayout {
  PlaneLayout(const DualFormat& format, int64_t count) : count(count) {
    width = format.width == 0 ? count : std::min(format.width, count);
    const int64_t rows = (count + width - 1) / width;
    blocks_across = (width + format.block_width - 1) / format.block_width;
    num_blocks = blocks_across *
                 ((rows + format.block_height - 1) / format.block_height);
    mean_bytes = format.low_bits == 16 ? 2 * num_blocks : 4 + num_blocks;
    code_bytes = (count * format.high_bits + 7) / 8;
  }
  int64_t bytes() const { return 4 + mean_bytes + code_bytes; }

  int64_t count;
  int64_t width;
  int64_t blocks_across;
  int64_t num_blocks;
  int64_t mean_bytes;
  int64_t code_bytes;
};

// Calls function(element, block) for the elements of a plane in order.
template <class Function>
void ForEachPixel(const DualFormat& format, const PlaneLayout& plane,
                  Function function) {
  for (int64_t begin = 0, y = 0; begin < plane.count;
       begin += plane.width, ++y) {
    const int64_t end = std::min(begin + plane.width, plane.count);
    int64_t block = y / format.block_height * plane.blocks_across;
    for (int64_t i = begin; i < end; ++block) {
      const int64_t block_end = std::min(i + format.block_width, end);
      for (; i < block_end; ++i) function(i, block);
    }
  }
}

// Even levels: bias + code * scale.
struct Levels {
  double bias = 0;
  double scale = 0;

  double inverse() const { return scale > 0 ? 1 / scale : 0; }
};

uint8_t* StoreBFloat16(uint16_t value, uint8_t* at) {
  std::memcpy(at, &value, sizeof(value));
  return at + sizeof(value);
}

uint16_t LoadBFloat16(const uint8_t* at) {
  uint16_t value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

// Writes bf16 fields whose levels 0..last cover [low, high], and returns what
// they hold.
Levels WriteLevels(double low, double high, int last, uint8_t* at) {
  const uint16_t bias = BFloat16AtMost(low);
  Levels levels;
  levels.bias = BFloat16ToFloat(bias);
  const uint16_t scale =
      BFloat16AtLeast(std::max(high - levels.bias, 0.0) / last);
  levels.scale = BFloat16ToFloat(scale);
  StoreBFloat16(scale, StoreBFloat16(bias, at));
  return levels;
}

// False if the fields are not those of levels.
bool ReadLevels(const uint8_t* at, Levels* levels) {
  const uint16_t bias = LoadBFloat16(at);
  const uint16_t scale = LoadBFloat16(at + 2);
  levels->bias = BFloat16ToFloat(bias);
  levels->scale = BFloat16ToFloat(scale);
  return IsFiniteBFloat16(bias) && scale < kBFloat16Infinity;
}

float ToFiniteFloat(double value) {
  return static_cast<float>(
      std::min(std::max(value, -double{FLT_MAX}), double{FLT_MAX}));
}

// The words of elements in ascending order.
class ElementWords {
 public:
  explicit ElementWords(const RandomKey& key) : key_(key) {}

  double Uniform(int64_t element) {
    const auto block = static_cast<uint32_t>(element / 4);
    if (block != block_ || !has_block_) {
      words_ = Philox4x32(key_.PhiloxCounter(block), key_.PhiloxKey());
      block_ = block;
      has_block_ = true;
    }
    return UniformFloat(words_[element % 4]);
  }

 private:
  const RandomKey key_;
  PhiloxBlock words_{};
  uint32_t block_ = 0;
  bool has_block_ = false;
};

class DualPrecisionCodec final : public Codec {
 public:
  DualPrecisionCodec(std::string text, const DualFormat& format)
      : text_(std::move(text)), format_(format) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    if (num_elements == 0) return 0;
    const int64_t plane = PlaneElements(num_elements);
    const int64_t last = num_elements % plane;
    return num_elements / plane * PlaneLayout(format_, plane).bytes() +
           (last == 0 ? 0 : PlaneLayout(format_, last).bytes());
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    if (in.empty()) return size;
    const int64_t plane_elements = PlaneElements(in.size());
    ThreadScratch<double> means;
    uint8_t* at = out.data();
    for (size_t begin = 0; begin < in.size(); begin += plane_elements) {
      const auto values = in.subspan(begin, plane_elements);
      const PlaneLayout plane(format_, values.size());
      EncodePlane(plane, values, begin, key, &*means, at);
      at += plane.bytes();
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    if (out.empty()) return absl::OkStatus();
    const int64_t plane_elements = PlaneElements(out.size());
    ThreadScratch<double> means;
    for (size_t begin = 0; begin < out.size(); begin += plane_elements) {
      const auto values = out.subspan(begin, plane_elements);
      const PlaneLayout plane(format_, values.size());
      DP_RETURN_IF_ERROR(CheckUnusedBits(text_, plane.count * format_.high_bits,
                                         payload[plane.bytes() - 1]));
      if (!DecodePlane(plane, payload.data(), &*means, values)) {
        return absl::InvalidArgumentError(absl::StrCat(
            "decode with ", text_, " failed: the plane of element ", begin,
            " of ", out.size(),
            ": expected finite means, biases and scales, scales >= 0"));
      }
      payload.remove_prefix(plane.bytes());
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.is_unbiased = true;
    traits.is_stochastic = true;
    const double block = static_cast<double>(format_.block_height) *
                         static_cast<double>(format_.block_width);
    traits.bits_per_element = format_.high_bits + format_.low_bits / block;
    if (format_.width > 0) {
      const int64_t plane = format_.height * format_.width;
      traits.bits_per_element =
          8.0 * static_cast<double>(PlaneLayout(format_, plane).bytes()) /
          static_cast<double>(plane);
    }
    return traits;
  }

  // A rest is at most twice the largest value on either side; fields are
  // rounded by 2^-7, and have subnormals of 2^-133.
  double ErrorBound(double block_max) const override {
    const int last_level = (1 << format_.high_bits) - 1;
    return 4.1 * block_max / last_level * (1 + 0x1p-6) + block_max * 0x1p-5 +
           0x1p-120;
  }

 private:
  int64_t PlaneElements(int64_t num_elements) const {
    return format_.width == 0 ? num_elements : format_.height * format_.width;
  }

  void EncodePlane(const PlaneLayout& plane, absl::Span<const float> values,
                   int64_t first_element, const RandomKey& key,
                   std::vector<double>* means, uint8_t* out) const {
    bool all_finite = true;
    for (const float value : values) all_finite &= std::isfinite(value);
    if (!all_finite) {
      std::fill_n(out, plane.bytes(), uint8_t{0});
      StoreBFloat16(kBFloat16NaN, out + 2);
      return;
    }
    FindMeans(plane, values, means);
    WriteMeans(means, out + 4);
    double low = std::numeric_limits<double>::infinity(), high = -low;
    ForEachPixel(format_, plane, [&](int64_t i, int64_t block) {
      const double rest = values[i] - (*means)[block];
      low = std::min(low, rest);
      high = std::max(high, rest);
    });
    const int last_level = (1 << format_.high_bits) - 1;
    const Levels levels = WriteLevels(low / 2, high / 2, last_level, out);

    const double inverse = levels.inverse();
    ElementWords words(key);
    uint8_t* stream = out + 4 + plane.mean_bytes;
    const uint8_t* const end = out + plane.bytes();
    uint8_t codes[kChunk];
    ForEachPixel(format_, plane, [&](int64_t i, int64_t block) {
      const double rest = (values[i] - (*means)[block]) / 2;
      const double level = std::max((rest - levels.bias) * inverse, 0.0) +
                           words.Uniform(first_element + i);
      codes[i % kChunk] =
          static_cast<uint8_t>(std::min(level, last_level + 0.5));
      if ((i + 1) % kChunk == 0 || i + 1 == plane.count) {
        PackCodes(format_.high_bits, codes, i % kChunk + 1, stream, end);
        stream += kChunk / 8 * format_.high_bits;
      }
    });
  }

  void FindMeans(const PlaneLayout& plane, absl::Span<const float> values,
                 std::vector<double>* means) const {
    means->assign(plane.num_blocks, 0);
    ThreadScratch<int64_t> counts_scratch;
    std::vector<int64_t>& counts = *counts_scratch;
    counts.assign(plane.num_blocks, 0);
    ForEachPixel(format_, plane, [&](int64_t i, int64_t block) {
      (*means)[block] += values[i];
      ++counts[block];
    });
    for (int64_t block = 0; block < plane.num_blocks; ++block) {
      (*means)[block] /= static_cast<double>(counts[block]);
    }
  }

  // Writes the means and leaves in `means` what they decode to.
  void WriteMeans(std::vector<double>* means, uint8_t* at) const {
    if (format_.low_bits == 16) {
      for (double& mean : *means) {
        const uint16_t stored = FloatToBFloat16(ToFiniteFloat(mean));
        at = StoreBFloat16(stored, at);
        mean = BFloat16ToFloat(stored);
      }
      return;
    }
    const auto [low, high] = std::minmax_element(means->begin(), means->end());
    const Levels levels = WriteLevels(*low, *high, 255, at);
    at += 4;
    const double inverse = levels.inverse();
    for (double& mean : *means) {
      const double code = std::floor((mean - levels.bias) * inverse + 0.5);
      *at = static_cast<uint8_t>(std::min(std::max(code, 0.0), 255.0));
      mean = levels.bias + *at++ * levels.scale;
    }
  }

  bool ReadMeans(const PlaneLayout& plane, const uint8_t* at,
                 std::vector<double>* means) const {
    means->resize(plane.num_blocks);
    if (format_.low_bits == 16) {
      bool all_finite = true;
      for (double& mean : *means) {
        const uint16_t stored = LoadBFloat16(at);
        at += sizeof(stored);
        mean = BFloat16ToFloat(stored);
        all_finite &= IsFiniteBFloat16(stored);
      }
      return all_finite;
    }
    Levels levels;
    if (!ReadLevels(at, &levels)) return false;
    at += 4;
    for (double& mean : *means) mean = levels.bias + *at++ * levels.scale;
    return true;
  }

  bool DecodePlane(const PlaneLayout& plane, const uint8_t* in,
                   std::vector<double>* means, absl::Span<float> out) const {
    if (LoadBFloat16(in + 2) == kBFloat16NaN) {
      std::fill(out.begin(), out.end(),
                std::numeric_limits<float>::quiet_NaN());
      return true;
    }
    Levels levels;
    if (!ReadLevels(in, &levels) || !ReadMeans(plane, in + 4, means)) {
      return false;
    }
    const uint8_t* stream = in + 4 + plane.mean_bytes;
    const uint8_t* const end = in + plane.bytes();
    uint8_t codes[kChunk];
    ForEachPixel(format_, plane, [&](int64_t i, int64_t block) {
      if (i % kChunk == 0) {
        UnpackCodes(format_.high_bits, stream, end,
                    std::min<int64_t>(kChunk, plane.count - i), codes);
        stream += kChunk / 8 * format_.high_bits;
      }
      out[i] =
          ToFiniteFloat((*means)[block] +
                        2 * (levels.bias + codes[i % kChunk] * levels.scale));
    });
    return true;
  }

  const std::string text_;
  const DualFormat format_;
};

constexpr CodecParameter kParameters[] = {
    IntegerParameter("low_bits", "16", 8, 16, "bits per block's mean", 8),
    IntegerParameter("high_bits", "2", 1, 8, "bits per value for the rest"),
    IntegerParameter("block", "8", 2, 256, "side of a block"),
    ExtentParameter("height", 2, "rows of a plane; 0: 1"),
    ExtentParameter("width", 1, "values of a row; 0: all"),
};

}  // namespace

absl::Span<const CodecParameter> DualPrecisionParameters() {
  return kParameters;
}

absl::StatusOr<std::unique_ptr<Codec>> MakeDualPrecisionCodec(
    const CodecArguments& arguments) {
  const int64_t block = arguments.Integer("block");
  DualFormat format;
  format.low_bits = static_cast<int>(arguments.Integer("low_bits"));
  format.high_bits = static_cast<int>(arguments.Integer("high_bits"));
  format.width = arguments.Integer("width");
  format.height =
      std::max<int64_t>(format.width == 0 ? 1 : arguments.Integer("height"), 1);
  format.block_height = format.height == 1 ? 1 : block;
  format.block_width = format.height == 1 ? block * block : block;
  return std::unique_ptr<Codec>(
      new DualPrecisionCodec(arguments.CanonicalText(), format));
}

}  // namespace deltapipe
