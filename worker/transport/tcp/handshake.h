// The first bytes of a TCP connection: the connector says which protocol it
// speaks and which channel it wants, the listener answers.
//
//   hello:  'DPTP'  u16 version  u16 name bytes  name
//   answer: 'DPTP'  u16 version  u8 verdict  u8 reason bytes  reason
//
// Integers are little-endian. The verdict is 0 for ok; any other refuses, the
// reason is a sentence, and the listener closes. The first 8 bytes of both keep
// this shape in every version.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_HANDSHAKE_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_HANDSHAKE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

inline constexpr uint16_t kTransportProtocolVersion = 1;
inline constexpr size_t kHandshakePrefixBytes = 8;

enum class HandshakeVerdict : uint8_t {
  kOk = 0,
  kOtherVersion = 1,
  kBadName = 2,
  kNeedsTls = 3,  // in plain text, to one that does not speak TLS
};

std::vector<uint8_t> EncodeHello(const std::string& channel_name);
std::vector<uint8_t> EncodeAnswer(HandshakeVerdict verdict,
                                  const std::string& reason);

struct HelloPrefix {
  uint16_t version = 0;
  uint16_t name_bytes = 0;
};
/// INVALID_ARGUMENT if the 8 bytes are not the start of a hello.
absl::StatusOr<HelloPrefix> ParseHelloPrefix(absl::Span<const uint8_t> prefix);

struct AnswerPrefix {
  uint16_t version = 0;
  HandshakeVerdict verdict = HandshakeVerdict::kOk;
  uint8_t reason_bytes = 0;
};
/// INVALID_ARGUMENT if the 8 bytes are not the start of an answer.
absl::StatusOr<AnswerPrefix> ParseAnswerPrefix(
    absl::Span<const uint8_t> prefix);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_HANDSHAKE_H_
