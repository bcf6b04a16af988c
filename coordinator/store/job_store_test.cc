// The conformance suite of JobStore, over both stores, and what only the one on
// disk can do.
#include "coordinator/store/job_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/store/memory_job_store.h"
#include "coordinator/store/sqlite_job_store.h"
#include "coordinator/store/timed_job_store.h"

namespace deltapipe {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

std::string FreshFolder() {
  const char* const base = getenv("TEST_TMPDIR");
  std::string path = absl::StrCat(base != nullptr ? base : "/tmp", "/XXXXXX");
  EXPECT_NE(mkdtemp(path.data()), nullptr);
  return path;
}

std::unique_ptr<JobStore> OpenSqlite(const std::string& path) {
  auto store = SqliteJobStore::Open(path);
  EXPECT_TRUE(store.ok()) << store.status();
  return store.ok() ? *std::move(store) : nullptr;
}

NewJob JobNamed(const std::string& name) {
  NewJob job;
  job.spec.set_name(name);
  job.time_millis = 1000;
  job.event_text = "submitted";
  return job;
}

v1::JobEvent EventOf(const std::string& text) {
  v1::JobEvent event;
  event.set_kind("worker");
  event.set_text(text);
  return event;
}

v1::LogLine LineOf(const std::string& text) {
  v1::LogLine line;
  line.set_text(text);
  return line;
}

std::vector<std::string> Texts(const std::vector<v1::JobEvent>& events) {
  std::vector<std::string> texts;
  for (const v1::JobEvent& event : events) texts.push_back(event.text());
  return texts;
}

std::vector<std::string> Texts(const std::vector<StoredLogLine>& lines) {
  std::vector<std::string> texts;
  for (const StoredLogLine& line : lines) texts.push_back(line.line.text());
  return texts;
}

std::vector<std::string> Ids(const std::vector<StoredJob>& jobs) {
  std::vector<std::string> ids;
  for (const StoredJob& job : jobs) ids.push_back(job.job.id());
  return ids;
}

class JobStoreTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    if (std::string(GetParam()) == "sqlite") {
      store_ = OpenSqlite(absl::StrCat(FreshFolder(), "/jobs.db"));
    } else {
      store_ = std::make_unique<MemoryJobStore>();
    }
    if (std::string(GetParam()) == "timed") {
      store_ = std::make_unique<TimedJobStore>(std::move(store_), &clock_);
    }
    ASSERT_NE(store_, nullptr);
  }
  std::string Create(const std::string& name) {
    const auto created = store_->CreateJob(JobNamed(name));
    EXPECT_TRUE(created.ok()) << created.status();
    return created.ok() ? created->job.id() : "";
  }
  void Finish(const std::string& id) {
    v1::Job job = store_->GetJob(id)->job;
    job.set_state(v1::JOB_STATE_SUCCEEDED);
    EXPECT_TRUE(store_->Commit({id, job, std::nullopt, std::nullopt}).ok());
  }

  FakeClock clock_;
  std::unique_ptr<JobStore> store_;
};

INSTANTIATE_TEST_SUITE_P(Stores, JobStoreTest,
                         ::testing::Values("memory", "sqlite", "timed"));

/// A store on a disk that takes its time.
class SlowStore : public MemoryJobStore {
 public:
  explicit SlowStore(FakeClock* clock) : clock_(clock) {}
  absl::StatusOr<int64_t> Commit(const JobChange& change) override {
    clock_->Advance(std::chrono::milliseconds(30));
    return MemoryJobStore::Commit(change);
  }
  absl::StatusOr<StoredJob> GetJob(const std::string& id) override {
    clock_->Advance(std::chrono::seconds(1));
    return MemoryJobStore::GetJob(id);
  }

 private:
  FakeClock* const clock_;
};

TEST(TimedJobStoreTest, TransactionsThatWriteAreTimedFailedOnesIncluded) {
  FakeClock clock;
  TimedJobStore store(std::make_unique<SlowStore>(&clock), &clock);
  ASSERT_TRUE(store.CreateJob(JobNamed("text")).ok());
  ASSERT_TRUE(store.GetJob("text-1").ok());
  const v1::Histogram before = store.commit_seconds();

  ASSERT_TRUE(
      store.Commit({"text-1", std::nullopt, std::nullopt, EventOf("a")}).ok());
  ASSERT_FALSE(
      store.Commit({"text-9", std::nullopt, std::nullopt, EventOf("b")}).ok());

  EXPECT_EQ(before.counts(0), 1);  // made at once
  EXPECT_DOUBLE_EQ(before.sum(), 0);
  const v1::Histogram after = store.commit_seconds();
  EXPECT_DOUBLE_EQ(after.sum(), 0.06);
  EXPECT_EQ(after.bounds(6), 0.05);
  EXPECT_EQ(after.counts(6), 2);
}

