#include "worker/collective/gradient_sync.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/collective/codec_reduce_scatter.h"
#include "worker/collective/departure.h"
#include "worker/collective/excluded_ranges.h"
#include "worker/collective/feedback_reduce.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/node_hierarchy.h"
#include "worker/collective/node_reduce.h"
#include "worker/collective/residual_layout.h"
#include "worker/collective/ring_all_reduce.h"
#include "worker/collective/shard_compressor.h"
#include "worker/collective/shards.h"
#include "worker/collective/sync_buckets.h"
#include "worker/collective/two_phase_all_reduce.h"

namespace deltapipe {
namespace {

const char* FormatName(SyncFormat format) {
  return format == SyncFormat::kPlain ? "plain" : "compressed";
}

/// Ranks with another format or codec must not take each other's frames.
uint32_t CodecHash(SyncFormat format, const std::string& text) {
  const std::string named = absl::StrCat(FormatName(format), ":", text);
  return static_cast<uint32_t>(Checksum(
      ByteSpan(reinterpret_cast<const uint8_t*>(named.data()), named.size())));
}

using Compressors = std::pair<std::unique_ptr<ShardCompressor>,
                              std::unique_ptr<ShardCompressor>>;

/// For the compressed form and the plain one, null there for the fp32 ring.
absl::StatusOr<Compressors> MakeCompressors(const std::string& compressed_codec,
                                            const std::string& plain_codec) {
  auto compressed =
      ShardCompressor::Create(compressed_codec, /*has_feedback=*/true);
  if (!compressed.ok()) {
    return Annotate(compressed.status(), "gradient sync: compressed_codec");
  }
  auto plain = ShardCompressor::Create(plain_codec, /*has_feedback=*/false);
  if (!plain.ok()) {
    return Annotate(plain.status(), "gradient sync: plain_codec");
  }
  if ((*plain)->text() == "none") plain->reset();
  return Compressors(*std::move(compressed), *std::move(plain));
}

class ThreadedGradientSync : public GradientSync {
 public:
  /// `hierarchy` may be null: all ranks are alike.
  ThreadedGradientSync(const GradientSyncOptions& options, RankGroup* group,
                       int64_t num_elements,
                       std::unique_ptr<NodeHierarchy> hierarchy,
                       std::unique_ptr<ShardCompressor> compressed,
                       std::unique_ptr<ShardCompressor> plain)
      : group_(group),
        num_elements_(num_elements),
        seed_(options.seed),
        keeps_shard_(options.keeps_shard),
        buckets_(Cut(options, num_elements, hierarchy.get(), group->size(),
                     /*is_coded=*/false)),
        coded_buckets_(Cut(options, num_elements, hierarchy.get(),
                           group->size(), /*is_coded=*/true)),
        whole_(CutIntoBuckets({}, num_elements, 1)),
        layout_(LayoutText(options, hierarchy.get())),
        flat_(group, options.generation, options.max_message_bytes),
        hierarchy_(std::move(hierarchy)),
        exchange_(hierarchy_ == nullptr ? &flat_ : hierarchy_->across()),
        compressed_(std::move(compressed), ReduceOptions(/*has_feedback=*/true),
                    OwnParts(coded_buckets_), exchange_) {
    SetPlain(std::move(plain));
    thread_ = Thread("gradient-sync", [this] { Work(); });
  }

  ~ThreadedGradientSync() override {
    bool is_running;
    {
      MutexLock lock(&mutex_);
      is_running = state_ == State::kRunning;
      must_stop_ = true;
    }
    changed_.NotifyAll();
    if (is_running) {
      group_->Cancel(absl::CancelledError(
          "gradient sync was destroyed during a transaction"));
    }
    thread_.Join();
  }

  absl::Status Begin(uint32_t step, const SyncRequest& request) override {
    DP_RETURN_IF_ERROR(CheckRequest(step, request));
    return Start(step, request, Task::kMean, num_elements_);
  }

