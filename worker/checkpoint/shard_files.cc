#include "worker/checkpoint/shard_files.h"

#include <algorithm>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "base/safetensors_stream.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr char kWeights[] = "weights/";
constexpr char kFormerWeights[] = "former_weights/";
constexpr char kOptimizer[] = "optimizer/";
constexpr char kResiduals[] = "residuals/";
constexpr char kTiedResiduals[] = "tied_residuals/";
constexpr char kServerRanges[] = "server_ranges";
constexpr char kNormRatio[] = "engine/norm_ratio";
constexpr char kLossScale[] = "engine/loss_scale";
constexpr char kCursors[] = "engine/cursors";
constexpr char kSavedActivations[] = "engine/saved_activations";
constexpr char kCounts[] = "engine/microbatch_counts";
constexpr char kCompression[] = "engine/compression";

/// A file in the making: tensors whose bytes lie in pieces elsewhere.
class ShardContents {
 public:
  void Add(const std::string& name, DType dtype, Shape shape) {
    tensors_.push_back({name, dtype, std::move(shape)});
  }
  void AddPiece(const std::string& name, absl::Span<const uint8_t> bytes) {
    pieces_[name].push_back(bytes);
  }
  template <typename T>
  void AddVector(const std::string& name, DType dtype,
                 absl::Span<const T> values) {
    AddShaped(name, dtype, {static_cast<int64_t>(values.size())}, values);
  }
  template <typename T>
  void AddShaped(const std::string& name, DType dtype, Shape shape,
                 absl::Span<const T> values) {
    Add(name, dtype, std::move(shape));
    AddPiece(name, {reinterpret_cast<const uint8_t*>(values.data()),
                    values.size() * sizeof(T)});
  }

  /// A text of the file's metadata.
  void AddText(const std::string& name, const std::string& text) {
    texts_[name] = text;
  }

  absl::StatusOr<ManifestFile> WriteTo(const std::string& folder,
                                       const std::string& name) const {
    DP_ASSIGN_OR_RETURN(SafetensorsStreamWriter writer,
                        SafetensorsStreamWriter::Create(
                            absl::StrCat(folder, "/", name), tensors_, texts_));
    for (const auto& entry : writer.entries()) {
      const auto pieces = pieces_.find(entry.name);
      if (pieces == pieces_.end()) continue;  // a tensor without values
      for (const absl::Span<const uint8_t> piece : pieces->second) {
        DP_RETURN_IF_ERROR(writer.Append(entry.name, piece));
      }
    }
    DP_ASSIGN_OR_RETURN(const WrittenSafetensors written, writer.Finish());
    return ManifestFile{name, written.bytes, written.digest};
  }

 private:
  std::vector<SafetensorsDeclaration> tensors_;
  std::map<std::string, std::vector<absl::Span<const uint8_t>>> pieces_;
  std::map<std::string, std::string> texts_ = {{"format", "deltapipe"}};
};

absl::Status Unexpected(const std::string& path, const std::string& tensor,
                        const std::string& what) {
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": tensor \"", tensor, "\": ", what,
                   "; the checkpoint is of another model or version"));
}

/// All values of a tensor, which must have `count` of them, or any number if
/// that is -1.
template <typename T>
absl::StatusOr<std::vector<T>> ReadValues(const SafetensorsReader& reader,
                                          const std::string& path,
                                          const std::string& name, DType dtype,
                                          int64_t count = -1) {
  DP_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, reader.Find(name));
  const int64_t found = NumElements(entry->shape);
  if (entry->dtype != dtype || (count >= 0 && found != count)) {
    return Unexpected(
        path, name,
        absl::StrCat("has ", found, " values of ", DTypeBytes(entry->dtype),
                     " bytes, expected ", count, " of ", DTypeBytes(dtype)));
  }
  std::vector<T> values(static_cast<size_t>(found));
  DP_RETURN_IF_ERROR(reader.ReadTensor(
      name,
      {reinterpret_cast<uint8_t*>(values.data()), values.size() * sizeof(T)}));
  return values;
}

struct Columns {
  std::vector<int64_t> keys;
  std::vector<int32_t> versions;
  int32_t last_version = 0;
};

std::string DirectionName(int boundary, bool is_sent) {
  return absl::StrCat("boundary-", boundary, is_sent ? "/sent/" : "/received/");
}

