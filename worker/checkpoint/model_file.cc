#include "worker/checkpoint/model_file.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/safetensors.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int64_t kChunkElements = int64_t{2} << 20;
constexpr int64_t kMaxElements = int64_t{1} << 40;
constexpr size_t kMaxRank = 8;  // of a TensorView

absl::StatusOr<ParameterLayout> ParseLayout(ByteSpan payload) {
  const nlohmann::json json = nlohmann::json::parse(
      payload.begin(), payload.end(), nullptr, /*allow_exceptions=*/false);
  const auto malformed = [] {
    return absl::DataLossError("the list of a shard's tensors is malformed");
  };
  if (!json.is_array()) return malformed();
  ParameterLayout layout;
  for (const nlohmann::json& entry : json) {
    if (!entry.is_object() || !entry.contains("name") ||
        !entry["name"].is_string() || !entry.contains("shape") ||
        !entry["shape"].is_array() || entry["shape"].size() > kMaxRank) {
      return malformed();
    }
    ParameterSegment segment;
    segment.name = entry["name"].get<std::string>();
    segment.num_elements = 1;
    for (const nlohmann::json& size : entry["shape"]) {
      if (!size.is_number_unsigned()) return malformed();
      if (size.get<uint64_t>() > static_cast<uint64_t>(kMaxElements)) {
        return malformed();
      }
      const int64_t extent = size.get<int64_t>();
      if (extent > 0 && segment.num_elements > kMaxElements / extent) {
        return malformed();
      }
      segment.shape.push_back(extent);
      segment.num_elements *= extent;
    }
    segment.offset = layout.num_elements;
    layout.num_elements += segment.num_elements;
    if (layout.num_elements > kMaxElements) return malformed();
    layout.segments.push_back(std::move(segment));
  }
  return layout;
}

}  // namespace

absl::Status SendShard(FrameChannel* channel, const FrameHeader& header,
                       const ParameterLayout& layout,
                       absl::Span<const float> weights, Deadline deadline) {
  nlohmann::json json = nlohmann::json::array();
  for (const ParameterSegment& segment : layout.segments) {
    json.push_back({{"name", segment.name},
                    {"shape", std::vector<int64_t>(segment.shape.begin(),
                                                   segment.shape.end())}});
  }
  const std::string text = json.dump();
  FrameHeader sent = header;
  sent.kind = FrameKind::kWeights;
  DP_RETURN_IF_ERROR(channel->Send(
      sent,
      {ByteSpan(reinterpret_cast<const uint8_t*>(text.data()), text.size())},
      deadline));
  for (int64_t begin = 0; begin < layout.num_elements;
       begin += kChunkElements) {
    const absl::Span<const float> chunk =
        weights.subspan(static_cast<size_t>(begin), kChunkElements);
    DP_RETURN_IF_ERROR(
        channel->Send(sent,
                      {ByteSpan(reinterpret_cast<const uint8_t*>(chunk.data()),
                                chunk.size() * sizeof(float))},
                      deadline));
  }
  return absl::OkStatus();
}

absl::StatusOr<ModelShard> ReceiveShard(FrameChannel* channel,
                                        Deadline deadline) {
  ModelShard shard;
  DP_ASSIGN_OR_RETURN(const Frame first, channel->Receive(deadline));
  if (first.header.kind != FrameKind::kWeights) {
    return absl::DataLossError(absl::StrCat("expected weights, got ",
                                            first.header.ToString(), " from ",
                                            channel->peer()));
  }
  DP_ASSIGN_OR_RETURN(shard.layout, ParseLayout(first.payload()));
  while (static_cast<int64_t>(shard.weights.size()) <
         shard.layout.num_elements) {
    DP_ASSIGN_OR_RETURN(const Frame frame, channel->Receive(deadline));
    const int64_t missing =
        shard.layout.num_elements - static_cast<int64_t>(shard.weights.size());
    const size_t expected =
        sizeof(float) * static_cast<size_t>(std::min(missing, kChunkElements));
    if (frame.header.kind != FrameKind::kWeights ||
        frame.payload().size() != expected) {
      return absl::DataLossError(
          absl::StrCat("expected ", expected, " bytes of weights, got ",
                       frame.payload().size(), " from ", channel->peer()));
    }
    const size_t before = shard.weights.size();
    shard.weights.resize(before + expected / sizeof(float));
    std::memcpy(shard.weights.data() + before, frame.payload().data(),
                expected);
  }
  return shard;
}

absl::Status WriteModelFile(
    const std::string& path, std::vector<ModelShard>* shards,
    const std::map<std::string, std::string>& metadata) {
  SafetensorsWriter writer;
  for (ModelShard& shard : *shards) {
    for (const ParameterSegment& segment : shard.layout.segments) {
      writer.Add(segment.name,
                 TensorView(DType::kFloat32, segment.shape,
                            shard.weights.data() + segment.offset));
    }
  }
  return writer.WriteTo(path, metadata);
}

}  // namespace deltapipe