  absl::Status BeginEarly(uint32_t step, const SyncRequest& request) override {
    DP_RETURN_IF_ERROR(CheckRequest(step, request));
    return Start(step, request, Task::kMean, 0);
  }

  void Ready(int64_t num_elements) override {
    {
      MutexLock lock(&mutex_);
      if (num_elements <= num_ready_) return;
      num_ready_ = num_elements;
    }
    changed_.NotifyAll();
  }

  void Abandon(const absl::Status& reason) override {
    {
      MutexLock lock(&mutex_);
      if (state_ != State::kRunning) return;
      abandoned_ = reason;
    }
    changed_.NotifyAll();
    group_->Cancel(reason);
  }

  int num_buckets() const override {
    return static_cast<int>(coded_buckets_.size());
  }

  ElementRange owned_by(int rank) const override {
    if (!keeps_shard_) return {0, num_elements_};
    const Shards shards{num_elements_, group_->size()};
    const int shard = shards.after_ring(rank);
    return {shards.offset(shard), shards.offset(shard + 1)};
  }

  absl::Status Gather(uint32_t step, absl::Span<float> values,
                      Deadline deadline) override {
    if (!keeps_shard_ || static_cast<int64_t>(values.size()) != num_elements_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gather of step ", step + 1, ": ", values.size(),
          " values, expected ", num_elements_, " of ranks that keep shards"));
    }
    SyncRequest request;
    request.values = values;
    DP_RETURN_IF_ERROR(Start(step, request, Task::kGather, num_elements_));
    return RunToItsEnd(deadline);
  }

  absl::Span<const uint8_t> woken() const override { return woken_; }

  absl::Status Wait(Deadline deadline) override {
    std::string activity;
    {
      MutexLock lock(&mutex_);
      if (state_ == State::kIdle) return NothingBegan("Wait");
      if (changed_.WaitUntil(lock, deadline, [this]() { return HasRun(); })) {
        state_ = State::kWaited;
        return result_;
      }
      activity =
          is_awaiting_values_
              ? absl::StrCat("waiting for this rank's own values, of which ",
                             num_ready_, " of ", num_elements_, " were ready")
          : hierarchy_ == nullptr ? flat_.activity()
                                  : hierarchy_->activity();
    }
    const absl::Status late = absl::DeadlineExceededError(
        absl::StrCat(Describe(), ": deadline passed while ", activity));
    Abandon(late);
    group_->Cancel(late);  // also where the thread has ended just now
    // Both wake the thread, which must let go of the values.
    MutexLock lock(&mutex_);
    changed_.Wait(lock, [this]() { return HasRun(); });
    state_ = State::kWaited;
    result_ = late;
    return result_;
  }

  absl::Status Finish(SyncVerdict verdict) override {
    MutexLock lock(&mutex_);
    if (state_ != State::kWaited) return NothingBegan("Finish");
    state_ = State::kIdle;
    absl::Status status;
    if (verdict == SyncVerdict::kCommit) {
      status = result_.ok() ? absl::OkStatus()
                            : absl::FailedPreconditionError(
                                  "commit refused: the synchronisation failed");
      if (status.ok() && request_.format == SyncFormat::kCompressed) {
        status = compressed_.Commit();
      }
    }
    if (verdict == SyncVerdict::kAbort || !status.ok()) ++counters_.aborted;
    counters_.worker_residual_norm = compressed_.worker_residual_norm();
    counters_.server_residual_norm = compressed_.server_residual_norm();
    return Annotate(status, Describe());
  }

  absl::StatusOr<SyncResiduals> TakeResiduals() const override {
    DP_RETURN_IF_ERROR(CheckIdle());
    SyncResiduals residuals{
        compressed_.WorkerResidual(), compressed_.ServerResidual(), {}};
    if (!residuals.worker.empty()) {
      residuals.server_ranges = residual_place().server;
    }
    return residuals;
  }