TEST_P(JobStoreTest, GenerationsRise) {
  const uint64_t first = *store_->NewGeneration();
  const uint64_t second = *store_->NewGeneration();

  EXPECT_GT(first, 0u);
  EXPECT_GT(second, first);
}

TEST_P(JobStoreTest, JobIsCreatedPendingWithItsFirstEvent) {
  const auto created = store_->CreateJob(JobNamed("text"));

  ASSERT_TRUE(created.ok());
  EXPECT_FALSE(created->is_duplicate);
  EXPECT_EQ(created->job.id(), "text-1");
  EXPECT_EQ(created->job.state(), v1::JOB_STATE_PENDING);
  EXPECT_EQ(created->job.run_folder(), "");  // the writer's business
  EXPECT_EQ(created->job.create_time_millis(), 1000);
  const auto events = *store_->ReadEvents("text-1", 0, 10);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0].kind(), "state");
  EXPECT_EQ(events[0].state(), v1::JOB_STATE_PENDING);
  EXPECT_GT(events[0].sequence(), 0);
}

TEST_P(JobStoreTest, RequestIdIsRememberedAcrossNames) {
  NewJob job = JobNamed("text");
  job.request_id = "r1";
  const std::string first = store_->CreateJob(job)->job.id();
  job.spec.set_name("other");

  const auto again = *store_->CreateJob(job);

  EXPECT_TRUE(again.is_duplicate);
  EXPECT_EQ(again.job.id(), first);
  EXPECT_THAT(Ids(*store_->ListJobs(JobQuery())), ElementsAre(first));
  EXPECT_EQ(store_->ReadEvents(first, 0, 10)->size(), 1u);
}

TEST_P(JobStoreTest, JobsWithoutRequestIdAreAllCreated) {
  EXPECT_EQ(Create("text"), "text-1");
  EXPECT_EQ(Create("text"), "text-2");
}

TEST_P(JobStoreTest, CommitStoresAllPartsTogether) {
  const std::string id = Create("text");
  v1::Job job = store_->GetJob(id)->job;
  job.set_state(v1::JOB_STATE_RUNNING);
  job.set_reason("trains");
  v1::Plan plan;
  plan.set_num_stages(4);

  const auto sequence = store_->Commit({id, job, plan, EventOf("trains")});

  ASSERT_TRUE(sequence.ok());
  const StoredJob stored = *store_->GetJob(id);
  EXPECT_EQ(stored.job.reason(), "trains");
  ASSERT_TRUE(stored.plan.has_value());
  EXPECT_EQ(stored.plan->num_stages(), 4);
  const auto events = *store_->ReadEvents(id, 0, 10);
  EXPECT_THAT(Texts(events), ElementsAre("submitted", "trains"));
  EXPECT_EQ(events.back().sequence(), *sequence);
}

TEST_P(JobStoreTest, AbsentPartsStayAsTheyAre) {
  const std::string id = Create("text");
  v1::Plan plan;
  plan.set_num_stages(4);
  ASSERT_TRUE(store_->Commit({id, std::nullopt, plan, std::nullopt}).ok());

  EXPECT_EQ(*store_->Commit(
                {id, store_->GetJob(id)->job, std::nullopt, std::nullopt}),
            0);

  EXPECT_EQ(store_->GetJob(id)->plan->num_stages(), 4);
  EXPECT_EQ(store_->ReadEvents(id, 0, 10)->size(), 1u);
}

TEST_P(JobStoreTest, ProgressIsStoredWithWhatItBelongsTo) {
  const std::string id = Create("text");
  v1::JobProgress progress;
  progress.set_num_complete(12);
  JobChange change{id, std::nullopt, std::nullopt, EventOf("half way")};
  change.progress = progress;

  ASSERT_TRUE(store_->Commit(change).ok());

  ASSERT_TRUE(store_->GetJob(id)->progress.has_value());
  EXPECT_EQ(store_->GetJob(id)->progress->num_complete(), 12);
}

