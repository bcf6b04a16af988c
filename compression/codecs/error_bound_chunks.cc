#include "compression/codecs/error_bound_chunks.h"

#include <cstddef>
#include <cstring>
#include <memory>

#include "absl/strings/str_cat.h"
#include "base/little_endian.h"

namespace deltapipe {
namespace {

using Kind = ErrorBoundChunkKind;

constexpr size_t kHeadBytes = 4;
constexpr uint16_t kAsItIs = 65535;
// Two planes of bytes and, at worst, all values as they are.
constexpr size_t kUnpackedBytes = 2 + sizeof(float);

// 0, -1, 1, -2, ... to 0, 1, 2, 3, ...
uint32_t ZigZag(int32_t value) {
  return (static_cast<uint32_t>(value) << 1) ^
         static_cast<uint32_t>(value >> 31);
}
int32_t UnZigZag(uint32_t code) {
  return static_cast<int32_t>((code >> 1) ^ (0u - (code & 1)));
}

// Contexts outlive calls: their tables are a megabyte or more.
ZSTD_CCtx* ThreadCompressor() {
  struct Deleter {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
  };
  static thread_local const std::unique_ptr<ZSTD_CCtx, Deleter> context(
      ZSTD_createCCtx());
  return context.get();
}
ZSTD_DCtx* ThreadDecompressor() {
  struct Deleter {
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
  };
  static thread_local const std::unique_ptr<ZSTD_DCtx, Deleter> context(
      ZSTD_createDCtx());
  return context.get();
}

uint8_t* StoreHead(Kind kind, size_t num_bytes, uint8_t* at) {
  return StoreLittleEndian(
      static_cast<uint32_t>(num_bytes * 4) + static_cast<uint32_t>(kind), at);
}

}  // namespace

ErrorBoundChunkEncoder::ErrorBoundChunkEncoder(float bound, int level,
                                               size_t num_elements)
    : quantizer_(bound), context_(ThreadCompressor()) {
  if (context_ != nullptr) {
    ZSTD_CCtx_reset(context_, ZSTD_reset_session_and_parameters);
    ZSTD_CCtx_setParameter(context_, ZSTD_c_compressionLevel, level);
    // Short matches of what is random cost more than they bring: up to 12 %.
    ZSTD_CCtx_setParameter(context_, ZSTD_c_minMatch, 7);
  }
  const size_t chunk = std::min(num_elements, kErrorBoundChunk);
  quanta_.resize(chunk);
  is_as_it_is_.resize(chunk);
  planes_.resize(chunk * kUnpackedBytes);
}

uint8_t* ErrorBoundChunkEncoder::Encode(absl::Span<const float> in,
                                        uint8_t* out) {
  Quantize(in);
  const Kind kind = CodeBits(in.size(), true) < CodeBits(in.size(), false)
                        ? Kind::kDifferences
                        : Kind::kValues;
  const size_t size = WritePlanes(in, kind);
  uint8_t* const body = out + kHeadBytes;
  const size_t compressed = Compress(in.size(), size, body);
  if (compressed == 0) return WriteVerbatim(in, out);
  AddErrors(in, false);
  StoreHead(kind, compressed, out);
  return body + compressed;
}

void ErrorBoundChunkEncoder::Quantize(absl::Span<const float> in) {
  for (size_t i = 0; i < in.size(); ++i) {
    const bool is_zero = quantizer_.IsZero(in[i]);
    quanta_[i] = is_zero ? 0 : quantizer_.Nearest(in[i]);
    is_as_it_is_[i] = !is_zero && !quantizer_.Keeps(in[i], quanta_[i]);
  }
}

int64_t ErrorBoundChunkEncoder::CodeBits(size_t count, bool differences) const {
  int64_t bits = 0;
  int32_t last = 0;
  for (size_t i = 0; i < count; ++i) {
    const uint32_t code = ZigZag(quanta_[i] - last);
    bits += 32 - __builtin_clz(code | 1);
    if (differences) last = quanta_[i];
  }
  return bits;
}

size_t ErrorBoundChunkEncoder::WritePlanes(absl::Span<const float> in,
                                           Kind kind) {
  uint8_t* const low = planes_.data();
  uint8_t* const high = low + in.size();
  uint8_t* rest = high + in.size();
  int32_t last = 0;
  for (size_t i = 0; i < in.size(); ++i) {
    uint32_t code = ZigZag(quanta_[i] - last);
    if (kind == Kind::kDifferences) last = quanta_[i];
    if (is_as_it_is_[i] || code >= kAsItIs) {
      is_as_it_is_[i] = true;
      code = kAsItIs;
      const float kept = Kept(in[i]);
      std::memcpy(rest, &kept, sizeof(kept));
      rest += sizeof(kept);
    }
    low[i] = static_cast<uint8_t>(code);
    high[i] = static_cast<uint8_t>(code >> 8);
  }
  return rest - low;
}

size_t ErrorBoundChunkEncoder::Compress(size_t num_codes, size_t size,
                                        uint8_t* body) {
  if (context_ == nullptr) return 0;
  ZSTD_CCtx_reset(context_, ZSTD_reset_session_only);
  ZSTD_CCtx_setPledgedSrcSize(context_, size);
  // A frame that needs more is no gain.
  ZSTD_outBuffer to = {body, sizeof(float) * num_codes - 1, 0};
  for (size_t begin = 0, part = 0; part < 3; ++part) {
    const size_t end = part < 2 ? begin + num_codes : size;
    ZSTD_inBuffer from = {planes_.data() + begin, end - begin, 0};
    const size_t left = ZSTD_compressStream2(
        context_, &to, &from, part < 2 ? ZSTD_e_flush : ZSTD_e_end);
    // An error, or no room for what is left.
    if (left != 0) return 0;
    begin = end;
  }
  return to.pos;
}

uint8_t* ErrorBoundChunkEncoder::WriteVerbatim(absl::Span<const float> in,
                                               uint8_t* out) {
  AddErrors(in, true);
  out = StoreHead(Kind::kVerbatim, in.size() * sizeof(float), out);
  for (const float value : in) {
    const float kept = Kept(value);
    std::memcpy(out, &kept, sizeof(kept));
    out += sizeof(kept);
  }
  return out;
}

void ErrorBoundChunkEncoder::AddErrors(absl::Span<const float> in,
                                       bool is_verbatim) {
  for (size_t i = 0; i < in.size(); ++i) {
    if (quantizer_.IsZero(in[i])) {
      AddError(std::fabs(in[i]));
    } else if (!is_verbatim && !is_as_it_is_[i]) {
      AddError(
          std::fabs(static_cast<double>(in[i]) - quantizer_.Value(quanta_[i])));
    }
  }
}

ErrorBoundChunkDecoder::ErrorBoundChunkDecoder(float bound, size_t num_elements)
    : quantizer_(bound), context_(ThreadDecompressor()) {
  planes_.resize(std::min(num_elements, kErrorBoundChunk) * kUnpackedBytes);
}

std::string ErrorBoundChunkDecoder::Decode(Kind kind,
                                           absl::Span<const uint8_t> body,
                                           absl::Span<float> out) {
  if (kind == Kind::kVerbatim) {
    if (body.size() != out.size() * sizeof(float)) {
      return absl::StrCat(body.size(), " bytes for ", out.size(), " values");
    }
    std::memcpy(out.data(), body.data(), body.size());
    return "";
  }
  if (context_ == nullptr) return "no memory for zstd";
  const size_t size =
      ZSTD_decompressDCtx(context_, planes_.data(), kUnpackedBytes * out.size(),
                          body.data(), body.size());
  if (ZSTD_isError(size)) {
    return absl::StrCat("zstd: ", ZSTD_getErrorName(size));
  }
  if (size >= 2 * out.size() && ReadPlanes(kind, size, out)) return "";
  return absl::StrCat(size, " bytes in a frame of ", out.size(), " codes");
}

bool ErrorBoundChunkDecoder::ReadPlanes(Kind kind, size_t size,
                                        absl::Span<float> out) const {
  const uint8_t* const low = planes_.data();
  const uint8_t* const high = low + out.size();
  const uint8_t* rest = high + out.size();
  const uint8_t* const end = low + size;
  int64_t last = 0;
  for (size_t i = 0; i < out.size(); ++i) {
    const uint32_t code = low[i] | static_cast<uint32_t>(high[i]) << 8;
    int64_t quantum = last + UnZigZag(code);
    if (code == kAsItIs) {
      if (end - rest < static_cast<ptrdiff_t>(sizeof(float))) return false;
      std::memcpy(&out[i], rest, sizeof(float));
      rest += sizeof(float);
      quantum = quantizer_.Nearest(out[i]);
    } else {
      out[i] = quantizer_.Value(quantum);
    }
    if (kind == Kind::kDifferences) last = quantum;
  }
  return rest == end;
}

}  // namespace deltapipe
