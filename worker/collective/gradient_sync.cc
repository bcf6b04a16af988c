#include "worker/collective/gradient_sync.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/mutex.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/collective/group_exchange.h"
#include "worker/collective/ring_all_reduce.h"
#include "worker/collective/shard_compressor.h"
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
  ThreadedGradientSync(const GradientSyncOptions& options, RankGroup* group,
                       int64_t num_elements,
                       std::unique_ptr<ShardCompressor> compressed,
                       std::unique_ptr<ShardCompressor> plain)
      : group_(group),
        num_elements_(num_elements),
        seed_(options.seed),
        exchange_(group, options.generation, options.max_message_bytes),
        compressed_(std::move(compressed), /*has_feedback=*/true, num_elements,
                    options.seed, &exchange_) {
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

  absl::Status Begin(uint32_t step, SyncFormat format,
                     absl::Span<float> values) override {
    if (static_cast<int64_t>(values.size()) != num_elements_) {
      return absl::InvalidArgumentError(
          absl::StrCat("gradient sync of step ", step + 1, ": ", values.size(),
                       " values, expected ", num_elements_));
    }
    {
      MutexLock lock(&mutex_);
      if (state_ != State::kIdle) {
        return absl::FailedPreconditionError(
            absl::StrCat("gradient sync of step ", step + 1, ": that of step ",
                         step_ + 1, " is not finished"));
      }
      step_ = step;
      format_ = format;
      values_ = values;
      state_ = State::kRunning;
    }
    changed_.NotifyAll();
    return absl::OkStatus();
  }

  absl::Status Wait(Deadline deadline) override {
    std::string activity;
    {
      MutexLock lock(&mutex_);
      if (state_ == State::kIdle) return NothingBegan("Wait");
      if (changed_.WaitUntil(lock, deadline, [this]() { return HasRun(); })) {
        state_ = State::kWaited;
        return result_;
      }
      activity = exchange_.activity();
    }
    const absl::Status late = absl::DeadlineExceededError(
        absl::StrCat(Describe(), ": deadline passed while ", activity));
    group_->Cancel(late);
    // The cancelled channels wake the thread, which must let go of the values.
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
      if (status.ok() && format_ == SyncFormat::kCompressed) {
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
    return SyncResiduals{compressed_.worker_residual(),
                         compressed_.server_residual()};
  }

  absl::Status PutResiduals(const SyncResiduals& residuals) override {
    DP_RETURN_IF_ERROR(CheckIdle());
    if (residuals.worker.empty() && residuals.server.empty()) {
      return absl::OkStatus();
    }
    return Annotate(
        compressed_.PutResiduals(residuals.worker, residuals.server),
        "gradient sync");
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

  absl::Status CheckIdle() const {
    MutexLock lock(&mutex_);
    if (state_ == State::kIdle) return absl::OkStatus();
    return absl::FailedPreconditionError(
        absl::StrCat(Describe(), " is under way: finish it first"));
  }
  /// Null: the fp32 ring.
  void SetPlain(std::unique_ptr<ShardCompressor> plain) {
    plain_ = plain == nullptr ? nullptr
                              : std::make_unique<TwoPhaseAllReduce>(
                                    std::move(plain), /*has_feedback=*/false,
                                    num_elements_, seed_, &exchange_);
  }
  bool HasRun() const {
    return state_ == State::kRan || state_ == State::kWaited;
  }
  /// step_ and format_ change in Begin only, between transactions.
  std::string Describe() const {
    return absl::StrCat("gradient sync of step ", step_ + 1, " (",
                        FormatName(format_), ", rank ", group_->rank(), " of ",
                        group_->size(), ")");
  }
  static absl::Status NothingBegan(const char* call) {
    return absl::FailedPreconditionError(
        absl::StrCat("gradient sync: ", call,
                     " out of order: the calls are Begin, Wait, Finish"));
  }

  absl::Status Synchronize() {
    if (format_ == SyncFormat::kCompressed) {
      exchange_.Begin(step_, CodecHash(format_, compressed_.codec_text()));
      return compressed_.Run(step_, values_);
    }
    if (plain_ == nullptr) {
      exchange_.Begin(step_, CodecHash(format_, "none"));
      return RingAllReduce(&exchange_, values_);
    }
    exchange_.Begin(step_, CodecHash(format_, plain_->codec_text()));
    // A single rank has nobody to send to, and keeps what it has.
    if (group_->size() == 1) return absl::OkStatus();
    return plain_->Run(step_, values_);
  }

  void Work() {
    while (true) {
      {
        MutexLock lock(&mutex_);
        changed_.Wait(
            lock, [this]() { return must_stop_ || state_ == State::kRunning; });
        if (state_ != State::kRunning) return;
      }
      const absl::Status status = Annotate(Synchronize(), Describe());
      // Ranks that still wait for this one learn that it has failed.
      if (!status.ok()) group_->Cancel(status);
      {
        MutexLock lock(&mutex_);
        result_ = status;
        state_ = State::kRan;
        ++counters_.transactions;
        counters_.payload_bytes = exchange_.payload_bytes();
        counters_.raw_bytes +=
            2 * (group_->size() - 1) * 4 * num_elements_ / group_->size();
      }
      changed_.NotifyAll();
    }
  }

  RankGroup* const group_;
  const int64_t num_elements_;
  const uint64_t seed_;
  // Used by the thread in kRunning, by the caller otherwise.
  GroupExchange exchange_;
  TwoPhaseAllReduce compressed_;
  std::unique_ptr<TwoPhaseAllReduce> plain_;  // null: the fp32 ring
  uint32_t step_ = 0;
  SyncFormat format_ = SyncFormat::kPlain;
  absl::Span<float> values_;

  mutable Mutex mutex_;
  CondVar changed_;
  State state_ DP_GUARDED_BY(mutex_) = State::kIdle;
  bool must_stop_ DP_GUARDED_BY(mutex_) = false;
  absl::Status result_ DP_GUARDED_BY(mutex_);
  GradientSyncCounters counters_ DP_GUARDED_BY(mutex_);
  Thread thread_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<GradientSync>> GradientSync::Create(
    const GradientSyncOptions& options, RankGroup* group,
    int64_t num_elements) {
  if (num_elements < 0 || options.max_message_bytes < 4) {
    return absl::InvalidArgumentError(absl::StrCat(
        "gradient sync: expected num_elements >= 0 and max_message_bytes >= 4, "
        "got ",
        num_elements, " and ", options.max_message_bytes));
  }
  DP_ASSIGN_OR_RETURN(
      auto compressors,
      MakeCompressors(options.compressed_codec, options.plain_codec));
  return std::unique_ptr<GradientSync>(std::make_unique<ThreadedGradientSync>(
      options, group, num_elements, std::move(compressors.first),
      std::move(compressors.second)));
}

absl::Status GradientSync::CheckCodec(const std::string& codec) {
  return Annotate(
      ShardCompressor::Create(codec, /*has_feedback=*/true).status(),
      "gradients");
}

}  // namespace deltapipe