TEST_P(JobStoreTest, CommitToNoJobStoresNothing) {
  const std::string id = Create("text");
  v1::JobEvent event = EventOf("lost");

  const auto sequence =
      store_->Commit({"text-9", std::nullopt, std::nullopt, event});

  EXPECT_EQ(sequence.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*store_->ReadEvents("text-9", 0, 10), IsEmpty());
  EXPECT_EQ(store_->GetJob("text-9").status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(JobStoreTest, EventsOfAJobAreReadInOrderAndInPieces) {
  const std::string a = Create("a");
  const std::string b = Create("b");
  for (const char* text : {"1", "2", "3"}) {
    ASSERT_TRUE(
        store_->Commit({a, std::nullopt, std::nullopt, EventOf(text)}).ok());
    ASSERT_TRUE(
        store_->Commit({b, std::nullopt, std::nullopt, EventOf("b")}).ok());
  }

  const auto first = *store_->ReadEvents(a, 0, 2);
  const auto rest = *store_->ReadEvents(a, first.back().sequence(), 10);

  EXPECT_THAT(Texts(first), ElementsAre("submitted", "1"));
  EXPECT_THAT(Texts(rest), ElementsAre("2", "3"));
  EXPECT_GT(rest[0].sequence(), first[1].sequence());
}

TEST_P(JobStoreTest, ListIsNewestFirstAndPaged) {
  for (int i = 0; i < 5; ++i) Create("text");
  Finish("text-4");

  JobQuery query;
  query.limit = 2;
  const auto page = *store_->ListJobs(query);
  query.before_number = page.back().number;
  const auto next = *store_->ListJobs(query);
  query.limit = 10;
  query.before_number = 0;
  query.include_finished = false;
  const auto unfinished = *store_->ListJobs(query);

  EXPECT_THAT(Ids(page), ElementsAre("text-5", "text-4"));
  EXPECT_THAT(Ids(next), ElementsAre("text-3", "text-2"));
  EXPECT_THAT(Ids(unfinished),
              ElementsAre("text-5", "text-3", "text-2", "text-1"));
}

TEST_P(JobStoreTest, LogsAreReadFromAPointOrFromTheTail) {
  const std::string id = Create("text");
  const std::string other = Create("text");
  ASSERT_TRUE(store_->AppendLogs(id, {LineOf("1"), LineOf("2")}).ok());
  ASSERT_TRUE(store_->AppendLogs(other, {LineOf("x")}).ok());
  const int64_t last = *store_->AppendLogs(id, {LineOf("3"), LineOf("4")});

  LogQuery query;
  query.job_id = id;
  const auto all = *store_->ReadLogs(query);
  query.tail = 2;
  const auto tail = *store_->ReadLogs(query);
  query.tail = 0;
  query.limit = 1;
  query.after_sequence = all[1].sequence;
  const auto one = *store_->ReadLogs(query);

  EXPECT_THAT(Texts(all), ElementsAre("1", "2", "3", "4"));
  EXPECT_EQ(all.back().sequence, last);
  EXPECT_THAT(Texts(tail), ElementsAre("3", "4"));
  EXPECT_THAT(Texts(one), ElementsAre("3"));
}

TEST_P(JobStoreTest, LogsOfNoJobAreRefused) {
  EXPECT_EQ(store_->AppendLogs("text-9", {LineOf("1")}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_P(JobStoreTest, OldestLogLinesAreDropped) {
  const std::string id = Create("text");
  const int64_t num_lines = JobStore::kMaxLogLines + 2000;
  for (int64_t first = 0; first < num_lines; first += 500) {
    std::vector<v1::LogLine> lines;
    for (int64_t i = first; i < first + 500; ++i) {
      lines.push_back(LineOf(absl::StrCat(i)));
    }
    ASSERT_TRUE(store_->AppendLogs(id, lines).ok());
  }

  LogQuery query;
  query.job_id = id;
  query.limit = 1 << 20;
  const auto kept = *store_->ReadLogs(query);

  EXPECT_GE(static_cast<int64_t>(kept.size()), JobStore::kMaxLogLines);
  EXPECT_LT(static_cast<int64_t>(kept.size()), JobStore::kMaxLogLines + 1000);
  EXPECT_EQ(kept.back().line.text(), absl::StrCat(num_lines - 1));
}

TEST(SqliteJobStoreTest, EverythingSurvivesReopening) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  uint64_t generation = 0;
  int64_t sequence = 0;
  NewJob job = JobNamed("text");
  job.request_id = "r1";
  {
    const auto store = OpenSqlite(path);
    generation = *store->NewGeneration();
    ASSERT_TRUE(store->CreateJob(job).ok());
    v1::Plan plan;
    plan.set_schedule("gpipe");
    sequence =
        *store->Commit({"text-1", std::nullopt, plan, EventOf("planned")});
    ASSERT_TRUE(store->AppendLogs("text-1", {LineOf("hello")}).ok());
  }

  const auto store = OpenSqlite(path);

  EXPECT_GT(*store->NewGeneration(), generation);
  EXPECT_TRUE(store->CreateJob(job)->is_duplicate);
  EXPECT_EQ(store->GetJob("text-1")->plan->schedule(), "gpipe");
  EXPECT_THAT(Texts(*store->ReadEvents("text-1", 0, 10)),
              ElementsAre("submitted", "planned"));
  LogQuery query;
  query.job_id = "text-1";
  EXPECT_THAT(Texts(*store->ReadLogs(query)), ElementsAre("hello"));
  EXPECT_GT(
      *store->Commit({"text-1", std::nullopt, std::nullopt, EventOf("later")}),
      sequence);
  EXPECT_EQ(store->CreateJob(JobNamed("text"))->job.id(), "text-2");
}

TEST(SqliteJobStoreTest, SecondCoordinatorIsRefusedAndNamesTheFirst) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  const auto store = OpenSqlite(path);

  const auto second = SqliteJobStore::Open(path);

  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("pid ", getpid())));
}

TEST(SqliteJobStoreTest, WhoeverWasOvertakenMayNotWrite) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  std::vector<absl::Status> told;
  const auto old = *SqliteJobStore::Open(
      path, [&](const absl::Status& status) { told.push_back(status); });
  ASSERT_TRUE(old->CreateJob(JobNamed("text")).ok());
  // As where the lock does not reach: on a volume that two hosts share.
  ASSERT_EQ(unlink((path + ".lock").c_str()), 0);
  const auto overtaker = OpenSqlite(path);

  EXPECT_EQ(old->NewGeneration().status().code(), absl::StatusCode::kAborted);
  EXPECT_EQ(old->CreateJob(JobNamed("late")).status().code(),
            absl::StatusCode::kAborted);
  const auto committed =
      old->Commit({"text-1", std::nullopt, std::nullopt, EventOf("late")});

  EXPECT_EQ(committed.status().code(), absl::StatusCode::kAborted);
  EXPECT_THAT(std::string(committed.status().message()),
              HasSubstr("taken over the job store (epoch 2, this one has 1)"));
  ASSERT_EQ(told.size(), 1u) << "once";
  EXPECT_EQ(told[0], committed.status());
  EXPECT_THAT(Texts(*overtaker->ReadEvents("text-1", 0, 10)),
              ElementsAre("submitted"));
}

