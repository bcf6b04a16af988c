#include "worker/checkpoint/shard_files.h"

#include <stdlib.h>

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "base/safetensors_stream.h"
#include "base/temporary_folder.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

class StageFileTest : public ::testing::Test {
 protected:
  /// What a reader finds of what was written.
  StageState RoundTrip(const ParameterLayout& layout, const StageState& state) {
    const auto written = WriteStageFile(folder_, 3, layout, state);
    EXPECT_TRUE(written.ok()) << written.status();
    const auto read = ReadStageFile(folder_, 3, layout);
    EXPECT_TRUE(read.ok()) << read.status();
    return read.ok() ? *read : StageState();
  }

  const TemporaryFolder temporary_ =
      TemporaryFolder::Create("checkpoints").value();
  const std::string folder_ = temporary_.path();
};

ParameterSegment Segment(const char* name, const Shape& shape, int64_t offset) {
  ParameterSegment segment;
  segment.name = name;
  segment.shape = shape;
  segment.offset = offset;
  segment.num_elements = NumElements(shape);
  return segment;
}

ParameterLayout TwoTensors() {
  ParameterLayout layout;
  layout.segments.resize(2);
  layout.segments[0] = Segment("a", {2}, 0);
  layout.segments[1] = Segment("b", {1, 3}, 2);
  layout.num_elements = 5;
  return layout;
}

TEST_F(StageFileTest, GivesBackAllOfAStage) {
  StageState state;
  state.weights = {1, 2, 3, 4, 5};
  state.former_weights = {6, 7, 8, 9, 10};
  state.optimizer = {{"momentum", {5, 4, 3, 2, 1}}, {"applied_steps", {17}}};
  state.norm_ratio = 1.25;
  state.is_norm_ratio_known = true;
  state.cursors = {3, 1, 2};
  state.counts = {5, 7};
  state.loss_scale = {1024, 3};
  state.compression = {0.5, 2};

  const StageState read = RoundTrip(TwoTensors(), state);

  EXPECT_EQ(read.weights, state.weights);
  EXPECT_EQ(read.former_weights, state.former_weights);
  EXPECT_EQ(read.optimizer, state.optimizer);
  EXPECT_EQ(read.norm_ratio, 1.25);
  EXPECT_TRUE(read.is_norm_ratio_known);
  EXPECT_EQ(read.cursors, state.cursors);
  EXPECT_EQ(read.counts, state.counts);
  EXPECT_EQ(read.loss_scale, state.loss_scale);
  EXPECT_EQ(read.compression, state.compression);
}

TEST_F(StageFileTest, TheStateOfTiedTensorsIsUnderTheirNames) {
  ParameterLayout layout = TwoTensors();
  layout.num_tied = 3;
  layout.tied_stages = {0, 3};
  StageState state;
  state.weights = {1, 2, 3, 4, 5};
  state.optimizer = {{"momentum", {5, 4}},
                     {"tied.momentum", {3, 2, 1}},
                     {"tied.applied_steps", {17}}};

  EXPECT_EQ(RoundTrip(layout, state).optimizer, state.optimizer);
  const auto reader = SafetensorsReader::Open(folder_ + "/" + StageFileName(3));
  ASSERT_TRUE(reader.ok()) << reader.status();
  for (const char* name :
       {"weights/b", "optimizer/momentum/a", "optimizer/tied.momentum/b"}) {
    EXPECT_TRUE(reader->Find(name).ok()) << name;
  }
}

TEST_F(StageFileTest, ARanksResidualsOfTiedTensorsComeBack) {
  OwnState state;
  state.residuals = {{1, 2, 8, 9}, {3, 10}, {{3, 4}, {0, 1}}};
  state.tied_residuals = {{4, 5, 6}, {7}, {}};
  const OwnPlace place;
  ASSERT_TRUE(WriteRankFile(folder_, 2, place, state).ok());
  state.tied_residuals = {};
  ASSERT_TRUE(WriteRankFile(folder_, 3, place, state).ok());

  const auto tied = ReadRankFile(folder_, 2, place);
  const auto untied = ReadRankFile(folder_, 3, place);

  ASSERT_TRUE(tied.ok()) << tied.status();
  ASSERT_TRUE(untied.ok()) << untied.status();
  EXPECT_EQ(tied->residuals.worker, state.residuals.worker);
  EXPECT_EQ(tied->tied_residuals.worker, (std::vector<float>{4, 5, 6}));
  EXPECT_EQ(tied->tied_residuals.server, (std::vector<float>{7}));
  EXPECT_EQ(untied->residuals.server, state.residuals.server);
  EXPECT_EQ(untied->residuals.server_ranges, state.residuals.server_ranges);
  EXPECT_TRUE(tied->tied_residuals.server_ranges.empty());
  EXPECT_TRUE(untied->tied_residuals.worker.empty());
}