/// Of the version with this index.
std::string SavedName(size_t version) {
  return version == 0 ? std::string(kSavedActivations)
                      : absl::StrCat(kSavedActivations, "/", version);
}

/// Of metadata.
std::string CodecName(int boundary, bool is_sent) {
  return absl::StrCat(DirectionName(boundary, is_sent), "codec");
}

std::string MemoryName(int boundary, size_t which) {
  return absl::StrCat("boundary-", boundary, "/memory/",
                      which == ChannelMemory::kCodec ? "codec" : "first");
}

/// `columns` must live until the contents are written.
void AddRecords(const std::string& prefix, const RecordSet& set,
                int64_t elements_per_sample, Columns* columns,
                ShardContents* contents) {
  columns->last_version = static_cast<int32_t>(set.last_version);
  for (const auto& [key, record] : set.records) {
    columns->keys.push_back(static_cast<int64_t>(key));
    columns->versions.push_back(static_cast<int32_t>(record->version));
  }
  contents->AddVector<int64_t>(prefix + "keys", DType::kInt64, columns->keys);
  contents->AddVector<int32_t>(prefix + "versions", DType::kInt32,
                               columns->versions);
  contents->AddVector<int32_t>(prefix + "last_version", DType::kInt32,
                               absl::MakeConstSpan(&columns->last_version, 1));
  // Other sizes are those of a codec (delta's store=).
  const int64_t record_bytes = set.records.empty()
                                   ? 4 * elements_per_sample
                                   : set.records[0].second->values.size();
  const int64_t count = static_cast<int64_t>(set.records.size());
  if (record_bytes == 2 * elements_per_sample) {
    contents->Add(prefix + "records", DType::kBFloat16,
                  {count, elements_per_sample});
  } else if (record_bytes == 4 * elements_per_sample) {
    contents->Add(prefix + "records", DType::kFloat32,
                  {count, elements_per_sample});
  } else {
    contents->Add(prefix + "records", DType::kUInt8, {count, record_bytes});
  }
  for (const auto& [key, record] : set.records) {
    contents->AddPiece(prefix + "records", record->values.span());
  }
}

absl::StatusOr<RecordSet> ReadRecords(const SafetensorsReader& reader,
                                      const std::string& path,
                                      const std::string& prefix,
                                      int64_t elements_per_sample) {
  DP_ASSIGN_OR_RETURN(
      const auto keys,
      ReadValues<int64_t>(reader, path, prefix + "keys", DType::kInt64));
  const int64_t count = static_cast<int64_t>(keys.size());
  DP_ASSIGN_OR_RETURN(const auto versions,
                      ReadValues<int32_t>(reader, path, prefix + "versions",
                                          DType::kInt32, count));
  DP_ASSIGN_OR_RETURN(const auto last,
                      ReadValues<int32_t>(reader, path, prefix + "last_version",
                                          DType::kInt32, 1));
  const std::string name = prefix + "records";
  DP_ASSIGN_OR_RETURN(const SafetensorsEntry* entry, reader.Find(name));
  const bool is_of_codec = entry->dtype == DType::kUInt8;
  const bool is_known = is_of_codec || entry->dtype == DType::kBFloat16 ||
                        entry->dtype == DType::kFloat32;
  if (!is_known || entry->shape.size() != 2 || entry->shape[0] != count ||
      (!is_of_codec && entry->shape[1] != elements_per_sample)) {
    return Unexpected(
        path, name,
        absl::StrCat("has shape ", ShapeString(entry->shape), ", expected ",
                     count, "x", elements_per_sample, " in bf16 or fp32, or ",
                     count, " records in bytes"));
  }
  const int64_t record_bytes = entry->shape[1] * DTypeBytes(entry->dtype);
  RecordSet set;
  set.last_version = static_cast<uint32_t>(last[0]);
  set.records.reserve(keys.size());
  for (size_t i = 0; i < keys.size(); ++i) {
    auto record = NewRecord(static_cast<uint32_t>(versions[i]), record_bytes);
    DP_RETURN_IF_ERROR(reader.ReadPart(
        *entry, static_cast<int64_t>(i) * record_bytes, record->values.span()));
    set.records.emplace_back(static_cast<uint64_t>(keys[i]), std::move(record));
  }
  return set;
}

int64_t Bytes(const std::vector<float>& values) {
  return static_cast<int64_t>(values.size() * sizeof(float));
}

