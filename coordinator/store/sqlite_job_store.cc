#include "coordinator/store/sqlite_job_store.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/store/new_job_record.h"

namespace deltapipe {
namespace {

constexpr char kSchema[] = R"sql(
CREATE TABLE counters(
  name TEXT PRIMARY KEY,
  value INTEGER NOT NULL) WITHOUT ROWID;
INSERT INTO counters VALUES('generation', 0);
CREATE TABLE jobs(
  number INTEGER PRIMARY KEY AUTOINCREMENT,
  id BLOB NOT NULL UNIQUE,
  request_id BLOB UNIQUE,
  is_finished INTEGER NOT NULL,
  job BLOB NOT NULL,
  plan BLOB);
CREATE TABLE events(
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id BLOB NOT NULL,
  event BLOB NOT NULL);
CREATE INDEX events_of_job ON events(job_id, sequence);
CREATE TABLE logs(
  sequence INTEGER PRIMARY KEY AUTOINCREMENT,
  job_id BLOB NOT NULL,
  line BLOB NOT NULL);
CREATE INDEX logs_of_job ON logs(job_id, sequence);
)sql";

/// What each schema has beyond the one before, from the second on.
constexpr const char* kMigrations[] = {
    R"sql(
ALTER TABLE jobs ADD COLUMN progress BLOB;
INSERT INTO counters VALUES('epoch', 0);
)sql",
    R"sql(
ALTER TABLE jobs ADD COLUMN stragglers BLOB;
)sql",
    R"sql(
ALTER TABLE jobs ADD COLUMN tuning_answers BLOB;
)sql",
};

constexpr int64_t kPruneEvery = 1000;

constexpr char kDatabaseMagic[] = "SQLite format 3";  // its zero included

/// Refuses a path that cannot be a store, before anything is made there.
absl::Status CheckStorePath(const std::string& path) {
  struct stat status;
  const size_t slash = path.rfind('/');
  if (slash != std::string::npos && slash > 0) {
    const std::string folder = path.substr(0, slash);
    if (stat(folder.c_str(), &status) != 0) {
      return absl::NotFoundError(absl::StrCat(
          "cannot open the job store ", path, ": the folder ", folder,
          " is not there: create it or choose another place for the store"));
    }
  }
  if (stat(path.c_str(), &status) != 0) return absl::OkStatus();  // to be made
  if (S_ISDIR(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the job store ", path, " is a folder: expected a file, such as ", path,
        path.back() == '/' ? "" : "/", "coordinator.db"));
  }
  if (!S_ISREG(status.st_mode)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the job store ", path, " is not a regular file: choose another"));
  }
  return absl::OkStatus();
}

/// Refuses a file that SQLite did not write. Call it with the lock held: to
/// close a database's file lets go of all locks that this process has on it.
absl::Status CheckStoreContent(const std::string& path) {
  const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0 && errno == ENOENT) return absl::OkStatus();  // to be made
  if (file < 0) return FileError("open", path, errno);
  char start[sizeof(kDatabaseMagic)] = "";
  const ssize_t size = pread(file, start, sizeof(start), 0);
  const int error = errno;
  close(file);
  if (size < 0) return FileError("read", path, error);
  // An empty file is an empty database.
  if (size == 0 || std::equal(start, start + sizeof(start), kDatabaseMagic)) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "the job store ", path,
      " is no database: choose another place for the store, or move that file "
      "away"));
}

/// Whether `path` still names the open file.
bool IsNamed(int file, const std::string& path) {
  struct stat opened;
  struct stat named;
  return fstat(file, &opened) == 0 && stat(path.c_str(), &named) == 0 &&
         opened.st_dev == named.st_dev && opened.st_ino == named.st_ino;
}

