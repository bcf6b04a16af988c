// StateStore: the records of one end of one channel, as a state machine that
// can be rolled back. Both ends of a delta channel hold equal stores: equal
// Hash().
//
// Called by the boundary codecs only, one thread at a time. Never decides what
// to evict: the sender does, by staging no record.
//
// Every change belongs to an optimizer step. Changes can be undone until
// CommitStep: all since the last commit, or those of the step in flight. Of
// each key changed since then only the first former record is kept, so that
// undoing a checkpoint's distance costs at most one more record per key,
// whatever the number of visits.
//
// Records that nobody holds any more are filled again, so that steps that stage
// as much as those before allocate nothing.
//
//   RecordPtr record = store->Read(key);       // may be null
//   store->Stage(step, key, next);             // null evicts
//   store->CommitStep(step);                   // after a step, or a checkpoint
//   DP_RETURN_IF_ERROR(store->RollbackTo(step - 1));
#ifndef DELTAPIPE_COMPRESSION_DELTA_STATE_STORE_H_
#define DELTAPIPE_COMPRESSION_DELTA_STATE_STORE_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "compression/delta/record.h"

namespace deltapipe {

class StateStore {
 public:
  struct Usage {
    int64_t num_records = 0;
    /// Of the live records; former records kept for a rollback come on top.
    int64_t bytes = 0;
    int64_t former_bytes = 0;
    /// The largest version ever staged (and not rolled back).
    uint32_t last_version = 0;
  };

  virtual ~StateStore() = default;

  /// The record of `key` with everything staged, or null.
  virtual RecordPtr Read(uint64_t key) = 0;

  /// Replaces the record of `key`; null removes it. Steps never decrease: an
  /// earlier one counts as the step in flight.
  virtual void Stage(uint32_t step, uint64_t key, RecordPtr record) = 0;

  /// Makes what was staged up to `step` permanent.
  virtual void CommitStep(uint32_t step) = 0;

  /// Undoes what was staged after `step`. That is the step of the last commit
  /// or the one before the step in flight; FAILED_PRECONDITION names both if it
  /// is another, and nothing is undone.
  virtual absl::Status RollbackTo(uint32_t step) = 0;

  /// A hash of all keys, versions and records, independent of their order; 0
  /// when empty. Costs one pass over the records staged since the last call.
  virtual uint64_t Hash() = 0;

  virtual Usage usage() const = 0;

  /// Calls `visit` with the records, least recent version first, until it
  /// returns false. It must not change the store.
  virtual void ForEach(
      absl::FunctionRef<bool(uint64_t, const RecordPtr&)> visit) const = 0;

  /// Says that these keys are read soon. A store in memory has nothing to do.
  virtual void Prefetch(absl::Span<const uint64_t> keys) = 0;

  /// A record to fill and to stage here, where this store keeps its records;
  /// its content is not initialised. RESOURCE_EXHAUSTED on a full disk.
  virtual absl::StatusOr<std::shared_ptr<Record>> NewRecord(uint32_t version,
                                                            int64_t bytes) = 0;
  /// Takes back a reference to a record of NewRecord. If it was the last one,
  /// the record is kept for NewRecord, as long as no more are idle than were
  /// ever made between two commits. What the store itself drops goes the same
  /// way.
  virtual void GiveBack(RecordPtr record) = 0;
  /// `record`, or a copy of it where this store keeps its records. Errors as
  /// NewRecord.
  virtual absl::StatusOr<RecordPtr> Adopt(RecordPtr record) = 0;
};

/// A store in memory.
std::unique_ptr<StateStore> MakeMemoryStateStore();
/// A store of records of this size in a file without a name in `folder`
/// (record_file.h), whose errors it has.
absl::StatusOr<std::unique_ptr<StateStore>> MakeFileStateStore(
    const std::string& folder, int64_t record_bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_DELTA_STATE_STORE_H_
