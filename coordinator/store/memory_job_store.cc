#include "coordinator/store/memory_job_store.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "coordinator/store/new_job_record.h"

namespace deltapipe {

absl::StatusOr<uint64_t> MemoryJobStore::NewGeneration() {
  MutexLock lock(&mutex_);
  return ++last_generation_;
}

absl::StatusOr<CreatedJob> MemoryJobStore::CreateJob(const NewJob& job) {
  MutexLock lock(&mutex_);
  if (!job.request_id.empty()) {
    const auto known = ids_by_request_.find(job.request_id);
    if (known != ids_by_request_.end()) {
      return CreatedJob{jobs_[known->second].stored.job, true};
    }
  }
  const int64_t number = ++last_number_;
  NewJobRecord made = MakeNewJobRecord(job, number);
  made.event.set_sequence(++last_event_);
  Record& record = jobs_[made.job.id()];
  record.stored.job = made.job;
  record.stored.number = number;
  record.events.push_back(made.event);
  if (!job.request_id.empty()) ids_by_request_[job.request_id] = made.job.id();
  return CreatedJob{made.job, false};
}

absl::StatusOr<int64_t> MemoryJobStore::Commit(const JobChange& change) {
  MutexLock lock(&mutex_);
  if (!commit_error_.ok()) return commit_error_;
  const auto found = jobs_.find(change.job_id);
  if (found == jobs_.end()) {
    return absl::NotFoundError(absl::StrCat("no job '", change.job_id, "'"));
  }
  Record& record = found->second;
  if (change.job.has_value()) record.stored.job = *change.job;
  if (change.plan.has_value()) record.stored.plan = change.plan;
  if (change.progress.has_value()) record.stored.progress = change.progress;
  if (change.stragglers.has_value()) {
    record.stored.stragglers = *change.stragglers;
  }
  if (change.tuning_answers.has_value()) {
    record.stored.tuning_answers = *change.tuning_answers;
  }
  if (!change.event.has_value()) return 0;
  record.events.push_back(*change.event);
  record.events.back().set_sequence(++last_event_);
  return last_event_;
}

absl::StatusOr<StoredJob> MemoryJobStore::GetJob(const std::string& id) {
  MutexLock lock(&mutex_);
  const auto found = jobs_.find(id);
  if (found == jobs_.end()) {
    return absl::NotFoundError(absl::StrCat("no job '", id, "'"));
  }
  return found->second.stored;
}

absl::StatusOr<std::vector<StoredJob>> MemoryJobStore::ListJobs(
    const JobQuery& query) {
  MutexLock lock(&mutex_);
  std::vector<StoredJob> jobs;
  for (const auto& [id, record] : jobs_) {
    const StoredJob& stored = record.stored;
    if (query.before_number > 0 && stored.number >= query.before_number) {
      continue;
    }
    if (!query.include_finished && IsFinished(stored.job.state())) continue;
    jobs.push_back(StoredJob{stored.job, stored.number});
  }
  std::sort(jobs.begin(), jobs.end(),
            [](const StoredJob& a, const StoredJob& b) {
              return a.number > b.number;
            });
  if (static_cast<int>(jobs.size()) > query.limit) {
    jobs.resize(static_cast<size_t>(query.limit));
  }
  return jobs;
}

absl::StatusOr<std::vector<v1::JobEvent>> MemoryJobStore::ReadEvents(
    const std::string& job_id, int64_t after_sequence, int limit) {
  MutexLock lock(&mutex_);
  std::vector<v1::JobEvent> events;
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return events;
  for (const v1::JobEvent& event : found->second.events) {
    if (static_cast<int>(events.size()) >= limit) break;
    if (event.sequence() > after_sequence) events.push_back(event);
  }
  return events;
}

absl::StatusOr<int64_t> MemoryJobStore::AppendLogs(
    const std::string& job_id, const std::vector<v1::LogLine>& lines) {
  MutexLock lock(&mutex_);
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) {
    return absl::NotFoundError(absl::StrCat("no job '", job_id, "'"));
  }
  std::deque<StoredLogLine>& logs = found->second.logs;
  for (const v1::LogLine& line : lines) {
    logs.push_back(StoredLogLine{++last_line_, line});
    if (static_cast<int64_t>(logs.size()) > kMaxLogLines) logs.pop_front();
  }
  return last_line_;
}

absl::StatusOr<std::vector<StoredLogLine>> MemoryJobStore::ReadLogs(
    const LogQuery& query) {
  MutexLock lock(&mutex_);
  std::vector<StoredLogLine> lines;
  const auto found = jobs_.find(query.job_id);
  if (found == jobs_.end()) return lines;
  for (const StoredLogLine& line : found->second.logs) {
    if (line.sequence > query.after_sequence) lines.push_back(line);
  }
  if (query.tail > 0 && static_cast<int>(lines.size()) > query.tail) {
    lines.erase(lines.begin(), lines.end() - query.tail);
  }
  if (static_cast<int>(lines.size()) > query.limit) {
    lines.resize(static_cast<size_t>(query.limit));
  }
  return lines;
}

void MemoryJobStore::FailCommits(const absl::Status& error) {
  MutexLock lock(&mutex_);
  commit_error_ = error;
}

}  // namespace deltapipe
