#include "compression/codecs/mixed.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/codecs/parameters.h"
#include "compression/codecs/payload_checks.h"
#include "compression/codecs/row_bits.h"
#include "compression/kernels/even_levels.h"
#include "compression/kernels/int_block.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

constexpr int64_t kFieldBytes = 4;

struct MixedFormat {
  double bits = 2.5;
  int64_t block = 256;
  int64_t row = 256;

  int64_t GroupsOf(int64_t row_elements) const {
    return (row_elements + block - 1) / block;
  }
  // Bytes per bit that the codes of a group take.
  static int64_t GroupUnits(int64_t count) {
    return std::max<int64_t>(2, (count + 7) / 8);
  }
  int64_t UnitsOf(int64_t row_elements) const {
    const int64_t rest = row_elements % block;
    return row_elements / block * GroupUnits(block) +
           (rest == 0 ? 0 : GroupUnits(rest));
  }
  int BitsOfShortRow() const { return static_cast<int>(bits); }
};

// `n` elements of a format.
struct MixedLayout {
  MixedLayout(const MixedFormat& format, int64_t n)
      : full_rows(n / format.row), short_row(n % format.row) {
    num_rows = full_rows + (short_row > 0 ? 1 : 0);
    total_bits = static_cast<int64_t>(
        std::floor(format.bits * static_cast<double>(full_rows)));
    fields = (num_rows + 1) / 2;
    codes = fields + kFieldBytes * (full_rows * format.GroupsOf(format.row) +
                                    format.GroupsOf(short_row));
    bytes = codes + format.UnitsOf(format.row) * total_bits +
            format.UnitsOf(short_row) * format.BitsOfShortRow();
  }

  int64_t full_rows;
  int64_t short_row;  // its elements; 0: none
  int64_t num_rows;
  int64_t total_bits;  // of full rows
  int64_t fields;      // where they begin
  int64_t codes;
  int64_t bytes;
};

