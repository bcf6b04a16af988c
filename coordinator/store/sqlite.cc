#include "coordinator/store/sqlite.h"

#include <utility>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

absl::Status SqliteError(sqlite3* handle, int code, const std::string& path,
                         const char* action) {
  const std::string detail = absl::StrCat(
      "cannot ", action, " the job store ", path, ": ",
      handle != nullptr ? sqlite3_errmsg(handle) : sqlite3_errstr(code));
  switch (code & 0xff) {
    case SQLITE_FULL:
      return absl::ResourceExhaustedError(
          absl::StrCat(detail, ": free space on its disk"));
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
    case SQLITE_PERM:
    case SQLITE_AUTH:
      return absl::PermissionDeniedError(absl::StrCat(
          detail,
          ": make the file and its folder writable, or choose another "
          "place for the store"));
    case SQLITE_BUSY:
    case SQLITE_LOCKED:
      return absl::UnavailableError(
          absl::StrCat(detail, ": another program holds it, close that one"));
    case SQLITE_NOTADB:
      return absl::InvalidArgumentError(
          absl::StrCat(detail,
                       ": it is no job store; choose another place for the "
                       "store, or move that file away"));
    case SQLITE_CORRUPT:
      return absl::DataLossError(absl::StrCat(
          detail, ": it is damaged; move it away to start with an empty one"));
    case SQLITE_IOERR:
      return absl::UnavailableError(absl::StrCat(detail, ": check its disk"));
    default:
      return absl::InternalError(detail);
  }
}

}  // namespace

void SqliteStatement::Bind(int parameter, int64_t value) {
  sqlite3_bind_int64(statement_.get(), parameter, value);
}

void SqliteStatement::Bind(int parameter, const std::string& bytes) {
  sqlite3_bind_blob64(statement_.get(), parameter, bytes.data(), bytes.size(),
                      SQLITE_TRANSIENT);
}

void SqliteStatement::BindNull(int parameter) {
  sqlite3_bind_null(statement_.get(), parameter);
}

absl::StatusOr<bool> SqliteStatement::Step() {
  const int code = sqlite3_step(statement_.get());
  if (code == SQLITE_ROW) return true;
  if (code == SQLITE_DONE) return false;
  return SqliteError(sqlite3_db_handle(statement_.get()), code, path_,
                     "read or write");
}

absl::Status SqliteStatement::Run() {
  for (;;) {
    DP_ASSIGN_OR_RETURN(const bool has_row, Step());
    if (!has_row) return absl::OkStatus();
  }
}

int64_t SqliteStatement::Integer(int column) const {
  return sqlite3_column_int64(statement_.get(), column);
}

std::string SqliteStatement::Bytes(int column) const {
  const void* data = sqlite3_column_blob(statement_.get(), column);
  const int size = sqlite3_column_bytes(statement_.get(), column);
  if (data == nullptr) return std::string();
  return std::string(static_cast<const char*>(data), static_cast<size_t>(size));
}

bool SqliteStatement::IsNull(int column) const {
  return sqlite3_column_type(statement_.get(), column) == SQLITE_NULL;
}

absl::StatusOr<std::unique_ptr<SqliteDatabase>> SqliteDatabase::Open(
    const std::string& path, Durability durability) {
  sqlite3* handle = nullptr;
  const int code = sqlite3_open_v2(
      path.c_str(), &handle,
      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
      nullptr);
  if (code != SQLITE_OK) {
    const absl::Status error = SqliteError(handle, code, path, "open");
    sqlite3_close(handle);
    return error;
  }
  sqlite3_extended_result_codes(handle, 1);
  sqlite3_busy_timeout(handle, 5000);
  std::unique_ptr<SqliteDatabase> database(new SqliteDatabase(handle, path));
  DP_RETURN_IF_ERROR(database->Execute("PRAGMA journal_mode=WAL"));
  DP_RETURN_IF_ERROR(database->Execute(durability == Durability::kPowerLoss
                                           ? "PRAGMA synchronous=FULL"
                                           : "PRAGMA synchronous=NORMAL"));
  return database;
}

SqliteDatabase::~SqliteDatabase() { sqlite3_close_v2(handle_); }

absl::StatusOr<SqliteStatement> SqliteDatabase::Prepare(
    const std::string& sql) {
  sqlite3_stmt* statement = nullptr;
  const int code = sqlite3_prepare_v2(
      handle_, sql.data(), static_cast<int>(sql.size()), &statement, nullptr);
  if (code != SQLITE_OK) return SqliteError(handle_, code, path_, "query");
  return SqliteStatement(statement, path_);
}

absl::Status SqliteDatabase::Execute(const std::string& sql) {
  const int code =
      sqlite3_exec(handle_, sql.c_str(), nullptr, nullptr, nullptr);
  if (code != SQLITE_OK) return SqliteError(handle_, code, path_, "write");
  return absl::OkStatus();
}

int64_t SqliteDatabase::LastInsertRowid() const {
  return sqlite3_last_insert_rowid(handle_);
}

int64_t SqliteDatabase::NumChanges() const { return sqlite3_changes(handle_); }

absl::StatusOr<SqliteTransaction> SqliteTransaction::Begin(
    SqliteDatabase* database) {
  DP_RETURN_IF_ERROR(database->Execute("BEGIN IMMEDIATE"));
  return SqliteTransaction(database);
}

SqliteTransaction::SqliteTransaction(SqliteTransaction&& other) noexcept
    : database_(std::exchange(other.database_, nullptr)) {}

SqliteTransaction::~SqliteTransaction() {
  if (database_ == nullptr) return;
  // A failed rollback means that SQLite has rolled back already.
  database_->Execute("ROLLBACK").IgnoreError();
}

absl::Status SqliteTransaction::Commit() {
  DP_RETURN_IF_ERROR(database_->Execute("COMMIT"));
  database_ = nullptr;
  return absl::OkStatus();
}

}  // namespace deltapipe
