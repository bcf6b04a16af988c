#include "worker/transport/tcp/handshake.h"

#include <algorithm>
#include <cstring>

#include "base/little_endian.h"

namespace deltapipe {
namespace {

constexpr char kMagic[4] = {'D', 'P', 'T', 'P'};

bool HasMagic(absl::Span<const uint8_t> prefix) {
  return prefix.size() == kHandshakePrefixBytes &&
         std::memcmp(prefix.data(), kMagic, sizeof(kMagic)) == 0;
}

}  // namespace

std::vector<uint8_t> EncodeHello(const std::string& channel_name) {
  std::vector<uint8_t> hello(kHandshakePrefixBytes);
  std::memcpy(hello.data(), kMagic, sizeof(kMagic));
  StoreLittleEndian<uint16_t>(kTransportProtocolVersion, &hello[4]);
  StoreLittleEndian<uint16_t>(static_cast<uint16_t>(channel_name.size()),
                              &hello[6]);
  hello.insert(hello.end(), channel_name.begin(), channel_name.end());
  return hello;
}

std::vector<uint8_t> EncodeAnswer(HandshakeVerdict verdict,
                                  const std::string& reason) {
  const size_t reason_bytes = std::min<size_t>(reason.size(), 255);
  std::vector<uint8_t> answer(kHandshakePrefixBytes);
  std::memcpy(answer.data(), kMagic, sizeof(kMagic));
  StoreLittleEndian<uint16_t>(kTransportProtocolVersion, &answer[4]);
  answer[6] = static_cast<uint8_t>(verdict);
  answer[7] = static_cast<uint8_t>(reason_bytes);
  answer.insert(answer.end(), reason.begin(), reason.begin() + reason_bytes);
  return answer;
}

absl::StatusOr<HelloPrefix> ParseHelloPrefix(absl::Span<const uint8_t> prefix) {
  if (!HasMagic(prefix)) {
    return absl::InvalidArgumentError("not a deltapipe transport's hello");
  }
  HelloPrefix hello;
  hello.version = LoadLittleEndian<uint16_t>(&prefix[4]);
  hello.name_bytes = LoadLittleEndian<uint16_t>(&prefix[6]);
  return hello;
}

absl::StatusOr<AnswerPrefix> ParseAnswerPrefix(
    absl::Span<const uint8_t> prefix) {
  if (!HasMagic(prefix)) {
    return absl::InvalidArgumentError("not a deltapipe transport's answer");
  }
  AnswerPrefix answer;
  answer.version = LoadLittleEndian<uint16_t>(&prefix[4]);
  answer.verdict = static_cast<HandshakeVerdict>(prefix[6]);
  answer.reason_bytes = prefix[7];
  return answer;
}

}  // namespace deltapipe
