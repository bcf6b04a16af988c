#include "compression/delta/state_store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "compression/delta/record_set.h"

namespace deltapipe {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Pair;

constexpr int64_t kRecordBytes = 8;

RecordPtr MakeRecord(uint32_t version, uint8_t content) {
  auto record = std::make_shared<Record>();
  record->version = version;
  record->values = Buffer::CopyOf(std::vector<uint8_t>(kRecordBytes, content));
  return record;
}

/// Keys, versions and contents in the store.
std::map<uint64_t, std::pair<uint32_t, uint8_t>> Content(
    const StateStore& store) {
  std::map<uint64_t, std::pair<uint32_t, uint8_t>> content;
  store.ForEach([&](uint64_t key, const RecordPtr& record) {
    content[key] = {record->version, record->values.span()[0]};
    return true;
  });
  return content;
}

/// The hash of a store that was filled from nothing with the same records.
uint64_t FreshHash(const StateStore& store) {
  auto fresh = MakeMemoryStateStore();
  for (const auto& [key, record] : Content(store)) {
    fresh->Stage(1, key, MakeRecord(record.first, record.second));
  }
  return fresh->Hash();
}

class StateStoreTest : public testing::Test {
 protected:
  void Stage(uint32_t step, uint64_t key, uint32_t version) {
    store_->Stage(step, key,
                  MakeRecord(version, static_cast<uint8_t>(version)));
  }
  uint32_t VersionOf(uint64_t key) {
    const RecordPtr record = store_->Read(key);
    return record == nullptr ? 0 : record->version;
  }

