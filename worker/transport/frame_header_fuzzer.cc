// Feeds bytes to the parser of frame headers and control frames. Each input is
// also tried with a header checksum that fits, or little would get past it.
//
//   bazel run --config=fuzz //worker/transport:frame_header_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <vector>

#include "base/checksum.h"
#include "base/little_endian.h"
#include "worker/transport/frame_wire.h"

namespace {

void Parse(deltapipe::ByteSpan message) {
  deltapipe::WireHeader header;
  if (deltapipe::ParseFrameHeader(message, &header) !=
      deltapipe::HeaderVerdict::kOk) {
    return;
  }
  const deltapipe::ByteSpan payload =
      message.subspan(deltapipe::kFrameHeaderBytes);
  if (header.payload_bytes != payload.size()) std::abort();
  deltapipe::PayloadIsIntact(header, payload);
  deltapipe::ControlFrame control;
  if (!deltapipe::ParseControlFrame(header, payload, &control).ok()) return;
  if (control.missing.size() > deltapipe::kMaxRequestedRanges) std::abort();
  deltapipe::EncodeControlFrame(control);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Parse({data, size});
  if (size >= deltapipe::kFrameHeaderBytes) {
    std::vector<uint8_t> message(data, data + size);
    deltapipe::StoreLittleEndian<uint64_t>(size - deltapipe::kFrameHeaderBytes,
                                           &message[72]);
    deltapipe::StoreLittleEndian<uint64_t>(
        deltapipe::Checksum({message.data(), 88}), &message[88]);
    Parse(message);
  }
  return 0;
}