TEST_F(StageFileTest, RecordsOfEveryFormAndWhatCodecsRememberComeBack) {
  OwnPlace place;
  place.next_boundary = 1;
  place.next_elements = 6;
  // bf16, fp32 and a codec's 7 bytes.
  for (const int64_t record_bytes : {12, 24, 7}) {
    OwnState state;
    state.next.sent.last_version = 9;
    for (const uint64_t key : {5, 3}) {
      auto record = NewRecord(static_cast<uint32_t>(key), record_bytes);
      for (int64_t i = 0; i < record_bytes; ++i) {
        record->values.data()[i] = static_cast<uint8_t>(key * 16 + i);
      }
      state.next.sent.records.emplace_back(key, std::move(record));
    }
    state.next.memory[ChannelMemory::kFirst] = {1.5f, -2};
    state.saved_activations = {"of one", "of the other"};
    state.next.sent_codec = "delta(int(4))";
    state.next.received_codec = "cast(bf16)";
    ASSERT_TRUE(WriteRankFile(folder_, 2, place, state).ok());

    const auto read = ReadRankFile(folder_, 2, place);

    ASSERT_TRUE(read.ok()) << read.status();
    EXPECT_EQ(read->next.sent.last_version, 9);
    EXPECT_TRUE(read->next.received.records.empty());
    EXPECT_EQ(read->next.memory, state.next.memory);
    EXPECT_EQ(read->saved_activations, state.saved_activations);
    EXPECT_EQ(read->next.sent_codec, "delta(int(4))");
    EXPECT_EQ(read->next.received_codec, "cast(bf16)");
    ASSERT_EQ(read->next.sent.records.size(), 2);
    for (size_t i = 0; i < 2; ++i) {
      const auto& [key, record] = read->next.sent.records[i];
      const auto& [expected_key, expected] = state.next.sent.records[i];
      EXPECT_EQ(key, expected_key);
      EXPECT_EQ(record->version, expected->version);
      EXPECT_EQ(ByteSpan(record->values.span()),
                ByteSpan(expected->values.span()))
          << record_bytes;
    }
  }
}

TEST_F(StageFileTest, BoundariesMayHaveTensorsOfTwoSizes) {
  OwnPlace place;
  place.previous_boundary = 0;
  place.next_boundary = 1;
  place.previous_elements = 6;
  place.next_elements = 4;
  OwnState state;
  const auto add = [](int64_t bytes, RecordSet* set) {
    auto record = NewRecord(1, bytes);
    std::fill_n(record->values.data(), bytes, uint8_t{3});
    set->records.emplace_back(5, std::move(record));
  };
  add(12, &state.previous.received);
  add(8, &state.next.sent);
  ASSERT_TRUE(WriteRankFile(folder_, 2, place, state).ok());

  const auto read = ReadRankFile(folder_, 2, place);
  std::swap(place.previous_elements, place.next_elements);
  const auto swapped = ReadRankFile(folder_, 2, place);

  ASSERT_TRUE(read.ok()) << read.status();
  EXPECT_EQ(read->previous.received.records[0].second->values.size(), 12);
  EXPECT_EQ(read->next.sent.records[0].second->values.size(), 8);
  EXPECT_THAT(std::string(swapped.status().message()),
              ::testing::HasSubstr("has shape 0x6, expected 0x4"));
}

TEST_F(StageFileTest, WhatAStageDoesNotHaveStaysEmpty) {
  StageState state;
  state.weights = {1, 2, 3, 4, 5};

  const StageState read = RoundTrip(TwoTensors(), state);

  EXPECT_EQ(read.weights, state.weights);
  EXPECT_TRUE(read.former_weights.empty());
  EXPECT_TRUE(read.optimizer.empty());
  EXPECT_TRUE(read.cursors.empty());
  EXPECT_TRUE(read.counts.empty());
}

TEST_F(StageFileTest, AStageWithoutParametersKeepsItsOptimizersNames) {
  StageState state;
  state.optimizer = {{"momentum", {}}, {"applied_steps", {17}}};

  EXPECT_EQ(RoundTrip(ParameterLayout(), state).optimizer, state.optimizer);
}

}  // namespace
}  // namespace deltapipe
