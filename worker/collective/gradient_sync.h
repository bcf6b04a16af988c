// GradientSync: the mean of a flat vector over the replicas of one stage, as a
// transaction.
//
//   DP_RETURN_IF_ERROR(sync->Begin(step, request));
//   DP_RETURN_IF_ERROR(sync->Wait(deadline));      // values hold the mean
//   optimizer->Wake(sync->woken());
//   DP_RETURN_IF_ERROR(sync->Finish(SyncVerdict::kCommit));
//
// Plain: a ring all-reduce in fp32 (or bf16). Compressed: two phases of one bit
// with worker and server error feedback (1-bit Adam / 1-bit LAMB; DeepSpeed's
// compressed_allreduce): values + e are sent as signs with one scale over the
// flat vector, the owner of each shard averages, adds its own residual and
// sends signs with one scale per shard. Residuals live here; kAbort keeps those
// of before the transaction. The result is bitwise equal on all ranks. With one
// rank nothing is sent, but the compressed form still compresses (twice), as
// the algorithm says.
//
// Where ranks share nodes (GradientSyncOptions::nodes), the mean over a node is
// taken first, a slice on each of its ranks, and only slices cross the network,
// compressed (or not) as above among the ranks that hold the same slice. What
// leaves a node is then independent of the number of its ranks, and a rank
// keeps residuals of its slice alone.
//
// Where replicas share out the optimizer's state (keeps_shard), a plain
// transaction ends with each rank's shard of the mean: the first half of the
// ring, with its bits, or of the two phases. Gather sends what the ranks made
// of their shards, such as weights, around the other half.
//
// A weighted mean, of replicas that did more or less work, is had by weights in
// the values: a rank that did w of the work brings n w times its values. The
// residual stays in the same units, so that a rank that did nothing (w = 0)
// still hands on what it owes.
//
// A transaction may begin before all values are there:
//
//   DP_RETURN_IF_ERROR(sync->BeginEarly(step, request));
//   sync->Ready(n);               // the first n elements of options.order
//   sync->Ready(num_elements);    // or Abandon(reason)
//   ... Wait, Finish as above ...
//
// Around the fp32 ring, in bf16 and compressed, with an order given, the vector
// travels in buckets (sync_buckets.h), each as soon as it is ready here and on
// the ranks before. The result does not depend on when that was, to the bit; in
// bf16 not on the cut either. In the compressed form each bucket is a vector of
// its own, with its scale, shards and residuals; by nodes, what it has of each
// slice. In all other forms values travel once all of them are ready.
//
// Begin returns at once; an own thread works until Wait. One transaction at a
// time; one thread at a time calls it, but for counters() and Ready. A value
// that is not finite on any rank becomes a result that is not finite on all of
// them (by shards: on some): the caller must then abort.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_GRADIENT_SYNC_H_
#define DELTAPIPE_WORKER_COLLECTIVE_GRADIENT_SYNC_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "base/deadline.h"
#include "worker/collective/rank_group.h"
#include "worker/collective/residual_layout.h"
#include "worker/optim/optimizer.h"

namespace deltapipe {

enum class SyncVerdict { kCommit, kAbort };

struct GradientSyncOptions {
  /// How SyncFormat::kCompressed travels: "sign(block=0)" is the paper's one
  /// bit; "identity" runs the same algorithm with the compressor replaced by
  /// identity (the honest control); other codec texts are allowed for the
  /// compressed form.
  std::string compressed_codec = "sign(block=0)";
  /// How SyncFormat::kPlain travels: "none" (fp32, around a ring) or a codec
  /// such as "cast(bf16)" (in two phases, rounded once in each, without
  /// feedback).
  std::string plain_codec = "none";
  /// The node of each rank, equally many ranks on each; empty: every rank is
  /// its own. One node only, or one rank on each, is as if it were empty.
  std::vector<int> nodes;
  /// How values are summed inside a node: "none" (fp32) or "cast(bf16)".
  std::string node_codec = "none";
  /// After Wait a rank's values are defined where it owns them (owned_by).
  /// Plain transactions only.
  bool keeps_shard = false;
  /// Ranges of the vector in the order in which their values become ready,
  /// disjoint and together all of it, equal on all ranks. Empty: no buckets.
  std::vector<ElementRange> order;
  /// Whether transactions may begin before their values are there, equal on all
  /// ranks. But around the ring of all ranks, every bucket waits for the one
  /// before, and the vector travels whole if they may not.
  bool may_begin_early = true;
  /// A bucket has at least so many elements for each rank (by nodes, for each
  /// node), twice as many but around the ring: a hop of it then takes longer
  /// than a message on its way.
  int64_t bucket_elements_per_rank = int64_t{512} << 10;
  uint64_t seed = 0;
  uint64_t generation = 1;
  /// Larger messages are split; at most the channels' max_payload_bytes.
  int64_t max_message_bytes = int64_t{16} << 20;
};

struct GradientSyncCounters {
  int64_t raw_bytes = 0;       // what fp32 ring would have sent: 2 (n-1)/n 4 d
  int64_t payload_bytes = 0;   // sent by this rank, frame headers not counted
  int64_t off_node_bytes = 0;  // of these, to ranks on other nodes
  int64_t transactions = 0;
  int64_t aborted = 0;
  double worker_residual_norm = 0;  // ||e|| after the last commit
  double server_residual_norm = 0;
};

class GradientSync {
 public:
  virtual ~GradientSync() = default;

