#include "coordinator/metrics/tensorboard_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <iterator>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/file.h"
#include "base/host_name.h"
#include "base/log.h"
#include "base/status_macros.h"
#include "coordinator/metrics/event_file.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

/// Adds `text` at the end of `path`, in one write where the disk lets it.
absl::Status AppendToFile(const std::string& path, const std::string& text) {
  const int file =
      open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (file < 0) return FileError("open", path, errno);
  size_t done = 0;
  int error = 0;
  while (done < text.size() && error == 0) {
    const ssize_t wrote = write(file, text.data() + done, text.size() - done);
    if (wrote > 0) done += static_cast<size_t>(wrote);
    if (wrote < 0 && errno != EINTR) error = errno;
  }
  if (close(file) != 0 && error == 0) error = errno;
  return error == 0 ? absl::OkStatus() : FileError("write", path, error);
}

/// Job ids are safe names already; a folder is not left on anyone's word.
std::string FolderName(const std::string& job_id) {
  std::string name = job_id;
  for (char& c : name) {
    const bool is_safe = absl::ascii_isalnum(static_cast<unsigned char>(c)) ||
                         c == '-' || c == '_';
    if (!is_safe) c = '_';
  }
  return name.empty() ? "_" : name.substr(0, 200);
}

std::string Folder(const std::string& path) {
  return path.substr(0, path.rfind('/'));
}

}  // namespace

absl::StatusOr<std::unique_ptr<TensorBoardWriter>> TensorBoardWriter::Create(
    const std::string& folder, Clock* clock) {
  DP_RETURN_IF_ERROR(
      Annotate(MakeDirectories(folder), "cannot write for TensorBoard"));
  return std::unique_ptr<TensorBoardWriter>(
      new TensorBoardWriter(folder, clock));
}

TensorBoardWriter::TensorBoardWriter(const std::string& folder, Clock* clock)
    : folder_(folder),
      clock_(clock),
      thread_("tensorboard", [this] { Run(); }) {}

TensorBoardWriter::~TensorBoardWriter() {
  stop_.Cancel();
  thread_.Join();
}

void TensorBoardWriter::Run() {
  bool has_failed = false;
  bool is_stopped = false;
  while (!is_stopped) {
    is_stopped = !clock_->SleepUntil(
        clock_->Now() + std::chrono::milliseconds(kFlushMillis), &stop_);
    const absl::Status written = Flush();
    if (!written.ok() && !has_failed) {
      LOG_WARNING << "event files for TensorBoard have gaps: "
                  << written.message();
    }
    has_failed = !written.ok();
  }
}

absl::Status TensorBoardWriter::Flush() {
  MutexLock file_lock(&file_mutex_);
  std::vector<std::pair<std::string, std::string>> texts;
  {
    MutexLock lock(&mutex_);
    for (auto it = jobs_.begin(); it != jobs_.end();) {
      Job& job = it->second;
      if (!job.waiting.empty()) {
        texts.emplace_back(job.path, std::move(job.waiting));
        job.waiting.clear();
      }
      it = job.is_ended ? jobs_.erase(it) : std::next(it);
    }
    waiting_bytes_ = 0;
  }
  absl::Status status;
  for (const auto& [path, text] : texts) {
    absl::Status written = MakeDirectories(Folder(path));
    if (written.ok()) written = AppendToFile(path, text);
    status.Update(written);
  }
  return status;
}

double TensorBoardWriter::WallSeconds() {
  return static_cast<double>(clock_->WallMillis()) / 1e3;
}

void TensorBoardWriter::AddRecord(const std::string& payload, Job* job) {
  const std::string record = EventRecord(payload);
  // The disk does not keep up.
  if (waiting_bytes_ + record.size() > kMaxQueuedBytes) return;
  waiting_bytes_ += record.size();
  job->waiting += record;
}

void TensorBoardWriter::Add(const std::string& job_id, int64_t step,
                            const Scalars& scalars) {
  const double now = WallSeconds();
  MutexLock lock(&mutex_);
  const auto found = jobs_.find(job_id);
  if (found == jobs_.end()) return;
  AddRecord(ScalarsEvent(now, step, scalars), &found->second);
}

