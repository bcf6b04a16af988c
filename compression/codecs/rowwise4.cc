#include "compression/codecs/rowwise4.h"

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
#include "compression/kernels/codebook_tiers.h"
#include "compression/kernels/directed_bfloat16.h"
#include "compression/kernels/even_levels.h"
#include "compression/kernels/row_grid.h"
#include "compression/kernels/thread_scratch.h"

namespace deltapipe {
namespace {

enum class Search { kMinMax, kGreedy, kCodebook, kCodebook2 };

constexpr int64_t kDefaultRow = 64;
constexpr int64_t kGridBytes = 4;
constexpr int64_t kCodebookBytes = 2 * kRowLevels;
constexpr uint8_t kNonFiniteRow = 255;
constexpr int64_t kRowsPerCodebook = 128;
constexpr int64_t kMaxCodebooks = 16;
constexpr size_t kChunk = 256;  // codes on the stack; a multiple of 8

bool AllFinite(absl::Span<const float> row) {
  return RangeOfValues(row).all_finite;
}

bool IsInfinite(uint16_t bfloat16) {
  return (bfloat16 & 0x7FFFu) == kBFloat16Infinity;
}

// Writes the codes of `row` by halves of a byte; `codes_of(values, codes)`
// finds those of a part of it.
template <class CodesOf>
uint8_t* PackRow(absl::Span<const float> row, CodesOf codes_of, uint8_t* out) {
  uint8_t* const end = out + (row.size() + 1) / 2;
  uint8_t codes[kChunk];
  while (!row.empty()) {
    const auto chunk = row.first(std::min(row.size(), kChunk));
    codes_of(chunk, codes);
    PackCodes<4>(codes, chunk.size(), out, end);
    out += kChunk / 2;
    row.remove_prefix(chunk.size());
  }
  return end;
}

// Calls function(codes, values) for the parts of a row.
template <class Function>
void UnpackRow(const uint8_t* in, absl::Span<float> row, Function function) {
  const uint8_t* const end = in + (row.size() + 1) / 2;
  uint8_t codes[kChunk];
  while (!row.empty()) {
    const auto chunk = row.first(std::min(row.size(), kChunk));
    UnpackCodes<4>(in, end, chunk.size(), codes);
    function(codes, chunk);
    in += kChunk / 2;
    row.remove_prefix(chunk.size());
  }
}

void LookUp(const RowLevels& levels, const uint8_t* in, absl::Span<float> row) {
  UnpackRow(in, row, [&](const uint8_t* codes, absl::Span<float> values) {
    for (size_t i = 0; i < values.size(); ++i) values[i] = levels[codes[i]];
  });
}

// As LookUp of LevelsOf(grid).
void LookUpGrid(RowGrid grid, const uint8_t* in, absl::Span<float> row) {
  const float scale = BFloat16ToFloat(grid.scale);
  const float bias = BFloat16ToFloat(grid.bias);
  // Where nothing can overflow, products are exact and sums are rounded once.
  if (scale * 15 + std::fabs(bias) < FLT_MAX) {
    UnpackRow(in, row, [&](const uint8_t* codes, absl::Span<float> values) {
      EvenValues(codes, scale, bias, values);
    });
  } else {
    LookUp(LevelsOf(grid), in, row);
  }
}

class Rowwise4Codec final : public Codec {
 public:
  Rowwise4Codec(std::string text, Search search, int64_t row)
      : text_(std::move(text)),
        search_(search),
        row_(row == 0 ? kDefaultRow : row) {}

  std::string text() const override { return text_; }

  int64_t MaxPayloadBytes(int64_t num_elements) const override {
    const int64_t last = num_elements % row_;
    return NumCodebooks(num_elements) * kCodebookBytes +
           NumRows(num_elements) * FieldBytes() +
           num_elements / row_ * CodeBytes(row_) + CodeBytes(last);
  }

  absl::StatusOr<int64_t> Encode(absl::Span<const float> in,
                                 const RandomKey& /*key*/,
                                 absl::Span<uint8_t> out) const override {
    const int64_t size = MaxPayloadBytes(in.size());
    DP_RETURN_IF_ERROR(CheckRoom(text_, size, out.size()));
    if (search_ == Search::kCodebook2) {
      EncodeTiers(in, out.data());
      return size;
    }
    uint8_t* at = out.data();
    while (!in.empty()) {
      const auto row = in.first(std::min<size_t>(in.size(), row_));
      at = search_ == Search::kCodebook ? EncodeCodebookRow(row, at)
                                        : EncodeGridRow(row, at);
      in.remove_prefix(row.size());
    }
    return size;
  }