TEST_P(JobStoreTest, StragglersAreKeptUntilTheyChange) {
  const std::string id = Create("text");
  JobChange change;
  change.job_id = id;
  change.stragglers = "{\"found\": 1}";

  EXPECT_EQ(store_->GetJob(id)->stragglers, "");
  ASSERT_TRUE(store_->Commit(change).ok());
  Finish(id);
  EXPECT_EQ(store_->GetJob(id)->stragglers, "{\"found\": 1}");
  change.stragglers = "";
  ASSERT_TRUE(store_->Commit(change).ok());
  EXPECT_EQ(store_->GetJob(id)->stragglers, "");
}

TEST_P(JobStoreTest, AnswersToChangesOfKnobsAreKeptUntilTheyChange) {
  const std::string id = Create("text");
  JobChange change;
  change.job_id = id;
  change.tuning_answers = "[1]";

  EXPECT_EQ(store_->GetJob(id)->tuning_answers, "");
  ASSERT_TRUE(store_->Commit(change).ok());
  Finish(id);
  EXPECT_EQ(store_->GetJob(id)->tuning_answers, "[1]");
}

TEST(SqliteJobStoreTest, StoreOfTheThirdSchemaIsBroughtUp) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  OpenSqlite(path)->CreateJob(JobNamed("text")).status().IgnoreError();
  {
    auto database =
        *SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss);
    ASSERT_TRUE(database
                    ->Execute("ALTER TABLE jobs DROP COLUMN tuning_answers;"
                              "PRAGMA user_version=3")
                    .ok());
  }

  const auto store = OpenSqlite(path);

  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->GetJob("text-1")->tuning_answers, "");
}