/// Takes the lock file of the store at `path`; -1 is never returned.
absl::StatusOr<int> LockStore(const std::string& path,
                              const std::string& lock_path) {
  int file = -1;
  for (;;) {
    file = open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (file < 0) return FileError("open", lock_path, errno);
    if (flock(file, LOCK_EX | LOCK_NB) != 0) {
      char holder[32] = "";
      const ssize_t size = pread(file, holder, sizeof(holder) - 1, 0);
      close(file);
      return absl::FailedPreconditionError(absl::StrCat(
          "the job store ", path, " is in use by another coordinator",
          size > 0 ? absl::StrCat(" (pid ", holder, ")") : "",
          ": stop that one, or choose another place for the store"));
    }
    // Its former holder may have removed it between the two calls.
    if (IsNamed(file, lock_path)) break;
    close(file);
  }
  const std::string pid = absl::StrCat(getpid());
  // The pid is only for the message above: the lock holds without it.
  if (ftruncate(file, 0) == 0) {
    if (pwrite(file, pid.data(), pid.size(), 0) < 0) errno = 0;
  }
  return file;
}

template <typename Message>
absl::Status ParseRecord(const std::string& bytes, const char* what,
                         Message* message) {
  if (message->ParseFromString(bytes)) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the job store holds a damaged ", what, " of ", bytes.size(), " bytes"));
}

absl::StatusOr<StoredJob> ReadJobRow(const SqliteStatement& row) {
  StoredJob stored;
  stored.number = row.Integer(0);
  DP_RETURN_IF_ERROR(ParseRecord(row.Bytes(1), "job", &stored.job));
  return stored;
}

}  // namespace

absl::StatusOr<std::unique_ptr<SqliteJobStore>> SqliteJobStore::Open(
    const std::string& path,
    std::function<void(const absl::Status&)> on_taken_over) {
  DP_RETURN_IF_ERROR(CheckStorePath(path));
  const std::string lock_path = absl::StrCat(path, ".lock");
  DP_ASSIGN_OR_RETURN(const int lock_file, LockStore(path, lock_path));
  std::unique_ptr<SqliteJobStore> store(
      new SqliteJobStore(lock_path, lock_file, std::move(on_taken_over)));
  DP_RETURN_IF_ERROR(CheckStoreContent(path));
  DP_RETURN_IF_ERROR(store->Prepare(path));
  return store;
}

SqliteJobStore::~SqliteJobStore() {
  {
    MutexLock lock(&mutex_);
    database_.reset();
  }
  {
    MutexLock lock(&log_mutex_);
    log_database_.reset();
  }
  unlink(lock_path_.c_str());  // while it is held
  close(lock_file_);
}

absl::Status SqliteJobStore::Prepare(const std::string& path) {
  {
    MutexLock lock(&mutex_);
    DP_ASSIGN_OR_RETURN(
        database_,
        SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss));
    int64_t version = 0;
    {
      DP_ASSIGN_OR_RETURN(SqliteStatement read,
                          database_->Prepare("PRAGMA user_version"));
      DP_RETURN_IF_ERROR(read.Step().status());
      version = read.Integer(0);
    }
    if (version > kSchemaVersion) {
      return absl::FailedPreconditionError(absl::StrCat(
          "the job store ", path, " has schema ", version,
          ", this version knows ", kSchemaVersion,
          ": use the later deltapipe that wrote it, or another store"));
    }
    DP_RETURN_IF_ERROR(Migrate(version));
  }
  MutexLock lock(&log_mutex_);
  DP_ASSIGN_OR_RETURN(
      log_database_,
      SqliteDatabase::Open(path, SqliteDatabase::Durability::kProcessEnd));
  return absl::OkStatus();
}

absl::Status SqliteJobStore::Migrate(int64_t version) {
  DP_ASSIGN_OR_RETURN(SqliteTransaction transaction,
                      SqliteTransaction::Begin(database_.get()));
  if (version == 0) {
    DP_RETURN_IF_ERROR(database_->Execute(kSchema));
    version = 1;
  }
  for (; version < kSchemaVersion; ++version) {
    DP_RETURN_IF_ERROR(database_->Execute(kMigrations[version - 1]));
  }
  DP_RETURN_IF_ERROR(
      database_->Execute(absl::StrCat("PRAGMA user_version=", kSchemaVersion)));
  {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE counters SET value = value + 1 "
                           "WHERE name = 'epoch' RETURNING value"));
    DP_RETURN_IF_ERROR(update.Step().status());
    epoch_ = update.Integer(0);
    DP_RETURN_IF_ERROR(update.Run());
  }
  return transaction.Commit();
}

