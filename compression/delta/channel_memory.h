// ChannelMemory: what the codecs of one end of a channel remember from one
// message to the next (Codec::EncodeNext), committed and rolled back with the
// records. Only a sender has one; messages decode without it.
//
// Checkpoints keep it (Take, Put), so that a channel that goes on from one
// sends the bytes it would have sent.
//
//   std::vector<float>* memory = memories.Of(kCodec);   // inside an Encode
//   ... codec->EncodeNext(in, key, memory, out) ...
//   memories.Stage(step);                               // once it succeeded
//   memories.CommitStep(step); memories.RollbackTo(step);
#ifndef DELTAPIPE_COMPRESSION_DELTA_CHANNEL_MEMORY_H_
#define DELTAPIPE_COMPRESSION_DELTA_CHANNEL_MEMORY_H_

#include <array>
#include <cstdint>
#include <memory>
#include <vector>

#include "absl/status/status.h"
#include "compression/delta/state_store.h"

namespace deltapipe {

class ChannelMemory {
 public:
  enum Which : size_t { kCodec, kFirst, kCount };
  /// Of each of them; empty where nothing is remembered.
  using State = std::array<std::vector<float>, kCount>;

  ChannelMemory() : store_(MakeMemoryStateStore()) {}

  /// To be changed by the codec. What was changed and not staged is forgotten
  /// by Begin.
  std::vector<float>* Of(Which which) { return &working_[which]; }
  /// Takes what was last staged.
  void Begin();
  void Stage(uint32_t step);
  void CommitStep(uint32_t step) { store_->CommitStep(step); }
  /// As StateStore::RollbackTo.
  absl::Status RollbackTo(uint32_t step) { return store_->RollbackTo(step); }

  /// What is remembered with everything staged.
  State Take() const;
  /// Before the first Begin: goes on as one that had committed this at `step`.
  void Put(State state, uint32_t step);

 private:
  /// What was last staged, in the memory that `state` has.
  void CopyStaged(State* state) const;

  State working_;
  std::unique_ptr<StateStore> store_;  // a record for each of them
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_CHANNEL_MEMORY_H_
