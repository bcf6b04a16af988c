#include "coordinator/schedule/codec_speed.h"

#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

// Bytes of fp32 input, or output, per second.
constexpr double kCopyRate = 4e9;
constexpr double kCastRate = 2e9;
constexpr double kQuantizeRate = 8e8;
constexpr double kDequantizeRate = 2e9;
/// Reading a record, adding, rounding and storing it.
constexpr double kStateRate = 2e9;

CodecSeconds SecondsPerByte(const CodecSpec& spec) {
  if (spec.name == "none" || spec.name == "identity") {
    return {1 / kCopyRate, 1 / kCopyRate};
  }
  if (spec.name == "cast") return {1 / kCastRate, 1 / kCastRate};
  if ((spec.name == "delta" || spec.name == "ef") && !spec.arguments.empty()) {
    CodecSeconds inner = SecondsPerByte(spec.arguments.front().value);
    // The sender decodes what it encoded, to keep what the receiver will have.
    inner.encode += inner.decode + 1 / kStateRate;
    if (spec.name == "delta") inner.decode += 1 / kStateRate;
    return inner;
  }
  return {1 / kQuantizeRate, 1 / kDequantizeRate};
}

}  // namespace

CodecSeconds PredictCodecSeconds(const std::string& codec, double elements) {
  const auto spec = ParseCodecSpec(codec);
  if (!spec.ok()) return {};
  const CodecSeconds per_byte = SecondsPerByte(*spec);
  return {per_byte.encode * 4 * elements, per_byte.decode * 4 * elements};
}

}  // namespace deltapipe