  absl::Status Decode(absl::Span<const uint8_t> payload,
                      absl::Span<float> out) const override {
    const int64_t num_elements = out.size();
    DP_RETURN_IF_ERROR(CheckPayloadSize(
        text_, num_elements, MaxPayloadBytes(num_elements), payload.size()));
    ThreadScratch<RowLevels> codebooks_scratch;
    std::vector<RowLevels>& codebooks = *codebooks_scratch;
    codebooks.resize(NumCodebooks(num_elements));
    const uint8_t* at = payload.data();
    for (RowLevels& levels : codebooks) {
      DP_ASSIGN_OR_RETURN(levels, ReadCodebook(at));
      at += kCodebookBytes;
    }
    for (int64_t begin = 0; begin < num_elements; begin += row_) {
      const auto row = out.subspan(begin, row_);
      const uint8_t* const codes = at + FieldBytes();
      const uint8_t* const end = codes + CodeBytes(row.size());
      if (row.size() % 2 == 1) {
        DP_RETURN_IF_ERROR(CheckUnusedBits(text_, 4, end[-1]));
      }
      DP_RETURN_IF_ERROR(DecodeRow(at, codebooks, codes, row));
      at = end;
    }
    return absl::OkStatus();
  }

  Traits traits() const override {
    Traits traits;
    traits.bits_per_element =
        8.0 * static_cast<double>(FieldBytes() + CodeBytes(row_)) /
        static_cast<double>(row_);
    return traits;
  }

  double ErrorBound(double block_max) const override {
    // Fields beyond bf16's largest value are cut to it, and its subnormals are
    // 2^-133 apart.
    const double rounding = block_max * 0x1p-7 + 0x1p-128;
    switch (search_) {
      case Search::kMinMax:  // half of a 15th of the range
        return block_max / 15 * (1 + 0x1p-5) + rounding;
      case Search::kGreedy:  // up to 16 % of the range are cut off
        return block_max * 0.4 + rounding;
      case Search::kCodebook:
      case Search::kCodebook2:  // centres lie among the values
        return 2 * block_max + rounding;
    }
    return 2 * block_max;
  }

 private:
  static int64_t CodeBytes(int64_t count) { return (count + 1) / 2; }
  int64_t NumRows(int64_t num_elements) const {
    return num_elements / row_ + (num_elements % row_ != 0);
  }
  int64_t NumCodebooks(int64_t num_elements) const {
    if (search_ != Search::kCodebook2 || num_elements == 0) return 0;
    return std::clamp(NumRows(num_elements) / kRowsPerCodebook, int64_t{1},
                      kMaxCodebooks);
  }
  // What precedes a row's codes.
  int64_t FieldBytes() const {
    if (search_ == Search::kCodebook2) return 1;
    return search_ == Search::kCodebook ? kCodebookBytes : kGridBytes;
  }

  uint8_t* EncodeGridRow(absl::Span<const float> row, uint8_t* at) const {
    const ValueRange range = RangeOfValues(row);
    RowGrid grid;
    if (!range.all_finite) {
      grid.scale = kBFloat16NaN;
    } else {
      grid = search_ == Search::kGreedy ? GreedyGrid(row, range)
                                        : MinMaxGrid(range);
    }
    std::memcpy(at, &grid.scale, sizeof(grid.scale));
    std::memcpy(at + 2, &grid.bias, sizeof(grid.bias));
    const EvenSteps steps =
        StepsOf(grid, std::max(std::fabs(range.low), std::fabs(range.high)));
    return PackRow(
        row,
        [&](absl::Span<const float> values, uint8_t* codes) {
          if (range.all_finite) return EvenCodes(values, steps, codes);
          std::fill_n(codes, values.size(), uint8_t{0});
        },
        at + 4);
  }

  uint8_t* EncodeCodebookRow(absl::Span<const float> row, uint8_t* at) const {
    RowCodebook codebook;
    codebook.fill(kBFloat16NaN);
    if (AllFinite(row)) {
      ThreadScratch<float> sorted;
      sorted->assign(row.begin(), row.end());
      std::sort(sorted->begin(), sorted->end());
      codebook = FitCodebook(*sorted);
    }
    std::memcpy(at, codebook.data(), sizeof(codebook));
    const RowLevels levels = LevelsOf(codebook);
    // No value is above the middle of two NaNs: all codes are 0.
    return PackRow(
        row,
        [&](absl::Span<const float> values, uint8_t* codes) {
          NearestLevels(values, levels, codes);
        },
        at + sizeof(codebook));
  }