absl::Status SqliteJobStore::CheckEpoch() {
  DP_ASSIGN_OR_RETURN(
      SqliteStatement read,
      database_->Prepare("SELECT value FROM counters WHERE name = 'epoch'"));
  DP_RETURN_IF_ERROR(read.Step().status());
  const int64_t epoch = read.Integer(0);
  if (epoch == epoch_) return absl::OkStatus();
  const absl::Status taken_over = absl::AbortedError(
      absl::StrCat("another coordinator has taken over the job store (epoch ",
                   epoch, ", this one has ", epoch_, "): this one must end"));
  const auto tell = std::exchange(on_taken_over_, nullptr);
  if (tell) tell(taken_over);
  return taken_over;
}

absl::StatusOr<uint64_t> SqliteJobStore::NewGeneration() {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(SqliteTransaction transaction,
                      SqliteTransaction::Begin(database_.get()));
  DP_RETURN_IF_ERROR(CheckEpoch());
  int64_t generation = 0;
  {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE counters SET value = value + 1 "
                           "WHERE name = 'generation' RETURNING value"));
    DP_RETURN_IF_ERROR(update.Step().status());
    generation = update.Integer(0);
    DP_RETURN_IF_ERROR(update.Run());
  }
  DP_RETURN_IF_ERROR(transaction.Commit());
  return static_cast<uint64_t>(generation);
}

absl::StatusOr<int64_t> SqliteJobStore::InsertEvent(const std::string& job_id,
                                                    const v1::JobEvent& event) {
  v1::JobEvent stored = event;
  stored.clear_sequence();  // the row's number is it
  DP_ASSIGN_OR_RETURN(
      SqliteStatement insert,
      database_->Prepare("INSERT INTO events(job_id, event) VALUES(?, ?)"));
  insert.Bind(1, job_id);
  insert.Bind(2, stored.SerializeAsString());
  DP_RETURN_IF_ERROR(insert.Run());
  return database_->LastInsertRowid();
}

absl::StatusOr<StoredJob> SqliteJobStore::FindJob(const std::string& column,
                                                  const std::string& value) {
  DP_ASSIGN_OR_RETURN(SqliteStatement select,
                      database_->Prepare(absl::StrCat(
                          "SELECT number, job, plan, progress, stragglers, "
                          "tuning_answers FROM jobs WHERE ",
                          column, " = ?")));
  select.Bind(1, value);
  DP_ASSIGN_OR_RETURN(const bool has_row, select.Step());
  if (!has_row)
    return absl::NotFoundError(absl::StrCat("no job '", value, "'"));
  DP_ASSIGN_OR_RETURN(StoredJob stored, ReadJobRow(select));
  if (!select.IsNull(2)) {
    stored.plan.emplace();
    DP_RETURN_IF_ERROR(ParseRecord(select.Bytes(2), "plan", &*stored.plan));
  }
  if (!select.IsNull(3)) {
    stored.progress.emplace();
    DP_RETURN_IF_ERROR(
        ParseRecord(select.Bytes(3), "progress", &*stored.progress));
  }
  if (!select.IsNull(4)) stored.stragglers = select.Bytes(4);
  if (!select.IsNull(5)) stored.tuning_answers = select.Bytes(5);
  return stored;
}

absl::StatusOr<int64_t> SqliteJobStore::NumberOf(const std::string& id) {
  DP_ASSIGN_OR_RETURN(
      SqliteStatement select,
      database_->Prepare("SELECT number FROM jobs WHERE id = ?"));
  select.Bind(1, id);
  DP_ASSIGN_OR_RETURN(const bool has_row, select.Step());
  if (!has_row) return absl::NotFoundError(absl::StrCat("no job '", id, "'"));
  return select.Integer(0);
}