TEST(SqliteJobStoreTest, StoreOfTheSecondSchemaIsBroughtUp) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  OpenSqlite(path)->CreateJob(JobNamed("text")).status().IgnoreError();
  {
    auto database =
        *SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss);
    ASSERT_TRUE(database
                    ->Execute("ALTER TABLE jobs DROP COLUMN tuning_answers;"
                              "ALTER TABLE jobs DROP COLUMN stragglers;"
                              "PRAGMA user_version=2")
                    .ok());
  }

  const auto store = OpenSqlite(path);

  ASSERT_NE(store, nullptr);
  EXPECT_EQ(store->GetJob("text-1")->stragglers, "");
}

TEST(SqliteJobStoreTest, StoreOfTheFirstSchemaIsBroughtUp) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  OpenSqlite(path)->CreateJob(JobNamed("text")).status().IgnoreError();
  {
    auto database =
        *SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss);
    ASSERT_TRUE(database
                    ->Execute("ALTER TABLE jobs DROP COLUMN progress;"
                              "ALTER TABLE jobs DROP COLUMN stragglers;"
                              "ALTER TABLE jobs DROP COLUMN tuning_answers;"
                              "DELETE FROM counters WHERE name = 'epoch';"
                              "PRAGMA user_version=1")
                    .ok());
  }

  const auto store = OpenSqlite(path);

  ASSERT_NE(store, nullptr);
  EXPECT_FALSE(store->GetJob("text-1")->progress.has_value());
}

TEST(SqliteJobStoreTest, LaterSchemaIsRefused) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  OpenSqlite(path).reset();
  {
    auto database =
        *SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss);
    ASSERT_TRUE(database->Execute("PRAGMA user_version=7").ok());
  }

  const auto store = SqliteJobStore::Open(path);

  EXPECT_EQ(store.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr("schema 7"));
}

TEST(SqliteJobStoreTest, FileThatIsNoDatabaseIsRefused) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  std::ofstream(path) << std::string(4096, 'x');

  const auto store = SqliteJobStore::Open(path);

  EXPECT_EQ(store.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(store.status().message()),
              AllOf(HasSubstr(path), HasSubstr("is no database")));
  EXPECT_NE(access(absl::StrCat(path, ".lock").c_str(), F_OK), 0);
}

TEST(SqliteJobStoreTest, FolderIsSaidToBeOneAndNothingIsLeftBesideIt) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs");
  ASSERT_EQ(mkdir(path.c_str(), 0755), 0);

  const auto store = SqliteJobStore::Open(path);

  EXPECT_EQ(store.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(store.status().message()),
              AllOf(HasSubstr("is a folder"),
                    HasSubstr(absl::StrCat(path, "/coordinator.db"))));
  EXPECT_NE(access(absl::StrCat(path, ".lock").c_str(), F_OK), 0);
}

TEST(SqliteJobStoreTest, EmptyFileBecomesAStore) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  std::ofstream(path).flush();

  const auto store = OpenSqlite(path);

  ASSERT_NE(store, nullptr);
  EXPECT_TRUE(store->NewGeneration().ok());
}

TEST(SqliteJobStoreTest, LockGoesWithItsHolder) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  const std::string lock = absl::StrCat(path, ".lock");
  auto store = OpenSqlite(path);
  EXPECT_EQ(access(lock.c_str(), F_OK), 0);

  store.reset();

  EXPECT_NE(access(lock.c_str(), F_OK), 0);
  EXPECT_NE(OpenSqlite(path), nullptr);
}

TEST(SqliteJobStoreTest, MissingFolderIsNamed) {
  const std::string folder = absl::StrCat(FreshFolder(), "/none");

  const auto store = SqliteJobStore::Open(absl::StrCat(folder, "/jobs.db"));

  EXPECT_EQ(store.status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(store.status().message()), HasSubstr(folder));
}

TEST(SqliteJobStoreTest, FullDiskIsSaidAndLeavesTheStoreUsable) {
  const std::string path = absl::StrCat(FreshFolder(), "/jobs.db");
  auto database =
      *SqliteDatabase::Open(path, SqliteDatabase::Durability::kPowerLoss);
  ASSERT_TRUE(database
                  ->Execute("CREATE TABLE t(x); "
                            "PRAGMA max_page_count=3")
                  .ok());

  const absl::Status full =
      database->Execute("INSERT INTO t VALUES(zeroblob(100000))");
  const absl::Status small = database->Execute("INSERT INTO t VALUES(1)");

  EXPECT_EQ(full.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(full.message()), HasSubstr("free space"));
  EXPECT_TRUE(small.ok()) << small;
}

}  // namespace
}  // namespace deltapipe
