// NcclEdge: bytes from one rank to one other over a communicator of those two,
// made eagerly, with a stream, events and staging memory of its own.
//
// Both ends know the size of what comes next: NCCL has no other way. A message
// goes in chunks of a fixed size through pinned host memory and device memory;
// two chunks may be on their way, so that Send returns while the peer has not
// read yet, and blocks once it is two chunks behind.
//
// One thread uses an edge; Cancel comes from any. The communicator is not
// blocking: every wait looks at it, at the deadline and at Cancel, in turns.
// After an error the edge is broken, and its communicator is aborted by
// NcclDisposal as soon as no thread is inside a call on it; it is destroyed
// only where nothing failed and nothing was on its way.
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_EDGE_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_EDGE_H_

#include <array>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "worker/transport/channel.h"
#include "worker/transport/nccl/nccl_context.h"

namespace deltapipe {

/// Its value is the rank in the communicator.
enum class NcclEnd : int { kSender = 0, kReceiver = 1 };

struct NcclEdgeOptions {
  /// The same at both ends, made by one of them.
  NcclUniqueId id = {};
  NcclEnd end = NcclEnd::kSender;
  /// Of a message; the same at both ends.
  int64_t chunk_bytes = int64_t{1} << 20;
  /// For error messages.
  std::string peer;
};

/// Looked at, on the waiting thread, while an edge waits: an error ends the
/// wait and breaks the edge. Null: nothing is looked at.
using NcclWatch = std::function<absl::Status()>;

class NcclEdge {
 public:
  /// Returns once both ends are there and a first chunk has crossed.
  /// DEADLINE_EXCEEDED, FAILED_PRECONDITION (NCCL cannot join these two: it
  /// says why), RESOURCE_EXHAUSTED (no memory to stage in), UNAVAILABLE (CUDA
  /// or NCCL failed), what `watch` says.
  static absl::StatusOr<std::unique_ptr<NcclEdge>> Create(
      NcclContext* context, const NcclEdgeOptions& options, Deadline deadline,
      const NcclWatch& watch);
  ~NcclEdge();

  /// Sends the concatenation of `pieces`, which are free when it returns.
  /// DEADLINE_EXCEEDED, UNAVAILABLE, the reason given to Cancel: broken.
  absl::Status Send(absl::Span<const ByteSpan> pieces, Deadline deadline);
  /// Fills `message`, of which the peer sends exactly that size. After
  /// DEADLINE_EXCEEDED call it again with the same; other errors as of Send.
  absl::Status Receive(absl::Span<uint8_t> message, Deadline deadline,
                       const NcclWatch& watch);
  /// Waits until the peer has taken all that was sent. Errors as of Send.
  absl::Status Drain(Deadline deadline);
  /// Ends what waits and all later calls with `reason`.
  void Cancel(const absl::Status& reason);

 private:
  static constexpr size_t kNumSlots = 2;
  struct Slot {
    uint8_t* host = nullptr;
    uint8_t* device = nullptr;
    CudaEvent event = nullptr;
    int64_t bytes = 0;  // on their way; 0: free
  };

  NcclEdge(NcclContext* context, const NcclEdgeOptions& options);

  absl::Status SetUp(const NcclWatch& watch, Deadline deadline);
  absl::Status MakeMemory();
  absl::Status Join(const NcclWatch& watch, Deadline deadline);
  absl::Status SendChunks(absl::Span<const ByteSpan> pieces, Deadline deadline,
                          const NcclWatch& watch);
  absl::Status ReceiveChunks(absl::Span<uint8_t> message, Deadline deadline,
                             const NcclWatch& watch);
  /// Issues the receive of the next chunk of a message of that size.
  absl::Status Post(int64_t message_bytes);
  /// Waits until NCCL has taken up what was issued last.
  absl::Status AwaitTakenUp(Deadline deadline, const NcclWatch& watch);
  absl::Status AwaitSlot(const Slot& slot, Deadline deadline,
                         const NcclWatch& watch);

  /// Whether the communicator has nothing in progress; its error, if it has
  /// one.
  absl::StatusOr<bool> IsReady() const;
  absl::StatusOr<bool> HasHappened(CudaEvent event) const;
  absl::Status Await(const std::function<absl::StatusOr<bool>()>& has_come,
                     Deadline deadline, const NcclWatch& watch);
  absl::Status NcclFailure(NcclResult result) const;
  bool IsAcceptable(NcclResult result) const {
    return result == kNcclSuccess || result == kNcclInProgress;
  }
  std::string What() const;

  /// Around every use: so that nothing is aborted under a call.
  absl::Status Enter();
  absl::Status Leave(const absl::Status& status);
  void HandOver(bool is_clean);

  NcclContext* const context_;
  const NcclLibrary& nccl_;
  const CudaLibrary& cuda_;
  const NcclEdgeOptions options_;

  // Of the thread that uses the edge, and of the last to leave it.
  NcclRemains own_;
  std::array<Slot, kNumSlots> slots_;
  size_t next_slot_ = 0;        // that is filled next
  size_t oldest_slot_ = 0;      // whose bytes come next, at the receiver
  Slot* issued_ = nullptr;      // a receive that NCCL has not taken up yet
  int64_t bytes_posted_ = 0;    // of the message at hand
  int64_t bytes_received_ = 0;  // of the message at hand

  Mutex mutex_;
  CondVar changed_;
  absl::Status broken_ DP_GUARDED_BY(mutex_);
  bool is_used_ DP_GUARDED_BY(mutex_) = false;
  bool is_handed_over_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_NCCL_EDGE_H_
