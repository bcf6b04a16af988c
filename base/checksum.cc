#include "base/checksum.h"

#include <xxhash.h>

#include <new>

namespace deltapipe {

uint64_t Checksum(absl::Span<const uint8_t> bytes, uint64_t seed) {
  return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed);
}

struct ChecksumStream::State {
  XXH3_state_t* xxh;
};

ChecksumStream::ChecksumStream()
    : state_(std::make_unique<State>(State{XXH3_createState()})) {
  if (state_->xxh == nullptr) throw std::bad_alloc();
  XXH3_64bits_reset(state_->xxh);
}

ChecksumStream::~ChecksumStream() { XXH3_freeState(state_->xxh); }

void ChecksumStream::Update(absl::Span<const uint8_t> bytes) {
  XXH3_64bits_update(state_->xxh, bytes.data(), bytes.size());
}

uint64_t ChecksumStream::Digest() const {
  return XXH3_64bits_digest(state_->xxh);
}

}  // namespace deltapipe
