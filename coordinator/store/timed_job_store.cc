#include "coordinator/store/timed_job_store.h"

#include <utility>

namespace deltapipe {
namespace {

/// Upper bounds, in seconds: a disk without and with a queue.
constexpr double kBounds[] = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025,
                              0.05,   0.1,   0.25,   0.5,   1,    5};

}  // namespace

TimedJobStore::TimedJobStore(std::unique_ptr<JobStore> store, Clock* clock)
    : store_(std::move(store)), clock_(clock) {
  for (const double bound : kBounds) {
    commit_seconds_.add_bounds(bound);
    commit_seconds_.add_counts(0);
  }
  commit_seconds_.add_counts(0);
}

void TimedJobStore::Note(Nanos begin) {
  const double seconds =
      std::chrono::duration<double>(clock_->Now() - begin).count();
  MutexLock lock(&mutex_);
  int bucket = 0;
  while (bucket < commit_seconds_.bounds_size() &&
         seconds > commit_seconds_.bounds(bucket)) {
    ++bucket;
  }
  commit_seconds_.set_counts(bucket, commit_seconds_.counts(bucket) + 1);
  commit_seconds_.set_sum(commit_seconds_.sum() + seconds);
}

v1::Histogram TimedJobStore::commit_seconds() {
  MutexLock lock(&mutex_);
  return commit_seconds_;
}

absl::StatusOr<uint64_t> TimedJobStore::NewGeneration() {
  const Nanos begin = clock_->Now();
  auto generation = store_->NewGeneration();
  Note(begin);
  return generation;
}

absl::StatusOr<CreatedJob> TimedJobStore::CreateJob(const NewJob& job) {
  const Nanos begin = clock_->Now();
  auto created = store_->CreateJob(job);
  Note(begin);
  return created;
}

absl::StatusOr<int64_t> TimedJobStore::Commit(const JobChange& change) {
  const Nanos begin = clock_->Now();
  auto sequence = store_->Commit(change);
  Note(begin);
  return sequence;
}

absl::StatusOr<StoredJob> TimedJobStore::GetJob(const std::string& id) {
  return store_->GetJob(id);
}

absl::StatusOr<std::vector<StoredJob>> TimedJobStore::ListJobs(
    const JobQuery& query) {
  return store_->ListJobs(query);
}

absl::StatusOr<std::vector<v1::JobEvent>> TimedJobStore::ReadEvents(
    const std::string& job_id, int64_t after_sequence, int limit) {
  return store_->ReadEvents(job_id, after_sequence, limit);
}

absl::StatusOr<int64_t> TimedJobStore::AppendLogs(
    const std::string& job_id, const std::vector<v1::LogLine>& lines) {
  return store_->AppendLogs(job_id, lines);
}

absl::StatusOr<std::vector<StoredLogLine>> TimedJobStore::ReadLogs(
    const LogQuery& query) {
  return store_->ReadLogs(query);
}

}  // namespace deltapipe