  void EncodeTiers(absl::Span<const float> in, uint8_t* at) const {
    if (in.empty()) return;
    ThreadScratch<RowCodebook> codebooks;
    ThreadScratch<uint8_t> codebook_of_row;
    const CodebookTiers tiers = {*codebooks, *codebook_of_row};
    FitCodebookTiers(in, row_, NumCodebooks(in.size()), tiers);
    for (const RowCodebook& codebook : tiers.codebooks) {
      std::memcpy(at, codebook.data(), sizeof(codebook));
      at += sizeof(codebook);
    }
    for (const uint8_t index : tiers.codebook_of_row) {
      const auto row = in.first(std::min<size_t>(in.size(), row_));
      const bool is_finite = AllFinite(row);
      const RowLevels levels = LevelsOf(tiers.codebooks[index]);
      *at++ = is_finite ? index : kNonFiniteRow;
      at = PackRow(
          row,
          [&](absl::Span<const float> values, uint8_t* codes) {
            if (is_finite) return NearestLevels(values, levels, codes);
            std::fill_n(codes, values.size(), uint8_t{0});
          },
          at);
      in.remove_prefix(row.size());
    }
  }

  absl::StatusOr<RowLevels> ReadCodebook(const uint8_t* at) const {
    RowCodebook codebook;
    std::memcpy(codebook.data(), at, sizeof(codebook));
    if (std::any_of(codebook.begin(), codebook.end(), IsInfinite)) {
      return absl::InvalidArgumentError(
          absl::StrCat("decode with ", text_, " failed: a level is infinite"));
    }
    return LevelsOf(codebook);
  }

  // Decodes a row from its fields and codes.
  absl::Status DecodeRow(const uint8_t* fields,
                         absl::Span<const RowLevels> codebooks,
                         const uint8_t* codes, absl::Span<float> row) const {
    switch (search_) {
      case Search::kCodebook: {
        DP_ASSIGN_OR_RETURN(const RowLevels levels, ReadCodebook(fields));
        LookUp(levels, codes, row);
        return absl::OkStatus();
      }
      case Search::kCodebook2:
        if (*fields == kNonFiniteRow) return FillWithNaN(row);
        if (*fields >= codebooks.size()) {
          return absl::InvalidArgumentError(
              absl::StrCat("decode with ", text_, " failed: codebook ",
                           static_cast<int>(*fields), ", expected one below ",
                           codebooks.size(), " or 255"));
        }
        LookUp(codebooks[*fields], codes, row);
        return absl::OkStatus();
      case Search::kMinMax:
      case Search::kGreedy:
        break;
    }
    RowGrid grid;
    std::memcpy(&grid.scale, fields, sizeof(grid.scale));
    std::memcpy(&grid.bias, fields + 2, sizeof(grid.bias));
    if (grid.scale == kBFloat16NaN) return FillWithNaN(row);
    if (grid.scale >= kBFloat16Infinity || !IsFiniteBFloat16(grid.bias)) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", text_, " failed: scale ",
          absl::Hex(grid.scale, absl::kZeroPad4), " and bias ",
          absl::Hex(grid.bias, absl::kZeroPad4),
          ", expected finite ones, the scale >= 0, or 7fc0 as scale"));
    }
    LookUpGrid(grid, codes, row);
    return absl::OkStatus();
  }

  static absl::Status FillWithNaN(absl::Span<float> row) {
    std::fill(row.begin(), row.end(), std::numeric_limits<float>::quiet_NaN());
    return absl::OkStatus();
  }

  const std::string text_;
  const Search search_;
  const int64_t row_;
};

constexpr CodecParameter kParameters[] = {
    ChoiceParameter("search", "minmax", "minmax|greedy|codebook|codebook2",
                    "how the 16 levels of a row are found"),
    ExtentParameter("row", 1, "values per row; 0: 64"),
};

}  // namespace

absl::Span<const CodecParameter> Rowwise4Parameters() { return kParameters; }

absl::StatusOr<std::unique_ptr<Codec>> MakeRowwise4Codec(
    const CodecArguments& arguments) {
  const std::string& word = arguments.Word("search");
  const Search search = word == "greedy"      ? Search::kGreedy
                        : word == "codebook"  ? Search::kCodebook
                        : word == "codebook2" ? Search::kCodebook2
                                              : Search::kMinMax;
  return std::unique_ptr<Codec>(new Rowwise4Codec(
      arguments.CanonicalText(), search, arguments.Integer("row")));
}

}  // namespace deltapipe