void TensorBoardWriter::JobStarted(const v1::Job& job, const v1::Plan& plan) {
  const double now = WallSeconds();
  const std::string folder_name = FolderName(job.id());
  if (folder_name != job.id()) {
    LOG_WARNING << "refused a folder named like the job '"
                << absl::Utf8SafeCEscape(job.id())
                << "' for TensorBoard: it is " << folder_name;
  }
  MutexLock lock(&mutex_);
  Job& state = jobs_[job.id()];
  state.is_ended = false;
  if (state.path.empty()) {
    state.path = absl::StrFormat(
        "%s/%s/events.out.tfevents.%010d.%s.%d.%d", folder_, folder_name,
        static_cast<int64_t>(now), HostName(), getpid(), num_files_++);
    AddRecord(VersionEvent(now), &state);
  }
  // Also for a job that another coordinator began.
  if (job.step() > 0 || job.restarts() > 0) {
    AddRecord(RestartEvent(now, job.step() + 1), &state);
  }
}

void TensorBoardWriter::JobChanged(const v1::Job& job) {
  MutexLock lock(&mutex_);
  const auto found = jobs_.find(job.id());
  if (found != jobs_.end()) found->second.is_ended = IsFinished(job.state());
}

void TensorBoardWriter::WorkerReported(const std::string& job_id, int stage,
                                       int replica,
                                       const v1::StepReport& report) {
  // One replica shows where time goes; all of them would be too many curves.
  if (replica != 0) return;
  const auto steps = static_cast<double>(std::max<int64_t>(1, report.steps()));
  const auto per_step = [steps](double seconds) {
    return static_cast<float>(seconds / steps);
  };
  const std::string group = absl::StrCat("stage_", stage, "/");
  Scalars scalars = {
      {group + "compute_seconds", per_step(report.compute_seconds())},
      {group + "wait_seconds", per_step(report.wait_seconds())},
      {group + "reduce_seconds", per_step(report.reduce_seconds())},
      {group + "memory_bytes", static_cast<float>(report.memory_bytes())}};
  if (report.has_saved()) {
    const v1::SavedReport& saved = report.saved();
    const int64_t stored =
        saved.packed_bytes() + saved.passed_bytes() + saved.metadata_bytes();
    scalars.emplace_back(group + "saved_peak_bytes",
                         static_cast<float>(saved.peak_bytes()));
    if (saved.unique_bytes() > 0) {
      scalars.emplace_back(
          group + "saved_ratio",
          static_cast<float>(static_cast<double>(stored) /
                             static_cast<double>(saved.unique_bytes())));
    }
  }
  Add(job_id, report.step() + 1, scalars);
}

void TensorBoardWriter::StepCompleted(const std::string& job_id,
                                      const v1::StepSummary& summary) {
  const auto number = [](double value) { return static_cast<float>(value); };
  Scalars scalars = {
      {"train/gradient_norm", number(summary.gradient_norm())},
      {"train/learning_rate", number(summary.learning_rate())},
      {"speed/step_seconds", number(summary.step_seconds())},
      {"speed/tokens_per_second", number(summary.tokens_per_second())},
      {"bytes/activation_wire",
       number(static_cast<double>(summary.activation_wire_bytes()))},
      {"bytes/gradient_wire",
       number(static_cast<double>(summary.gradient_wire_bytes()))}};
  // Synthetic stages know no loss.
  if (summary.loss() != 0) {
    scalars.insert(scalars.begin(), {"train/loss", number(summary.loss())});
  }
  Add(job_id, summary.step() + 1, scalars);
}

void TensorBoardWriter::Validated(const std::string& job_id,
                                  const v1::StepSummary& summary) {
  Scalars scalars = {
      {"validation/loss", static_cast<float>(summary.validation_loss())}};
  if (summary.has_validation_accuracy()) {
    scalars.emplace_back("validation/accuracy",
                         static_cast<float>(summary.validation_accuracy()));
  }
  Add(job_id, summary.step() + 1, scalars);
}

void TensorBoardWriter::CheckpointCommitted(const std::string& job_id,
                                            int64_t step, int64_t bytes,
                                            double seconds,
                                            double stall_seconds) {
  Add(job_id, step,
      {{"checkpoint/bytes", static_cast<float>(bytes)},
       {"checkpoint/seconds", static_cast<float>(seconds)},
       {"checkpoint/stall_seconds", static_cast<float>(stall_seconds)}});
}

}  // namespace deltapipe