bool IsWithin(const ParameterSegment& segment, const ElementRange& range) {
  return segment.offset >= range.begin && segment.offset < range.end;
}

/// What a vector of the optimizer's state called `name` is of.
ElementRange RangeOfState(absl::string_view name,
                          const ParameterLayout& layout) {
  return absl::StartsWith(name, kTiedPrefix)
             ? ElementRange{layout.tied_begin(), layout.num_elements}
             : ElementRange{0, layout.tied_begin()};
}

}  // namespace

std::string StageFileName(int stage) {
  return absl::StrCat("stage-", stage, ".safetensors");
}

std::string RankFileName(int rank) {
  return absl::StrCat("rank-", rank, ".safetensors");
}

int64_t StateBytes(const StageState& state) {
  int64_t bytes = Bytes(state.weights) + Bytes(state.former_weights);
  for (const auto& [name, values] : state.optimizer) bytes += Bytes(values);
  return bytes;
}

int64_t StateBytes(const OwnState& state) {
  int64_t bytes = 0;
  for (const SyncResiduals* owed : {&state.residuals, &state.tied_residuals}) {
    bytes += Bytes(owed->worker) + Bytes(owed->server);
  }
  for (const BoundaryState* boundary : {&state.previous, &state.next}) {
    for (const RecordSet* set : {&boundary->sent, &boundary->received}) {
      for (const auto& [key, record] : set->records) {
        bytes += record->values.size();
      }
    }
    for (const auto& memory : boundary->memory) bytes += Bytes(memory);
  }
  for (const std::string& saved : state.saved_activations) {
    bytes += static_cast<int64_t>(saved.size());
  }
  return bytes;
}

absl::StatusOr<ManifestFile> WriteStageFile(const std::string& folder,
                                            int stage,
                                            const ParameterLayout& layout,
                                            const StageState& state) {
  ShardContents contents;
  const auto add_segments = [&](const std::string& prefix,
                                const ElementRange& range,
                                absl::Span<const float> values) {
    for (const ParameterSegment& segment : layout.segments) {
      if (!IsWithin(segment, range)) continue;
      contents.AddShaped<float>(
          prefix + segment.name, DType::kFloat32, segment.shape,
          values.subspan(static_cast<size_t>(segment.offset - range.begin),
                         static_cast<size_t>(segment.num_elements)));
    }
  };
  const ElementRange all{0, layout.num_elements};
  add_segments(kWeights, all, state.weights);
  if (!state.former_weights.empty()) {
    add_segments(kFormerWeights, all, state.former_weights);
  }
  for (const auto& [name, values] : state.optimizer) {
    const ElementRange range = RangeOfState(name, layout);
    // Without parameters there are no segments to name it by.
    if (!values.empty() &&
        static_cast<int64_t>(values.size()) == range.end - range.begin) {
      add_segments(absl::StrCat(kOptimizer, name, "/"), range, values);
    } else {
      contents.AddVector<float>(kOptimizer + name, DType::kFloat32, values);
    }
  }
  const double ratio[] = {state.norm_ratio,
                          state.is_norm_ratio_known ? 1.0 : 0.0};
  contents.AddVector<double>(kNormRatio, DType::kFloat64, ratio);
  if (!state.loss_scale.empty()) {
    contents.AddVector<double>(kLossScale, DType::kFloat64, state.loss_scale);
  }
  if (!state.cursors.empty()) {
    contents.AddVector<int64_t>(kCursors, DType::kInt64, state.cursors);
  }
  if (!state.counts.empty()) {
    contents.AddVector<int64_t>(kCounts, DType::kInt64, state.counts);
  }
  if (!state.compression.empty()) {
    contents.AddVector<double>(kCompression, DType::kFloat64,
                               state.compression);
  }
  return contents.WriteTo(folder, StageFileName(stage));
}