  std::unique_ptr<StateStore> store_ = MakeMemoryStateStore();
};

TEST_F(StateStoreTest, ReadsWhatWasStaged) {
  Stage(1, 5, 1);
  EXPECT_EQ(VersionOf(5), 1);
  Stage(1, 5, 2);
  EXPECT_EQ(VersionOf(5), 2);
  store_->Stage(1, 5, nullptr);
  EXPECT_EQ(store_->Read(5), nullptr);
  EXPECT_EQ(store_->Read(6), nullptr);
}

TEST_F(StateStoreTest, RecordsOutliveTheirReplacement) {
  Stage(1, 5, 1);
  const RecordPtr held = store_->Read(5);

  Stage(2, 5, 2);
  store_->CommitStep(2);
  store_.reset();

  EXPECT_EQ(held->version, 1);
  EXPECT_EQ(held->values.span()[0], 1);
}

TEST_F(StateStoreTest, UsageCountsLiveAndFormerRecords) {
  Stage(1, 5, 1);
  Stage(1, 6, 2);
  store_->CommitStep(1);
  Stage(2, 5, 3);
  Stage(2, 5, 4);

  EXPECT_EQ(store_->usage().num_records, 2);
  EXPECT_EQ(store_->usage().bytes, 2 * kRecordBytes);
  EXPECT_EQ(store_->usage().former_bytes, kRecordBytes);
  EXPECT_EQ(store_->usage().last_version, 4);

  store_->CommitStep(2);
  EXPECT_EQ(store_->usage().former_bytes, 0);
}

TEST_F(StateStoreTest, FormerRecordsOfManyVisitsAreOneAKey) {
  Stage(1, 5, 1);
  store_->CommitStep(1);
  for (uint32_t step = 2; step < 100; ++step) Stage(step, 5, step);

  // One for the commit, one for the step in flight.
  EXPECT_EQ(store_->usage().former_bytes, 2 * kRecordBytes);
  EXPECT_TRUE(store_->RollbackTo(1).ok());
  EXPECT_EQ(VersionOf(5), 1);
}

TEST_F(StateStoreTest, ForEachGoesByVersionAndStopsWhenAsked) {
  Stage(1, 30, 1);
  Stage(1, 10, 2);
  Stage(1, 20, 3);
  Stage(1, 30, 4);
  std::vector<uint64_t> keys;
  store_->ForEach([&](uint64_t key, const RecordPtr&) {
    keys.push_back(key);
    return keys.size() < 2;
  });

  EXPECT_THAT(keys, ElementsAre(10, 20));
}

TEST_F(StateStoreTest, RollsBackTheStepInFlight) {
  Stage(1, 5, 1);
  store_->CommitStep(1);
  Stage(2, 5, 2);
  Stage(3, 5, 3);
  Stage(3, 6, 4);

  ASSERT_TRUE(store_->RollbackTo(2).ok());

  EXPECT_EQ(VersionOf(5), 2);
  EXPECT_EQ(VersionOf(6), 0);
  EXPECT_EQ(store_->usage().last_version, 2);
}

TEST_F(StateStoreTest, RollsBackToTheCommitAfterManySteps) {
  Stage(1, 5, 1);
  Stage(1, 6, 2);
  store_->CommitStep(1);
  const auto content = Content(*store_);
  for (uint32_t step = 2; step < 9; ++step) {
    Stage(step, step % 3 + 5, 10 * step);
    store_->Stage(step, 6, nullptr);
  }

  ASSERT_TRUE(store_->RollbackTo(1).ok());

  EXPECT_EQ(Content(*store_), content);
  EXPECT_EQ(store_->usage().last_version, 2);
  EXPECT_EQ(store_->usage().former_bytes, 0);
}

TEST_F(StateStoreTest, RollsBackTwice) {
  store_->CommitStep(5);
  for (uint32_t step = 6; step < 9; ++step) Stage(step, 1, step);

  ASSERT_TRUE(store_->RollbackTo(7).ok());
  EXPECT_EQ(VersionOf(1), 7);
  EXPECT_EQ(store_->RollbackTo(6).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(VersionOf(1), 7);
  ASSERT_TRUE(store_->RollbackTo(5).ok());
  EXPECT_EQ(VersionOf(1), 0);
}

TEST_F(StateStoreTest, GoesOnAfterARollback) {
  store_->CommitStep(5);
  for (uint32_t step = 6; step < 9; ++step) Stage(step, 1, step);
  ASSERT_TRUE(store_->RollbackTo(7).ok());
  Stage(8, 1, 80);
  ASSERT_TRUE(store_->RollbackTo(7).ok());
  EXPECT_EQ(VersionOf(1), 7);
  Stage(8, 2, 81);
  store_->CommitStep(8);

  EXPECT_TRUE(store_->RollbackTo(8).ok());
  EXPECT_EQ(store_->RollbackTo(7).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(Content(*store_),
              ElementsAre(Pair(1, Pair(7, 7)), Pair(2, Pair(81, 81))));
}

TEST_F(StateStoreTest, UnknownStepsAreRefusedByNameAndNothingIsUndone) {
  store_->CommitStep(5);
  for (uint32_t step = 6; step < 9; ++step) Stage(step, 1, step);

  const absl::Status status = store_->RollbackTo(6);

  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("step 6: expected step 5 (the last commit) or 7"));
  EXPECT_EQ(VersionOf(1), 8);
}

TEST_F(StateStoreTest, CommitBehindTheStepInFlightKeepsThatStepUndoable) {
  Stage(1, 1, 1);
  Stage(2, 1, 2);

  store_->CommitStep(1);

  ASSERT_TRUE(store_->RollbackTo(1).ok());
  EXPECT_EQ(VersionOf(1), 1);
  EXPECT_EQ(store_->usage().last_version, 1);
}

TEST_F(StateStoreTest, ARecordThatNobodyHoldsIsFilledAgain) {
  store_->Stage(1, 5, *store_->NewRecord(1, kRecordBytes));
  store_->CommitStep(1);
  const uint8_t* const former = store_->Read(5)->values.data();
  store_->Stage(2, 5, *store_->NewRecord(2, kRecordBytes));

  store_->CommitStep(2);

  const std::shared_ptr<Record> again = *store_->NewRecord(3, kRecordBytes);
  EXPECT_EQ(again->values.data(), former);
  EXPECT_EQ(again->version, 3);
  EXPECT_EQ(VersionOf(5), 2);
}

TEST_F(StateStoreTest, ARecordThatSomebodyHoldsIsLeftAlone) {
  store_->Stage(1, 5, *store_->NewRecord(1, kRecordBytes));
  store_->CommitStep(1);
  const RecordPtr held = store_->Read(5);
  store_->Stage(2, 5, *store_->NewRecord(2, kRecordBytes));

  store_->CommitStep(2);

  EXPECT_NE(*store_->NewRecord(3, kRecordBytes), held);
  EXPECT_EQ(held->version, 1);
}

TEST_F(StateStoreTest, ARecordOfAnotherSizeIsNotFilledAgain) {
  store_->GiveBack(*store_->NewRecord(1, 8));

  EXPECT_EQ((*store_->NewRecord(2, 24))->values.size(), 24);
}

TEST_F(StateStoreTest, ARollbackLeavesRecordsToFillAgain) {
  store_->Stage(1, 5, *store_->NewRecord(1, kRecordBytes));
  store_->CommitStep(1);
  store_->Stage(2, 5, *store_->NewRecord(2, kRecordBytes));
  const uint8_t* const undone = store_->Read(5)->values.data();

  ASSERT_TRUE(store_->RollbackTo(1).ok());

  EXPECT_EQ((*store_->NewRecord(2, kRecordBytes))->values.data(), undone);
  EXPECT_EQ(VersionOf(5), 1);
}

TEST_F(StateStoreTest, NoMoreRecordsAreIdleThanWereMadeBetweenTwoCommits) {
  std::vector<std::weak_ptr<const Record>> records;
  for (uint32_t step = 1; step <= 10; ++step) {
    for (const uint32_t key : {2 * step, 2 * step + 1}) {
      store_->Stage(step, key, *store_->NewRecord(key, kRecordBytes));
      records.push_back(store_->Read(key));
    }
    store_->CommitStep(step);
  }
  for (uint32_t key = 2; key < 22; ++key) store_->Stage(11, key, nullptr);

  store_->CommitStep(11);

  EXPECT_EQ(std::count_if(records.begin(), records.end(),
                          [](const auto& record) { return !record.expired(); }),
            2);
}

TEST_F(StateStoreTest, RandomHistoriesRollBackToTheirSnapshots) {
  // A model of whole copies beside the store: after each rollback they agree.
  constexpr uint32_t kSeed = 7;
  SCOPED_TRACE(testing::Message() << "seed " << kSeed);
  std::mt19937 random(kSeed);
  std::map<uint32_t, std::map<uint64_t, std::pair<uint32_t, uint8_t>>> after;
  after[0] = {};
  uint32_t step = 0;
  uint32_t commit = 0;
  uint32_t version = 0;
  bool has_rolled_back = false;
  for (int round = 0; round < 3000; ++round) {
    ++step;
    for (uint32_t i = random() % 4 + 1; i > 0; --i) {
      const uint64_t key = random() % 12;
      if (random() % 5 == 0) {
        store_->Stage(step, key, nullptr);
      } else {
        Stage(step, key, ++version);
      }
    }
    after[step] = Content(*store_);
    switch (random() % 6) {
      case 0:
        store_->CommitStep(step);
        commit = step;
        has_rolled_back = false;
        break;
      case 1:
        // Only the commit is left to go back to after a step was undone.
        step = has_rolled_back || random() % 2 == 0 ? commit : step - 1;
        ASSERT_TRUE(store_->RollbackTo(step).ok());
        has_rolled_back = step != commit;
        break;
      default:
        has_rolled_back = false;
    }
    ASSERT_EQ(Content(*store_), after[step]) << "round " << round;
    ASSERT_EQ(store_->Hash(), FreshHash(*store_)) << "round " << round;
    ASSERT_EQ(store_->usage().num_records, after[step].size());
    ASSERT_EQ(store_->usage().bytes, kRecordBytes * after[step].size());
    ASSERT_LE(store_->usage().former_bytes, 2 * 12 * kRecordBytes);
  }
}

TEST_F(StateStoreTest, HashDependsOnKeyVersionAndContentOnly) {
  Stage(1, 1, 1);
  Stage(1, 2, 2);
  const uint64_t hash = store_->Hash();

  auto other_order = MakeMemoryStateStore();
  other_order->Stage(4, 2, MakeRecord(2, 2));
  other_order->Stage(5, 7, MakeRecord(9, 9));
  other_order->Stage(6, 1, MakeRecord(1, 1));
  EXPECT_NE(other_order->Hash(), hash);
  other_order->Stage(7, 7, nullptr);
  EXPECT_EQ(other_order->Hash(), hash);

  Stage(2, 2, 3);
  EXPECT_NE(store_->Hash(), hash);
  store_->Stage(3, 2, MakeRecord(2, 77));
  EXPECT_NE(store_->Hash(), hash);
  store_->Stage(4, 2, MakeRecord(2, 2));
  EXPECT_EQ(store_->Hash(), hash);
}

TEST_F(StateStoreTest, HashOfNothingIsZero) {
  EXPECT_EQ(store_->Hash(), 0);
  Stage(1, 1, 1);
  EXPECT_NE(store_->Hash(), 0);
  store_->Stage(2, 1, nullptr);
  EXPECT_EQ(store_->Hash(), 0);
}

TEST_F(StateStoreTest, SwappedContentsDoNotCancelInTheHash) {
  store_->Stage(1, 1, MakeRecord(1, 10));
  store_->Stage(1, 2, MakeRecord(2, 20));
  auto swapped = MakeMemoryStateStore();
  swapped->Stage(1, 1, MakeRecord(1, 20));
  swapped->Stage(1, 2, MakeRecord(2, 10));

  EXPECT_NE(store_->Hash(), swapped->Hash());
}

class RecordSetTest : public StateStoreTest {};

TEST_F(RecordSetTest, AStoreInAFileTakesCopies) {
  Stage(1, 5, 1);
  Stage(1, 0, 2);
  Stage(2, 5, 3);
  RecordSet set = TakeRecords(*store_);
  auto restored = MakeFileStateStore(testing::TempDir(), kRecordBytes);
  ASSERT_TRUE(restored.ok()) << restored.status();

  ASSERT_TRUE(PutRecords(set, kRecordBytes, 2, restored->get()).ok());

  EXPECT_EQ((*restored)->Hash(), store_->Hash());
  EXPECT_EQ(Content(**restored), Content(*store_));
  for (const auto& [key, record] : set.records) {
    EXPECT_NE((*restored)->Read(key), record);
  }
  (*restored)->Prefetch({5, 0, 77});
}

TEST_F(RecordSetTest, PutRestoresEverything) {
  Stage(1, 5, 1);
  Stage(1, 0, 2);
  Stage(2, 5, 3);
  Stage(2, 9, 4);
  store_->Stage(2, 9, nullptr);  // the last version has no record
  const RecordSet set = TakeRecords(*store_);

  auto restored = MakeMemoryStateStore();
  ASSERT_TRUE(PutRecords(set, kRecordBytes, 2, restored.get()).ok());

  EXPECT_EQ(restored->Hash(), store_->Hash());
  EXPECT_EQ(Content(*restored), Content(*store_));
  EXPECT_EQ(restored->usage().last_version, 4);
  EXPECT_EQ(restored->usage().former_bytes, 0);
  EXPECT_TRUE(restored->RollbackTo(2).ok());
  EXPECT_EQ(Content(*restored), Content(*store_));
}

TEST_F(RecordSetTest, IsOfItsMomentWhateverTheStoreDoesLater) {
  Stage(1, 5, 1);
  const RecordSet set = TakeRecords(*store_);
  const uint64_t hash = store_->Hash();
  Stage(2, 5, 2);
  Stage(2, 6, 3);

  auto restored = MakeMemoryStateStore();
  ASSERT_TRUE(PutRecords(set, kRecordBytes, 1, restored.get()).ok());

  EXPECT_EQ(restored->Hash(), hash);
}

TEST_F(RecordSetTest, EmptyStoresRoundTrip) {
  auto restored = MakeMemoryStateStore();

  EXPECT_TRUE(
      PutRecords(TakeRecords(*store_), kRecordBytes, 0, restored.get()).ok());

  EXPECT_EQ(restored->Hash(), 0);
}

TEST_F(RecordSetTest, ImpossibleSetsAreRefusedAndLeaveTheStoreAlone) {
  Stage(1, 5, 1);
  Stage(1, 6, 2);
  const RecordSet good = TakeRecords(*store_);
  RecordSet twice = good;
  twice.records[1].first = 5;
  RecordSet too_new = good;
  too_new.last_version = 1;
  auto restored = MakeMemoryStateStore();

  EXPECT_EQ(PutRecords(twice, kRecordBytes, 1, restored.get()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PutRecords(too_new, kRecordBytes, 1, restored.get()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(PutRecords(good, 2 * kRecordBytes, 1, restored.get()).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(restored->usage().num_records, 0);
  EXPECT_EQ(PutRecords(good, kRecordBytes, 1, store_.get()).code(),
            absl::StatusCode::kFailedPrecondition);
}

}  // namespace
}  // namespace deltapipe
