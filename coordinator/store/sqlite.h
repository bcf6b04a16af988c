// The little of SQLite's C interface that the store needs, with Status for
// errors and RAII for handles.
//
//   DP_ASSIGN_OR_RETURN(auto db, SqliteDatabase::Open(path, {}));
//   DP_ASSIGN_OR_RETURN(SqliteStatement select, db->Prepare("SELECT ..."));
//   select.Bind(1, id);
//   DP_ASSIGN_OR_RETURN(bool has_row, select.Step());
#ifndef DELTAPIPE_COORDINATOR_STORE_SQLITE_H_
#define DELTAPIPE_COORDINATOR_STORE_SQLITE_H_

#include <sqlite3.h>

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"

namespace deltapipe {

class SqliteStatement {
 public:
  SqliteStatement(SqliteStatement&&) = default;

  /// Parameters count from 1.
  void Bind(int parameter, int64_t value);
  void Bind(int parameter, const std::string& bytes);
  void BindNull(int parameter);
  /// Whether there is a row to read; without one the statement has ended.
  absl::StatusOr<bool> Step();
  /// Runs to the end, ignoring rows.
  absl::Status Run();
  /// Columns count from 0.
  int64_t Integer(int column) const;
  std::string Bytes(int column) const;
  bool IsNull(int column) const;

 private:
  friend class SqliteDatabase;
  struct Finalize {
    void operator()(sqlite3_stmt* statement) const {
      sqlite3_finalize(statement);
    }
  };
  SqliteStatement(sqlite3_stmt* statement, std::string path)
      : statement_(statement), path_(std::move(path)) {}

  std::unique_ptr<sqlite3_stmt, Finalize> statement_;
  std::string path_;
};

/// One connection. Not thread-safe.
class SqliteDatabase {
 public:
  enum class Durability {
    kPowerLoss,   // synchronous=FULL
    kProcessEnd,  // synchronous=NORMAL: the last commits may be lost with power
  };

  /// Creates the file if it is not there. WAL mode, waits up to 5 s for a
  /// writer. PERMISSION_DENIED: the file or its folder cannot be written, or
  /// the folder is missing. INVALID_ARGUMENT: it is not a database. DATA_LOSS:
  /// it is a damaged one.
  static absl::StatusOr<std::unique_ptr<SqliteDatabase>> Open(
      const std::string& path, Durability durability);
  ~SqliteDatabase();

  absl::StatusOr<SqliteStatement> Prepare(const std::string& sql);
  /// Runs statements without parameters.
  absl::Status Execute(const std::string& sql);
  int64_t LastInsertRowid() const;
  int64_t NumChanges() const;

 private:
  SqliteDatabase(sqlite3* handle, std::string path)
      : handle_(handle), path_(std::move(path)) {}

  sqlite3* const handle_;
  const std::string path_;
};

/// Rolls back when destroyed, unless committed.
class SqliteTransaction {
 public:
  static absl::StatusOr<SqliteTransaction> Begin(SqliteDatabase* database);
  SqliteTransaction(SqliteTransaction&& other) noexcept;
  ~SqliteTransaction();
  absl::Status Commit();

 private:
  explicit SqliteTransaction(SqliteDatabase* database) : database_(database) {}
  SqliteDatabase* database_;  // null once committed
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_SQLITE_H_