absl::StatusOr<ManifestFile> WriteRankFile(const std::string& folder, int rank,
                                           const OwnPlace& place,
                                           const OwnState& state) {
  ShardContents contents;
  const auto add_residuals = [&](const std::string& prefix,
                                 const SyncResiduals& owed) {
    contents.AddVector<float>(prefix + "worker", DType::kFloat32, owed.worker);
    contents.AddVector<float>(prefix + "server", DType::kFloat32, owed.server);
    if (owed.server_ranges.empty()) return;
    const std::vector<ElementRange>& ranges = owed.server_ranges;
    static_assert(sizeof(ElementRange) == 2 * sizeof(int64_t), "begin, end");
    contents.AddShaped<int64_t>(
        prefix + kServerRanges, DType::kInt64,
        {static_cast<int64_t>(ranges.size()), 2},
        {reinterpret_cast<const int64_t*>(ranges.data()), 2 * ranges.size()});
  };
  add_residuals(kResiduals, state.residuals);
  for (size_t i = 0; i < state.saved_activations.size(); ++i) {
    const std::string& saved = state.saved_activations[i];
    contents.AddVector<uint8_t>(
        SavedName(i), DType::kUInt8,
        {reinterpret_cast<const uint8_t*>(saved.data()), saved.size()});
  }
  const SyncResiduals& tied = state.tied_residuals;
  if (!tied.worker.empty() || !tied.server.empty()) {
    add_residuals(kTiedResiduals, tied);
  }
  Columns columns[4];
  const auto add_boundary = [&](int boundary, int64_t elements,
                                const BoundaryState& records, Columns* two) {
    if (boundary < 0) return;
    AddRecords(DirectionName(boundary, true), records.sent, elements, &two[0],
               &contents);
    AddRecords(DirectionName(boundary, false), records.received, elements,
               &two[1], &contents);
    contents.AddText(CodecName(boundary, true), records.sent_codec);
    contents.AddText(CodecName(boundary, false), records.received_codec);
    for (size_t which = 0; which < records.memory.size(); ++which) {
      const std::vector<float>& memory = records.memory[which];
      if (memory.empty()) continue;
      contents.AddVector<float>(MemoryName(boundary, which), DType::kFloat32,
                                memory);
    }
  };
  add_boundary(place.previous_boundary, place.previous_elements, state.previous,
               &columns[0]);
  add_boundary(place.next_boundary, place.next_elements, state.next,
               &columns[2]);
  return contents.WriteTo(folder, RankFileName(rank));
}

absl::StatusOr<StageState> ReadStageFile(const std::string& folder, int stage,
                                         const ParameterLayout& layout) {
  const std::string path = absl::StrCat(folder, "/", StageFileName(stage));
  DP_ASSIGN_OR_RETURN(const SafetensorsReader reader,
                      SafetensorsReader::Open(path));
  const auto read_segments =
      [&](const std::string& prefix,
          const ElementRange& range) -> absl::StatusOr<std::vector<float>> {
    std::vector<float> values;
    values.reserve(static_cast<size_t>(range.end - range.begin));
    for (const ParameterSegment& segment : layout.segments) {
      if (!IsWithin(segment, range)) continue;
      DP_ASSIGN_OR_RETURN(
          const auto part,
          ReadValues<float>(reader, path, prefix + segment.name,
                            DType::kFloat32, segment.num_elements));
      values.insert(values.end(), part.begin(), part.end());
    }
    return values;
  };
  const ElementRange all{0, layout.num_elements};
  StageState state;
  DP_ASSIGN_OR_RETURN(state.weights, read_segments(kWeights, all));
  const bool has_former = std::any_of(
      reader.entries().begin(), reader.entries().end(), [](const auto& entry) {
        return absl::StartsWith(entry.name, kFormerWeights);
      });
  if (has_former) {
    DP_ASSIGN_OR_RETURN(state.former_weights,
                        read_segments(kFormerWeights, all));
  }
  for (const auto& entry : reader.entries()) {
    absl::string_view name = entry.name;
    if (!absl::ConsumePrefix(&name, kOptimizer)) continue;
    const size_t slash = name.find('/');
    const std::string state_name(name.substr(0, slash));
    if (state.optimizer.count(state_name) != 0) continue;
    if (slash == absl::string_view::npos) {
      DP_ASSIGN_OR_RETURN(
          state.optimizer[state_name],
          ReadValues<float>(reader, path, entry.name, DType::kFloat32));
    } else {
      DP_ASSIGN_OR_RETURN(
          state.optimizer[state_name],
          read_segments(absl::StrCat(kOptimizer, state_name, "/"),
                        RangeOfState(state_name, layout)));
    }
  }
  DP_ASSIGN_OR_RETURN(
      const auto ratio,
      ReadValues<double>(reader, path, kNormRatio, DType::kFloat64, 2));
  state.norm_ratio = ratio[0];
  state.is_norm_ratio_known = ratio[1] != 0;
  if (reader.Find(kLossScale).ok()) {
    DP_ASSIGN_OR_RETURN(
        state.loss_scale,
        ReadValues<double>(reader, path, kLossScale, DType::kFloat64));
  }
  if (reader.Find(kCursors).ok()) {
    DP_ASSIGN_OR_RETURN(
        state.cursors,
        ReadValues<int64_t>(reader, path, kCursors, DType::kInt64));
  }
  if (reader.Find(kCounts).ok()) {
    DP_ASSIGN_OR_RETURN(state.counts, ReadValues<int64_t>(reader, path, kCounts,
                                                          DType::kInt64));
  }
  if (reader.Find(kCompression).ok()) {
    DP_ASSIGN_OR_RETURN(
        state.compression,
        ReadValues<double>(reader, path, kCompression, DType::kFloat64));
  }
  return state;
}

