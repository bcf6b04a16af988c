#include <algorithm>
#include <map>
#include <memory>
#include <set>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/status_macros.h"
#include "compression/delta/node_cache.h"
#include "compression/delta/record_file.h"
#include "compression/delta/state_store.h"

namespace deltapipe {
namespace {

/// The hash of one record, of which Hash() is the sum: adding is commutative
/// and a removed record can be subtracted.
uint64_t HashOf(uint64_t key, const Record& record) {
  // An odd multiplier keeps key and version from cancelling each other.
  const uint64_t seed = (key * 0x9E3779B97F4A7C15u) ^
                        (uint64_t{record.version} << 32 | record.version);
  return Checksum(record.values.span(), seed) | 1;  // never 0: 0 is "none"
}

class MemoryStateStore : public StateStore {
 public:
  /// `file` may be null: records are on the heap.
  explicit MemoryStateStore(std::shared_ptr<RecordFile> file)
      : file_(std::move(file)) {}

  RecordPtr Read(uint64_t key) override {
    const auto found = entries_.find(key);
    return found == entries_.end() ? nullptr : found->second.record;
  }

  void Stage(uint32_t step, uint64_t key, RecordPtr record) override {
    if (!has_step_ || step > last_step_) BeginStep(std::max(step, last_step_));
    RecordPtr former = Read(key);
    if (former == nullptr && record == nullptr) return;
    if (record != nullptr) {
      usage_.last_version = std::max(usage_.last_version, record->version);
    }
    if (since_step_.formers.try_emplace(key, former).second) {
      usage_.former_bytes += BytesOf(former);
    }
    Put(key, std::move(record));
    GiveBack(std::move(former));
  }

  void CommitStep(uint32_t step) override {
    num_made_ = 0;
    if (step >= last_step_) {
      ForgetAll(&since_commit_);
      ForgetAll(&since_step_);
      since_commit_.last_version = usage_.last_version;
      commit_step_ = last_step_ = step;
      has_step_ = false;
    } else if (has_step_ && step >= step_before_) {
      ForgetAll(&since_commit_);
      since_commit_.last_version = since_step_.last_version;
      commit_step_ = step_before_ = step;
    }
    // An older step is inside the journal, which cannot be cut there: the last
    // commit stays the place to roll back to.
  }

  absl::Status RollbackTo(uint32_t step) override {
    if (step >= last_step_) return absl::OkStatus();
    if (has_step_ && step >= step_before_) {
      Undo(&since_step_);
      last_step_ = step_before_;
    } else if (step == commit_step_) {
      Undo(&since_step_);
      Undo(&since_commit_);
      last_step_ = commit_step_;
    } else {
      return absl::FailedPreconditionError(absl::StrCat(
          "cannot roll the state back to step ", step, ": expected step ",
          commit_step_, " (the last commit) or ",
          has_step_ ? step_before_ : last_step_,
          " (before the step in flight)"));
    }
    has_step_ = false;
    return absl::OkStatus();
  }

  uint64_t Hash() override {
    for (const uint64_t key : unhashed_) {
      const auto found = entries_.find(key);
      if (found == entries_.end() || found->second.hash != 0) continue;
      found->second.hash = HashOf(key, *found->second.record);
      hash_ += found->second.hash;
    }
    unhashed_.clear();
    return hash_;
  }

  Usage usage() const override { return usage_; }

  void ForEach(absl::FunctionRef<bool(uint64_t, const RecordPtr&)> visit)
      const override {
    for (const auto& [version, key] : by_version_) {
      if (!visit(key, entries_.at(key).record)) return;
    }
  }

  void Prefetch(absl::Span<const uint64_t> keys) override {
    if (file_ == nullptr) return;
    for (const uint64_t key : keys) {
      const RecordPtr record = Read(key);
      // One without content only says which version was the last.
      if (record != nullptr && !record->values.empty()) {
        file_->Prefetch(*record);
      }
    }
  }

  absl::StatusOr<std::shared_ptr<Record>> NewRecord(uint32_t version,
                                                    int64_t bytes) override {
    most_made_ = std::max(most_made_, ++num_made_);
    if (std::shared_ptr<Record> record = TakeIdle(bytes)) {
      record->version = version;
      return record;
    }
    if (file_ != nullptr) return file_->New(version);
    return deltapipe::NewRecord(version, bytes);
  }

  void GiveBack(RecordPtr record) override {
    if (record == nullptr || record.use_count() != 1 ||
        idle_.size() >= most_made_) {
      return;
    }
    // Another thread may have held it. To take a reference and to drop it
    // orders what that thread read before what is written here.
    RecordPtr(record).reset();
    idle_.push_back(std::const_pointer_cast<Record>(std::move(record)));
  }