absl::StatusOr<CreatedJob> SqliteJobStore::CreateJob(const NewJob& job) {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(SqliteTransaction transaction,
                      SqliteTransaction::Begin(database_.get()));
  DP_RETURN_IF_ERROR(CheckEpoch());
  if (!job.request_id.empty()) {
    absl::StatusOr<StoredJob> known = FindJob("request_id", job.request_id);
    if (known.ok()) return CreatedJob{known->job, true};
    if (!absl::IsNotFound(known.status())) return known.status();
  }
  int64_t number = 0;
  {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement insert,
        database_->Prepare("INSERT INTO jobs(id, request_id, is_finished, job)"
                           " VALUES(randomblob(16), ?, 0, x'')"));
    if (job.request_id.empty()) {
      insert.BindNull(1);
    } else {
      insert.Bind(1, job.request_id);
    }
    DP_RETURN_IF_ERROR(insert.Run());
    number = database_->LastInsertRowid();
  }
  const NewJobRecord record = MakeNewJobRecord(job, number);
  {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE jobs SET id = ?, job = ? WHERE number = ?"));
    update.Bind(1, record.job.id());
    update.Bind(2, record.job.SerializeAsString());
    update.Bind(3, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  DP_RETURN_IF_ERROR(InsertEvent(record.job.id(), record.event).status());
  DP_RETURN_IF_ERROR(transaction.Commit());
  return CreatedJob{record.job, false};
}

absl::StatusOr<int64_t> SqliteJobStore::Commit(const JobChange& change) {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(SqliteTransaction transaction,
                      SqliteTransaction::Begin(database_.get()));
  DP_RETURN_IF_ERROR(CheckEpoch());
  DP_ASSIGN_OR_RETURN(const int64_t number, NumberOf(change.job_id));
  if (change.job.has_value()) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare(
            "UPDATE jobs SET is_finished = ?, job = ? WHERE number = ?"));
    update.Bind(1, IsFinished(change.job->state()) ? int64_t{1} : int64_t{0});
    update.Bind(2, change.job->SerializeAsString());
    update.Bind(3, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  if (change.plan.has_value()) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE jobs SET plan = ? WHERE number = ?"));
    update.Bind(1, change.plan->SerializeAsString());
    update.Bind(2, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  if (change.progress.has_value()) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE jobs SET progress = ? WHERE number = ?"));
    update.Bind(1, change.progress->SerializeAsString());
    update.Bind(2, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  if (change.stragglers.has_value()) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare("UPDATE jobs SET stragglers = ? WHERE number = ?"));
    update.Bind(1, *change.stragglers);
    update.Bind(2, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  if (change.tuning_answers.has_value()) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement update,
        database_->Prepare(
            "UPDATE jobs SET tuning_answers = ? WHERE number = ?"));
    update.Bind(1, *change.tuning_answers);
    update.Bind(2, number);
    DP_RETURN_IF_ERROR(update.Run());
  }
  int64_t sequence = 0;
  if (change.event.has_value()) {
    DP_ASSIGN_OR_RETURN(sequence, InsertEvent(change.job_id, *change.event));
  }
  DP_RETURN_IF_ERROR(transaction.Commit());
  return sequence;
}

absl::StatusOr<StoredJob> SqliteJobStore::GetJob(const std::string& id) {
  MutexLock lock(&mutex_);
  return FindJob("id", id);
}

absl::StatusOr<std::vector<StoredJob>> SqliteJobStore::ListJobs(
    const JobQuery& query) {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(
      SqliteStatement select,
      database_->Prepare("SELECT number, job FROM jobs"
                         " WHERE number < ? AND is_finished <= ?"
                         " ORDER BY number DESC LIMIT ?"));
  select.Bind(1, query.before_number > 0 ? query.before_number : INT64_MAX);
  select.Bind(2, query.include_finished ? int64_t{1} : int64_t{0});
  select.Bind(3, int64_t{query.limit});
  std::vector<StoredJob> jobs;
  for (;;) {
    DP_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return jobs;
    DP_ASSIGN_OR_RETURN(StoredJob stored, ReadJobRow(select));
    jobs.push_back(std::move(stored));
  }
}

absl::StatusOr<std::vector<v1::JobEvent>> SqliteJobStore::ReadEvents(
    const std::string& job_id, int64_t after_sequence, int limit) {
  MutexLock lock(&mutex_);
  DP_ASSIGN_OR_RETURN(SqliteStatement select,
                      database_->Prepare("SELECT sequence, event FROM events"
                                         " WHERE job_id = ? AND sequence > ?"
                                         " ORDER BY sequence LIMIT ?"));
  select.Bind(1, job_id);
  select.Bind(2, after_sequence);
  select.Bind(3, int64_t{limit});
  std::vector<v1::JobEvent> events;
  for (;;) {
    DP_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return events;
    v1::JobEvent event;
    DP_RETURN_IF_ERROR(ParseRecord(select.Bytes(1), "event", &event));
    event.set_sequence(select.Integer(0));
    events.push_back(std::move(event));
  }
}

absl::StatusOr<int64_t> SqliteJobStore::AppendLogs(
    const std::string& job_id, const std::vector<v1::LogLine>& lines) {
  {
    MutexLock lock(&mutex_);
    DP_RETURN_IF_ERROR(NumberOf(job_id).status());
  }
  MutexLock lock(&log_mutex_);
  DP_ASSIGN_OR_RETURN(SqliteTransaction transaction,
                      SqliteTransaction::Begin(log_database_.get()));
  for (const v1::LogLine& line : lines) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement insert,
        log_database_->Prepare("INSERT INTO logs(job_id, line) VALUES(?, ?)"));
    insert.Bind(1, job_id);
    insert.Bind(2, line.SerializeAsString());
    DP_RETURN_IF_ERROR(insert.Run());
  }
  const int64_t last = log_database_->LastInsertRowid();
  // Pruning walks the kept lines, so it is done once per kPruneEvery lines.
  const int64_t num_lines = static_cast<int64_t>(lines.size());
  if ((last - num_lines) / kPruneEvery != last / kPruneEvery) {
    DP_ASSIGN_OR_RETURN(
        SqliteStatement prune,
        log_database_->Prepare(
            "DELETE FROM logs WHERE job_id = ?1 AND sequence <= (SELECT "
            "sequence FROM logs WHERE job_id = ?1 ORDER BY sequence DESC "
            "LIMIT 1 OFFSET ?2)"));
    prune.Bind(1, job_id);
    prune.Bind(2, kMaxLogLines);
    DP_RETURN_IF_ERROR(prune.Run());
  }
  DP_RETURN_IF_ERROR(transaction.Commit());
  return last;
}

absl::StatusOr<std::vector<StoredLogLine>> SqliteJobStore::ReadLogs(
    const LogQuery& query) {
  MutexLock lock(&log_mutex_);
  const std::string matching =
      "SELECT sequence, line FROM logs WHERE job_id = ? AND sequence > ?";
  DP_ASSIGN_OR_RETURN(
      SqliteStatement select,
      log_database_->Prepare(
          query.tail > 0
              ? absl::StrCat("SELECT * FROM (", matching,
                             " ORDER BY sequence DESC LIMIT ", query.tail,
                             ") ORDER BY sequence LIMIT ?")
              : absl::StrCat(matching, " ORDER BY sequence LIMIT ?")));
  select.Bind(1, query.job_id);
  select.Bind(2, query.after_sequence);
  select.Bind(3, int64_t{query.limit});
  std::vector<StoredLogLine> lines;
  for (;;) {
    DP_ASSIGN_OR_RETURN(const bool has_row, select.Step());
    if (!has_row) return lines;
    StoredLogLine line;
    line.sequence = select.Integer(0);
    DP_RETURN_IF_ERROR(ParseRecord(select.Bytes(1), "log line", &line.line));
    lines.push_back(std::move(line));
  }
}

}  // namespace deltapipe