  absl::Status PutResiduals(const SyncResiduals& residuals) override {
    DP_RETURN_IF_ERROR(CheckIdle());
    if (residuals.worker.empty() && residuals.server.empty()) {
      return absl::OkStatus();
    }
    const auto fitted =
        FitResiduals(residuals, exchange_->group()->rank(), residual_place());
    const absl::Status status =
        fitted.ok() ? compressed_.PutResiduals(fitted->worker, fitted->server)
                    : fitted.status();
    return Annotate(status, absl::StrCat("gradient sync (rank ", group_->rank(),
                                         " of ", group_->size(), ")"));
  }

  ResidualPlace residual_place() const override {
    ResidualPlace place;
    place.worker = {0, num_elements_};
    place.num_averaged = exchange_->group()->size();
    place.server = compressed_.server_ranges();
    if (hierarchy_ != nullptr) {
      place.worker = hierarchy_->slice_range();
      for (ElementRange& range : place.server) {
        range.begin += place.worker.begin;
        range.end += place.worker.begin;
      }
    }
    return place;
  }

  absl::Status SetCodecs(const std::string& compressed_codec,
                         const std::string& plain_codec) override {
    DP_RETURN_IF_ERROR(CheckIdle());
    DP_ASSIGN_OR_RETURN(auto compressors,
                        MakeCompressors(compressed_codec, plain_codec));
    compressed_.SetCompressor(std::move(compressors.first));
    SetPlain(std::move(compressors.second));
    return absl::OkStatus();
  }

  GradientSyncCounters counters() const override {
    MutexLock lock(&mutex_);
    return counters_;
  }

 private:
  enum class State { kIdle, kRunning, kRan, kWaited };
  enum class Task { kMean, kGather };

  static std::string LayoutText(const GradientSyncOptions& options,
                                const NodeHierarchy* hierarchy) {
    if (options.keeps_shard) return " by shards";
    return hierarchy == nullptr
               ? ""
               : absl::StrCat(" in nodes of ", hierarchy->ranks_in_node(), ", ",
                              options.node_codec);
  }

  /// Of a transaction whose verdict is its status.
  absl::Status RunToItsEnd(Deadline deadline) {
    const absl::Status status = Wait(deadline);
    // Nothing is left to be committed.
    Finish(status.ok() ? SyncVerdict::kCommit : SyncVerdict::kAbort)
        .IgnoreError();
    return status;
  }