absl::StatusOr<OwnState> ReadRankFile(const std::string& folder, int rank,
                                      const OwnPlace& place) {
  const std::string path = absl::StrCat(folder, "/", RankFileName(rank));
  DP_ASSIGN_OR_RETURN(const SafetensorsReader reader,
                      SafetensorsReader::Open(path));
  OwnState state;
  const auto read_residuals = [&](const std::string& prefix,
                                  SyncResiduals* owed) -> absl::Status {
    DP_ASSIGN_OR_RETURN(
        owed->worker,
        ReadValues<float>(reader, path, prefix + "worker", DType::kFloat32));
    DP_ASSIGN_OR_RETURN(
        owed->server,
        ReadValues<float>(reader, path, prefix + "server", DType::kFloat32));
    const std::string name = prefix + kServerRanges;
    if (!reader.Find(name).ok()) return absl::OkStatus();
    DP_ASSIGN_OR_RETURN(const std::vector<int64_t> ends,
                        ReadValues<int64_t>(reader, path, name, DType::kInt64));
    if (ends.size() % 2 != 0) {
      return Unexpected(
          path, name,
          absl::StrCat("has ", ends.size(), " values, expected pairs"));
    }
    for (size_t i = 0; i < ends.size(); i += 2) {
      owed->server_ranges.push_back({ends[i], ends[i + 1]});
    }
    return absl::OkStatus();
  };
  DP_RETURN_IF_ERROR(read_residuals(kResiduals, &state.residuals));
  for (size_t i = 0; reader.Find(SavedName(i)).ok(); ++i) {
    DP_ASSIGN_OR_RETURN(
        const std::vector<uint8_t> saved,
        ReadValues<uint8_t>(reader, path, SavedName(i), DType::kUInt8));
    state.saved_activations.emplace_back(saved.begin(), saved.end());
  }
  if (reader.Find(absl::StrCat(kTiedResiduals, "worker")).ok()) {
    DP_RETURN_IF_ERROR(read_residuals(kTiedResiduals, &state.tied_residuals));
  }
  // Files of before codecs were named have none.
  const auto text = [&](const std::string& name) {
    const auto found = reader.metadata().find(name);
    return found == reader.metadata().end() ? std::string() : found->second;
  };
  const auto read_boundary = [&](int boundary, int64_t elements,
                                 BoundaryState* records) -> absl::Status {
    if (boundary < 0) return absl::OkStatus();
    DP_ASSIGN_OR_RETURN(
        records->sent,
        ReadRecords(reader, path, DirectionName(boundary, true), elements));
    DP_ASSIGN_OR_RETURN(
        records->received,
        ReadRecords(reader, path, DirectionName(boundary, false), elements));
    records->sent_codec = text(CodecName(boundary, true));
    records->received_codec = text(CodecName(boundary, false));
    for (size_t which = 0; which < records->memory.size(); ++which) {
      const std::string name = MemoryName(boundary, which);
      if (!reader.Find(name).ok()) continue;
      DP_ASSIGN_OR_RETURN(
          records->memory[which],
          ReadValues<float>(reader, path, name, DType::kFloat32));
    }
    return absl::OkStatus();
  };
  DP_RETURN_IF_ERROR(read_boundary(place.previous_boundary,
                                   place.previous_elements, &state.previous));
  DP_RETURN_IF_ERROR(
      read_boundary(place.next_boundary, place.next_elements, &state.next));
  return state;
}

}  // namespace deltapipe