  /// `group` is borrowed, and cancelled if a transaction is still under way
  /// when the object is destroyed. INVALID_ARGUMENT for an unknown codec, nodes
  /// of different sizes, keeps_shard with nodes that hold several ranks, an
  /// order that is not one of the vector, or a number out of range.
  static absl::StatusOr<std::unique_ptr<GradientSync>> Create(
      const GradientSyncOptions& options, RankGroup* group,
      int64_t num_elements);

  /// Whether gradients of a job whose codec is `codec` travel without feedback
  /// in every step: it is the plain_codec then, else the compressed_codec.
  static bool IsPlainCodec(const std::string& codec) {
    return codec == "none" || codec == "cast(bf16)";
  }

  /// Whether `codec` can be compressed_codec or plain_codec.
  static absl::Status CheckCodec(const std::string& codec);

  /// Starts the transaction of `step` on request.values, num_elements of them,
  /// which nobody else may touch before Wait returns; request.excluded must
  /// stay as long. FAILED_PRECONDITION if one is under way, INVALID_ARGUMENT
  /// for SyncFormat::kNone, and for kCompressed with keeps_shard.
  virtual absl::Status Begin(uint32_t step, const SyncRequest& request) = 0;

  /// The same with no value ready yet. Values may be written until Ready says
  /// that they are there.
  virtual absl::Status BeginEarly(uint32_t step,
                                  const SyncRequest& request) = 0;
  /// The first `num_elements` in options.order (in the vector, without one) are
  /// there; nobody else may touch them before Wait returns. Grows from call to
  /// call; a smaller number changes nothing.
  virtual void Ready(int64_t num_elements) = 0;
  /// What is not ready will never be: the transaction fails with `reason`,
  /// which Wait returns, and the group is cancelled with it. Nothing happens
  /// where none is under way.
  virtual void Abandon(const absl::Status& reason) = 0;

  /// Waits until `values` hold the mean. After an error they hold anything; it
  /// names the peer, and the rank that left first where that is another one:
  /// DEADLINE_EXCEEDED, the reason given to RankGroup::Cancel,
  /// FAILED_PRECONDITION if the ranks disagree about step or codec. Any error
  /// leaves the group cancelled: the ranks are no longer in the same place.
  virtual absl::Status Wait(Deadline deadline) = 0;

  /// After Wait: one flag for each range that the request excluded, whether
  /// some rank had a value there. Equal on all ranks; empty for a plain one.
  virtual absl::Span<const uint8_t> woken() const = 0;

  /// Ends the transaction. FAILED_PRECONDITION before Wait; or if kCommit
  /// follows a failed Wait or values that are not finite, which ends it as
  /// kAbort does.
  virtual absl::Status Finish(SyncVerdict verdict) = 0;

  /// That a compressed transaction travels in, from 1 on.
  virtual int num_buckets() const = 0;

  /// The elements whose mean `rank` gets: all, but with keeps_shard.
  virtual ElementRange owned_by(int rank) const = 0;

  virtual ResidualPlace residual_place() const = 0;

  // Between two transactions only (FAILED_PRECONDITION otherwise):

  /// With keeps_shard: replaces `values` (num_elements of them) by what each
  /// rank has in the range that it owns, to the bit. All ranks take part. After
  /// an error they hold anything, and the group is cancelled.
  virtual absl::Status Gather(uint32_t step, absl::Span<float> values,
                              Deadline deadline) = 0;

  virtual absl::StatusOr<SyncResiduals> TakeResiduals() const = 0;
  /// Goes on as after a commit that had left these. Of a vector that was cut
  /// into other buckets, the server's share is added to the worker's, as many
  /// times as ranks average it: as much is owed. INVALID_ARGUMENT for residuals
  /// of another vector, rank or number of ranks.
  virtual absl::Status PutResiduals(const SyncResiduals& residuals) = 0;
  /// From the next transaction on; the residuals carry over. INVALID_ARGUMENT
  /// leaves both as they were.
  virtual absl::Status SetCodecs(const std::string& compressed_codec,
                                 const std::string& plain_codec) = 0;

  /// As of the last transaction that Wait has returned for. Thread-safe.
  virtual GradientSyncCounters counters() const = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_GRADIENT_SYNC_H_