class MixedCodec final : public Codec {
 public:
  MixedCodec(std::string text, const MixedFormat& format)
      : text_(std::move(text)), format_(format) {
    for (int bits = 1; bits <= kMaxRowBits; ++bits) {
      IntBlockFormat block;
      block.format.bits = bits;
      block.format.block = format.block;
      block.format.is_stochastic = true;
      block.format.searches_clip = false;
      block.is_affine = true;
      block.field = IntScaleField::kBFloat16;
      coders_.emplace_back(block, /*window=*/0);
    }
  }

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    return num_elements == 0 ? 0 : MixedLayout(format_, num_elements).bytes;
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& key,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    if (in.empty()) return int64_t{0};
    const MixedLayout layout(format_, in.size());
    ThreadScratch<uint8_t> bits;
    PlanRows(layout, in, &*bits);
    WriteBits(*bits, out.data());
    ForEachGroup(layout, *bits, [&](const Group& group) {
      const auto values = in.subspan(group.begin, group.count);
      const IntBlockCoder& coder = coders_[group.bits - 1];
      uint8_t* const codes = out.data() + group.codes;
      const int64_t used = CodeBytes(group);
      const IntBlockFields fields =
          coder.Encode(values, key, group.index, codes);
      std::fill(codes + used, codes + group.slot, uint8_t{0});
      const uint16_t stored[2] = {static_cast<uint16_t>(fields.scale),
                                  fields.origin};
      std::memcpy(out.data() + group.fields, stored, sizeof(stored));
      return true;
    });
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, out.size(), MaxPayloadBytes(out.size()), payload.size()));
    if (out.empty()) return absl::OkStatus();
    const MixedLayout layout(format_, out.size());
    ThreadScratch<uint8_t> bits;
    DP_RETURN_IF_ERROR(ReadBits(layout, payload.data(), &*bits));
    int64_t bad_element = -1;
    ForEachGroup(layout, *bits, [&](const Group& group) {
      const IntBlockCoder& coder = coders_[group.bits - 1];
      const uint8_t* const codes = payload.data() + group.codes;
      uint16_t stored[2];
      std::memcpy(stored, payload.data() + group.fields, sizeof(stored));
      IntBlockFields fields;
      fields.scale = stored[0];
      fields.origin = stored[1];
      if (group.count < format_.block && !RestIsZero(group, fields, codes)) {
        bad_element = group.begin;
        return false;
      }
      coder.Decode(fields, codes, out.subspan(group.begin, group.count));
      return true;
    });
    if (bad_element < 0) return absl::OkStatus();
    return absl::InvalidArgumentError(absl::StrCat(
        "decode with ", text_, " failed: unused bits of the group of element ",
        bad_element, " of ", out.size(), " are not 0"));
  }

  Traits traits() const override {
    Traits traits;
    traits.is_unbiased = true;
    traits.is_stochastic = true;
    const auto row = static_cast<double>(format_.row);
    traits.bits_per_element =
        (8.0 * format_.bits *
             static_cast<double>(format_.UnitsOf(format_.row)) +
         8.0 * kFieldBytes *
             static_cast<double>(format_.GroupsOf(format_.row)) +
         4.0) /
        row;
    return traits;
  }

  // One step of the coarsest row, twice the largest value at 1 bit; both fields
  // are rounded by up to 1 %.
  double ErrorBound(double block_max) const override {
    const int fewest_bits = format_.bits == kMaxRowBits ? kMaxRowBits : 1;
    const double step = 2 * block_max * 1.01 / ((1 << fewest_bits) - 1) * 1.01;
    return std::max(step, 0x1p-126);
  }

 private:
  struct Group {
    int64_t begin;  // element
    int64_t count;
    int bits;
    int64_t index;
    int64_t fields;  // where in the payload
    int64_t codes;
    int64_t slot;  // bytes of its codes, the unused ones included
  };

  // Calls function(group) in order, until it returns false.
  template <class Function>
  void ForEachGroup(const MixedLayout& layout, const std::vector<uint8_t>& bits,
                    Function function) const {
    Group group;
    group.begin = 0;
    group.index = 0;
    group.fields = layout.fields;
    group.codes = layout.codes;
    for (int64_t row = 0; row < layout.num_rows; ++row) {
      group.bits = bits[row];
      const int64_t row_end =
          group.begin +
          (row < layout.full_rows ? format_.row : layout.short_row);
      while (group.begin < row_end) {
        group.count = std::min(format_.block, row_end - group.begin);
        group.slot = MixedFormat::GroupUnits(group.count) * group.bits;
        if (!function(group)) return;
        group.begin += group.count;
        group.codes += group.slot;
        group.fields += kFieldBytes;
        ++group.index;
      }
    }
  }

  static int64_t CodeBytes(const Group& group) {
    return std::max<int64_t>(2, (group.count * group.bits + 7) / 8);
  }

  bool RestIsZero(const Group& group, const IntBlockFields& fields,
                  const uint8_t* codes) const {
    return coders_[group.bits - 1].UnusedBitsAreZero(fields, codes,
                                                     group.count) &&
           std::all_of(codes + CodeBytes(group), codes + group.slot,
                       [](uint8_t byte) { return byte == 0; });
  }

  void PlanRows(const MixedLayout& layout, absl::Span<const float> in,
                std::vector<uint8_t>* bits) const {
    ThreadScratch<double> costs;
    for (int64_t row = 0; row < layout.full_rows; ++row) {
      const auto values = in.subspan(row * format_.row, format_.row);
      double cost = 0;
      for (size_t begin = 0; begin < values.size(); begin += format_.block) {
        const ValueRange range =
            RangeOfValues(values.subspan(begin, format_.block));
        if (!range.all_finite) continue;
        const double width = static_cast<double>(range.high) - range.low;
        cost += width * width;
      }
      costs->push_back(cost);
    }
    bits->assign(layout.num_rows,
                 static_cast<uint8_t>(format_.BitsOfShortRow()));
    ChooseRowBits(*costs, layout.total_bits,
                  absl::MakeSpan(bits->data(), layout.full_rows));
  }

  static void WriteBits(const std::vector<uint8_t>& bits, uint8_t* out) {
    for (size_t row = 0; row < bits.size(); row += 2) {
      const int high = row + 1 < bits.size() ? bits[row + 1] : 0;
      out[row / 2] = static_cast<uint8_t>(bits[row] | high << 4);
    }
  }

  absl::Status ReadBits(const MixedLayout& layout, const uint8_t* in,
                        std::vector<uint8_t>* bits) const {
    int64_t sum = 0;
    for (int64_t row = 0; row < layout.num_rows; ++row) {
      const uint8_t stored = in[row / 2] >> (row % 2 * 4) & 15;
      const bool is_short = row == layout.full_rows;
      if (stored < 1 || stored > kMaxRowBits ||
          (is_short && stored != format_.BitsOfShortRow())) {
        return absl::InvalidArgumentError(absl::StrCat(
            "decode with ", text_, " failed: row ", row, " of ",
            layout.num_rows, " has ", int{stored}, " bits, expected ",
            is_short ? absl::StrCat(format_.BitsOfShortRow()) : "1 to 8"));
      }
      if (!is_short) sum += stored;
      bits->push_back(stored);
    }
    if (sum != layout.total_bits) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", text_, " failed: ", layout.full_rows, " rows have ",
          sum, " bits in all, expected ", layout.total_bits));
    }
    return CheckUnusedBits(text_, 4 * layout.num_rows, in[layout.fields - 1]);
  }

  const std::string text_;
  const MixedFormat format_;
  // By bits - 1.
  std::vector<IntBlockCoder> coders_;
};

constexpr CodecParameter BitsParameter() {
  CodecParameter parameter =
      NumberParameter("bits", "2.5", 1, 8, "bits per value, on average");
  parameter.choices = "1|8";
  return parameter;
}

constexpr CodecParameter kParameters[] = {
    BitsParameter(),
    IntegerParameter("block", "256", 16, 4096, "values that share a scale", 16),
    ExtentParameter("row", 1, "values of a row; 0: as many as share a scale"),
};

}  // namespace

absl::Span<const CodecParameter> MixedParameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeMixedCodec(
    const CodecArguments& arguments) {
  MixedFormat format;
  format.bits = !arguments.IsWord("bits")       ? arguments.Number("bits")
                : arguments.Word("bits") == "1" ? 1
                                                : kMaxRowBits;
  format.block = arguments.Integer("block");
  format.row = arguments.Integer("row");
  if (format.row == 0) format.row = format.block;
  return std::unique_ptr<Codec>(
      new MixedCodec(arguments.CanonicalText(), format));
}

}  // namespace deltapipe