  absl::Status CheckIdle() const {
    MutexLock lock(&mutex_);
    if (state_ == State::kIdle) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat(Describe(), " is under way: finish it first"));
  }
  absl::Status CheckRequest(uint32_t step, const SyncRequest& request) const {
    if (static_cast<int64_t>(request.values.size()) != num_elements_) {
      return absl::InvalidArgumentError(absl::StrCat(
          "gradient sync of step ", step + 1, ": ", request.values.size(),
          " values, expected ", num_elements_));
    }
    if (request.format == SyncFormat::kNone) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient sync of step ", step + 1,
                       ": nothing is to be synchronised"));
    }
    if (keeps_shard_ && request.format != SyncFormat::kPlain) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient sync of step ", step + 1,
                       ": what is compressed is needed whole on every rank, "
                       "which keeps a shard only"));
    }
    return CheckExcluded(step, request);
  }
  absl::Status CheckExcluded(uint32_t step, const SyncRequest& request) const {
    int64_t end = 0;
    for (const ElementRange& range : request.excluded) {
      if (range.begin < end || range.end <= range.begin ||
          range.end > num_elements_) {
        return absl::InvalidArgumentError(absl::StrCat(
            "gradient sync of step ", step + 1, ": excluded range ",
            range.begin, " to ", range.end,
            " is empty, out of order or beyond ", num_elements_, " elements"));
      }
      end = range.end;
    }
    return absl::OkStatus();
  }
  absl::Status Start(uint32_t step, const SyncRequest& request, Task task,
                     int64_t num_ready) {
    {
      MutexLock lock(&mutex_);
      if (state_ != State::kIdle) {
        return absl::FailedPreconditionError(
            absl::StrCat("gradient sync of step ", step + 1, ": that of step ",
                         step_ + 1, " is not finished"));
      }
      step_ = step;
      request_ = request;
      task_ = task;
      num_ready_ = num_ready;
      abandoned_ = absl::OkStatus();
      state_ = State::kRunning;
    }
    changed_.NotifyAll();
    return absl::OkStatus();
  }
  TwoPhaseAllReduce::Options ReduceOptions(bool has_feedback) const {
    TwoPhaseAllReduce::Options options;
    options.has_feedback = has_feedback;
    options.num_elements =
        hierarchy_ == nullptr
            ? num_elements_
            : hierarchy_->slice_range().end - hierarchy_->slice_range().begin;
    options.seed = seed_;
    options.slot = static_cast<uint32_t>(group_->rank());
    options.keeps_messages = hierarchy_ != nullptr;
    return options;
  }
  /// Of the vector. By nodes fewer ranks have to do with a bucket, and no bit
  /// of a job that never begins early hangs on the cut. The cut of what is
  /// coded may not change: residuals lie by it.
  static std::vector<SyncBucket> Cut(const GradientSyncOptions& options,
                                     int64_t num_elements,
                                     const NodeHierarchy* hierarchy,
                                     int num_ranks, bool is_coded) {
    const bool is_flat_ring = !is_coded && hierarchy == nullptr;
    const bool may_be_cut =
        is_flat_ring || (options.may_begin_early && !options.keeps_shard);
    const int64_t num_reducing =
        hierarchy == nullptr ? num_ranks : hierarchy->num_nodes();
    return CutIntoBuckets(
        may_be_cut ? options.order : std::vector<ElementRange>(), num_elements,
        (is_coded ? 2 : 1) * options.bucket_elements_per_rank * num_reducing);
  }
  /// What this rank compresses of each bucket, which may be nothing; by nodes,
  /// where it lies in the slice.
  std::vector<SyncBucket> OwnParts(
      const std::vector<SyncBucket>& buckets) const {
    if (hierarchy_ == nullptr) return buckets;
    std::vector<SyncBucket> parts;
    const int64_t begin = hierarchy_->slice_range().begin;
    for (const SyncBucket& bucket : buckets) {
      parts.push_back(hierarchy_->OwnPart(bucket));
      for (ElementRange& range : parts.back().ranges) {
        range.begin -= begin;
        range.end -= begin;
      }
    }
    return parts;
  }
  /// Null: the fp32 ring.
  void SetPlain(std::unique_ptr<ShardCompressor> plain) {
    plain_.reset();
    scatter_.reset();
    if (keeps_shard_ && plain != nullptr) {
      scatter_ = std::make_unique<CodecReduceScatter>(std::move(plain), seed_,
                                                      exchange_);
      return;
    }
    plain_ = plain == nullptr
                 ? nullptr
                 : std::make_unique<TwoPhaseAllReduce>(
                       std::move(plain), ReduceOptions(/*has_feedback=*/false),
                       exchange_);
  }
  bool HasRun() const {
    return state_ == State::kRan || state_ == State::kWaited;
  }
  /// step_ and request_ change in Start only, between transactions.
  std::string Describe() const {
    return absl::StrCat("gradient sync of step ", step_ + 1, " (",
                        FormatName(request_.format), ", rank ", group_->rank(),
                        " of ", group_->size(), ")");
  }
  static absl::Status NothingBegan(const char* call) {
    return absl::FailedPreconditionError(
        absl::StrCat("gradient sync: ", call,
                     " out of order: the calls are Begin, Wait, Finish"));
  }

  void BeginExchange(const std::string& codec) {
    const uint32_t hash =
        CodecHash(request_.format, absl::StrCat(codec, layout_));
    if (hierarchy_ == nullptr) {
      flat_.Begin(step_, hash);
    } else {
      hierarchy_->Begin(step_, hash);
    }
  }

  /// Waits until the first `num_elements` of the order are ready, but only
  /// looks if they are unless `may_wait`. Fails if they never will be.
  absl::StatusOr<bool> AwaitReady(int64_t num_elements, bool may_wait) {
    MutexLock lock(&mutex_);
    const auto is_ready = [&] { return num_ready_ >= num_elements; };
    if (may_wait && !is_ready()) {
      is_awaiting_values_ = true;
      changed_.Wait(
          lock, [&] { return is_ready() || must_stop_ || !abandoned_.ok(); });
      is_awaiting_values_ = false;
    }
    if (!abandoned_.ok()) return abandoned_;
    if (is_ready() || !may_wait) return is_ready();
    return absl::CancelledError("destroyed before its values were ready");
  }

  bool IsCompressed() const {
    return request_.format == SyncFormat::kCompressed;
  }
  /// In which the vector travels in this transaction: one, where it does not.
  absl::Span<const SyncBucket> Buckets() const {
    if (task_ != Task::kMean || keeps_shard_) return whole_;
    if (IsCompressed()) return coded_buckets_;
    if (plain_ == nullptr) return buckets_;
    // Of other codecs elements have a scale in common, and nothing makes up for
    // what another cut changes.
    if (plain_->codec_text() == "cast(bf16)" && group_->size() > 1) {
      return coded_buckets_;
    }
    return whole_;
  }
  std::string CodecText() const {
    if (IsCompressed()) return compressed_.codec_text();
    return plain_ == nullptr ? "none" : plain_->codec_text();
  }

  absl::Status Synchronize() {
    woken_.clear();
    const absl::Span<const SyncBucket> buckets = Buckets();
    if (buckets.size() > 1) {
      // Ranks that cut otherwise must not take each other's frames.
      BeginExchange(
          absl::StrCat(CodecText(), " in ", buckets.size(), " buckets"));
      if (hierarchy_ != nullptr) return ReduceAmongNodes(buckets);
      return IsCompressed() || plain_ != nullptr ? ReduceInBuckets(buckets)
                                                 : AddInBuckets(buckets);
    }
    DP_RETURN_IF_ERROR(AwaitReady(num_elements_, /*may_wait=*/true).status());
    if (task_ == Task::kGather) {
      BeginExchange("gather");
      return RingAllGather(exchange_, request_.values);
    }
    if (keeps_shard_) return ReduceToShards();
    BeginExchange(CodecText());
    if (hierarchy_ != nullptr) return ReduceAmongNodes(buckets);
    if (IsCompressed()) {
      DP_RETURN_IF_ERROR(compressed_.of(0)->Run(step_, request_.values,
                                                request_.excluded,
                                                request_.resets_residuals));
      woken_.assign(compressed_.of(0)->woken().begin(),
                    compressed_.of(0)->woken().end());
      return absl::OkStatus();
    }
    if (plain_ == nullptr) {
      return RingAllReduce(&flat_, group_->size(), request_.values);
    }
    // A single rank has nobody to send to, and keeps what it has.
    if (group_->size() == 1) return absl::OkStatus();
    return plain_->Run(step_, request_.values, {}, false);
  }

  absl::Status ReduceToShards() {
    if (scatter_ == nullptr) {
      BeginExchange("none");
      return RingReduceScatter(exchange_, group_->size(), request_.values);
    }
    BeginExchange(scatter_->codec_text());
    if (group_->size() == 1) return absl::OkStatus();
    return scatter_->Run(step_, request_.values);
  }

  /// Around the ring, one behind the other.
  absl::Status AddInBuckets(absl::Span<const SyncBucket> buckets) {
    std::vector<std::vector<float>> copies(buckets.size());
    std::vector<absl::Span<float>> values(buckets.size());
    RingParts parts;
    parts.num_parts = buckets.size();
    parts.num_elements = [&](size_t i) { return buckets[i].num_elements; };
    parts.values =
        [&](size_t i,
            bool may_wait) -> absl::StatusOr<std::optional<absl::Span<float>>> {
      DP_ASSIGN_OR_RETURN(const bool is_ready,
                          AwaitReady(buckets[i].ready_at, may_wait));
      if (!is_ready) return std::optional<absl::Span<float>>();
      values[i] = Gathered(buckets[i], request_.values, &copies[i]);
      return std::make_optional(values[i]);
    };
    parts.done = [&](size_t i) {
      Scatter(buckets[i], values[i], request_.values);
      copies[i] = {};
    };
    return RingAllReduceInParts(&flat_, group_->size(), parts);
  }

  /// In two phases, one after the other.
  absl::Status ReduceInBuckets(absl::Span<const SyncBucket> buckets) {
    woken_.assign(request_.excluded.size(), 0);
    std::vector<float> copy;
    for (size_t i = 0; i < buckets.size(); ++i) {
      DP_RETURN_IF_ERROR(
          AwaitReady(buckets[i].ready_at, /*may_wait=*/true).status());
      const absl::Span<float> values =
          Gathered(buckets[i], request_.values, &copy);
      const ExcludedInBucket excluded =
          ExcludedIn(buckets[i], request_.excluded);
      TwoPhaseAllReduce* const reduce = CodedReduce(i);
      DP_RETURN_IF_ERROR(reduce->Run(step_, values, excluded.ranges,
                                     request_.resets_residuals));
      Scatter(buckets[i], values, request_.values);
      for (size_t j = 0; j < excluded.origins.size(); ++j) {
        if (reduce->woken()[j] != 0) woken_[excluded.origins[j]] = 1;
      }
    }
    return absl::OkStatus();
  }

  /// That of a bucket; null: the fp32 ring.
  TwoPhaseAllReduce* CodedReduce(size_t bucket) {
    return IsCompressed() ? compressed_.of(bucket) : plain_.get();
  }

  absl::Status ReduceAmongNodes(absl::Span<const SyncBucket> buckets) {
    NodeReduceRequest request;
    request.step = step_;
    request.num_ranks = group_->size();
    request.buckets = buckets;
    request.await_ready = [this](const SyncBucket& bucket) {
      return AwaitReady(bucket.ready_at, /*may_wait=*/true).status();
    };
    request.reduce_of = [this](size_t bucket) { return CodedReduce(bucket); };
    if (IsCompressed()) {
      request.excluded = request_.excluded;
      request.drops_residuals = request_.resets_residuals;
    }
    return ReduceByNodes(request, hierarchy_.get(), request_.values, &woken_);
  }

  /// `status` with the rank that left first, of which the others are told.
  absl::Status TellWhoLeft(const absl::Status& status) {
    // Of two ranks the other one is named already, and nobody is to be told.
    const int departed = group_->size() > 2 ? FindDeparted(status, group_) : -1;
    if (departed < 0) return status;
    TellOfDeparture(group_, departed);
    return absl::Status(
        status.code(), absl::StrCat(status.message(), "; ",
                                    group_->Describe(departed), " left first"));
  }

  void Work() {
    while (true) {
      {
        MutexLock lock(&mutex_);
        changed_.Wait(
            lock, [this]() { return must_stop_ || state_ == State::kRunning; });
        if (state_ != State::kRunning) return;
      }
      absl::Status status = Annotate(Synchronize(), Describe());
      if (!status.ok()) {
        status = TellWhoLeft(status);
        // Ranks that still wait for this one learn that it has failed.
        group_->Cancel(status);
      }
      {
        MutexLock lock(&mutex_);
        result_ = status;
        state_ = State::kRan;
        ++counters_.transactions;
        counters_.off_node_bytes = exchange_->payload_bytes();
        counters_.payload_bytes =
            exchange_->payload_bytes() +
            (hierarchy_ == nullptr ? 0 : hierarchy_->in_node_bytes());
        if (task_ == Task::kMean) {
          counters_.raw_bytes +=
              2 * (group_->size() - 1) * 4 * num_elements_ / group_->size();
        }
      }
      changed_.NotifyAll();
    }
  }

  RankGroup* const group_;
  const int64_t num_elements_;
  const uint64_t seed_;
  const bool keeps_shard_;
  const std::vector<SyncBucket> buckets_;        // around the ring
  const std::vector<SyncBucket> coded_buckets_;  // in two phases
  const std::vector<SyncBucket> whole_;          // as one
  const std::string layout_;  // of nodes or shards, for the codec's hash
  // Used by the thread in kRunning, by the caller otherwise.
  GroupExchange flat_;
  const std::unique_ptr<NodeHierarchy> hierarchy_;
  GroupExchange* const exchange_;  // flat, or between the nodes
  FeedbackReduce compressed_;
  std::unique_ptr<TwoPhaseAllReduce> plain_;     // null: the fp32 ring
  std::unique_ptr<CodecReduceScatter> scatter_;  // likewise, with keeps_shard
  uint32_t step_ = 0;
  SyncRequest request_;
  Task task_ = Task::kMean;
  std::vector<uint8_t> woken_;

  mutable Mutex mutex_;
  CondVar changed_;
  State state_ DP_GUARDED_BY(mutex_) = State::kIdle;
  int64_t num_ready_ DP_GUARDED_BY(mutex_) = 0;  // of the order
  bool is_awaiting_values_ DP_GUARDED_BY(mutex_) = false;
  absl::Status abandoned_ DP_GUARDED_BY(mutex_);
  bool must_stop_ DP_GUARDED_BY(mutex_) = false;
  absl::Status result_ DP_GUARDED_BY(mutex_);
  GradientSyncCounters counters_ DP_GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GradientSync>> GradientSync::Create(
    const GradientSyncOptions& options, RankGroup* group,
    int64_t num_elements) {
  if (num_elements < 0 || options.max_message_bytes < 4 ||
      options.bucket_elements_per_rank < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradient sync: expected num_elements >= 0, max_message_bytes >= 4 and "
        "bucket_elements_per_rank >= 1, got ",
        num_elements, ", ", options.max_message_bytes, " and ",
        options.bucket_elements_per_rank));
  }
  const absl::Status order = CheckOrder(options.order, num_elements);
  if (!order.ok()) return Annotate(order, "gradient sync");
  DP_ASSIGN_OR_RETURN(
      auto compressors,
      MakeCompressors(options.compressed_codec, options.plain_codec));
  std::unique_ptr<NodeHierarchy> hierarchy;
  if (!options.nodes.empty()) {
    DP_ASSIGN_OR_RETURN(
        const NodePlace place,
        PlaceAmongNodes(options.nodes, group->size(), group->rank()));
    DP_ASSIGN_OR_RETURN(
        std::unique_ptr<ShardCompressor> in_node,
        ShardCompressor::Create(
            options.node_codec == "none" ? "identity" : options.node_codec,
            /*has_feedback=*/false));
    if (place.is_nested() && options.keeps_shard) {
      return absl::InvalidArgumentError(
          "gradient sync: expected one rank on each node with keeps_shard");
    }
    if (place.is_nested()) {
      hierarchy = std::make_unique<NodeHierarchy>(
          NodeHierarchy::Options{options.generation, options.max_message_bytes,
                                 num_elements},
          place, group, std::move(in_node));
    }
  }
  return std::unique_ptr<GradientSync>(std::make_unique<ThreadedGradientSync>(
      options, group, num_elements, std::move(hierarchy),
      std::move(compressors.first), std::move(compressors.second)));
}

absl::Status GradientSync::CheckCodec(const std::string& codec) {
  return Annotate(
      ShardCompressor::Create(codec, /*has_feedback=*/true).status(),
      "gradients");
}

}  // namespace deltapipe