  absl::StatusOr<RecordPtr> Adopt(RecordPtr record) override {
    if (file_ == nullptr || record->values.empty()) return record;
    DP_ASSIGN_OR_RETURN(std::shared_ptr<Record> copy,
                        file_->New(record->version));
    std::copy_n(record->values.data(), record->values.size(),
                copy->values.data());
    return RecordPtr(std::move(copy));
  }

 private:
  struct Entry {
    RecordPtr record;
    uint64_t hash = 0;  // 0 until Hash() needs it; it is then a part of hash_
  };

  /// The first former record of each key since some moment, null where there
  /// was none, and the last version at that moment.
  struct Journal {
    explicit Journal(NodeCache* nodes) : formers(nodes) {}
    std::pmr::map<uint64_t, RecordPtr> formers;
    uint32_t last_version = 0;
  };

  static int64_t BytesOf(const RecordPtr& record) {
    return record == nullptr ? 0 : record->values.size();
  }

  /// Null: none of this size is idle.
  std::shared_ptr<Record> TakeIdle(int64_t bytes) {
    // The youngest: its content may still be in a cache.
    const auto found = std::find_if(
        idle_.rbegin(), idle_.rend(),
        [bytes](const auto& record) { return record->values.size() == bytes; });
    if (found == idle_.rend()) {
      idle_.clear();  // of sizes that are no longer asked for
      return nullptr;
    }
    std::swap(*found, idle_.back());
    std::shared_ptr<Record> record = std::move(idle_.back());
    idle_.pop_back();
    return record;
  }

  void BeginStep(uint32_t step) {
    if (has_step_) {
      for (auto& [key, former] : since_step_.formers) {
        // Where the journal knows an older one, that one is kept.
        if (!since_commit_.formers.try_emplace(key, former).second) {
          usage_.former_bytes -= BytesOf(former);
          GiveBack(std::move(former));
        }
      }
      since_step_.formers.clear();
    }
    since_step_.last_version = usage_.last_version;
    step_before_ = last_step_;
    last_step_ = step;
    has_step_ = true;
  }

  /// Replaces the live entry of `key`, keeping usage and hash in step.
  void Put(uint64_t key, RecordPtr record) {
    const auto found = entries_.find(key);
    if (found != entries_.end()) {
      hash_ -= found->second.hash;
      by_version_.erase({found->second.record->version, key});
      usage_.bytes -= BytesOf(found->second.record);
      --usage_.num_records;
    }
    if (record == nullptr) {
      if (found != entries_.end()) entries_.erase(found);
      unhashed_.erase(key);
      return;
    }
    usage_.bytes += BytesOf(record);
    ++usage_.num_records;
    unhashed_.insert(key);
    by_version_.emplace(record->version, key);
    entries_[key] = Entry{std::move(record), 0};
  }

  void Undo(Journal* journal) {
    for (const auto& [key, former] : journal->formers) {
      RecordPtr undone = Read(key);
      Put(key, former);
      GiveBack(std::move(undone));
    }
    usage_.last_version = journal->last_version;
    ForgetAll(journal);
  }

  void ForgetAll(Journal* journal) {
    for (auto& [key, former] : journal->formers) {
      usage_.former_bytes -= BytesOf(former);
      GiveBack(std::move(former));
    }
    journal->formers.clear();
  }

  const std::shared_ptr<RecordFile> file_;
  NodeCache nodes_;  // of all that follows
  std::pmr::unordered_map<uint64_t, Entry> entries_{&nodes_};
  std::pmr::set<std::pair<uint32_t, uint64_t>> by_version_{&nodes_};
  Usage usage_;
  uint64_t hash_ = 0;
  std::pmr::set<uint64_t> unhashed_{&nodes_};

  // Records to be filled again; nobody else holds them.
  std::vector<std::shared_ptr<Record>> idle_;
  size_t num_made_ = 0;   // since the last commit
  size_t most_made_ = 0;  // between two commits, ever

  // Up to the beginning of the step in flight.
  Journal since_commit_{&nodes_};
  // Of the step in flight, last_step_, if has_step_.
  Journal since_step_{&nodes_};
  bool has_step_ = false;
  uint32_t last_step_ = 0;    // the state is the one after this step
  uint32_t step_before_ = 0;  // since_step_ leads back to this one
  uint32_t commit_step_ = 0;
};

}  // namespace

std::unique_ptr<StateStore> MakeMemoryStateStore() {
  return std::make_unique<MemoryStateStore>(nullptr);
}

absl::StatusOr<std::unique_ptr<StateStore>> MakeFileStateStore(
    const std::string& folder, int64_t record_bytes) {
  DP_ASSIGN_OR_RETURN(std::shared_ptr<RecordFile> file,
                      RecordFile::Create(folder, record_bytes));
  return std::unique_ptr<StateStore>(new MemoryStateStore(std::move(file)));
}

}  // namespace deltapipe
