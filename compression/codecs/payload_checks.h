// The two size checks that every codec of fixed size makes, with their
// messages.
#ifndef DELTAPIPE_COMPRESSION_CODECS_PAYLOAD_CHECKS_H_
#define DELTAPIPE_COMPRESSION_CODECS_PAYLOAD_CHECKS_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

// Payloads are little-endian and are written as the machine holds them.
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__,
              "payloads need a little-endian machine");

inline absl::Status CheckRoom(absl::string_view codec, int64_t needed,
                              int64_t room) {
  if (room >= needed) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("encode with ", codec, " failed: room for ", room,
                   " bytes, expected at least ", needed));
}

inline absl::Status CheckPayloadSize(absl::string_view codec,
                                     int64_t num_elements, int64_t expected,
                                     int64_t actual) {
  if (actual == expected) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrCat(
      "decode with ", codec, " failed: payload of ", actual,
      " bytes, expected ", expected, " for ", num_elements, " elements"));
}

/// The bits of `last_byte` past the end of a stream of `num_bits` must be 0.
inline absl::Status CheckUnusedBits(absl::string_view codec, int64_t num_bits,
                                    uint8_t last_byte) {
  if (num_bits % 8 == 0 || last_byte >> (num_bits % 8) == 0) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      absl::StrCat("decode with ", codec,
                   " failed: the unused bits of the last byte are not 0"));
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODECS_PAYLOAD_CHECKS_H_
