#include "worker/collective/node_hierarchy.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

// Beside the phases of an all-reduce, on channels of its own.
constexpr uint32_t kReduceInNode = 11;
constexpr uint32_t kGatherInNode = 12;

std::vector<FrameChannel*> ChannelsTo(const std::vector<int>& ranks,
                                      const RankGroup& group) {
  std::vector<FrameChannel*> channels;
  for (const int rank : ranks) {
    channels.push_back(rank == group.rank() ? nullptr : group.channel(rank));
  }
  return channels;
}

}  // namespace

absl::StatusOr<NodePlace> PlaceAmongNodes(absl::Span<const int> nodes,
                                          int num_ranks, int rank) {
  if (static_cast<int>(nodes.size()) != num_ranks) {
    return absl::InvalidArgumentError(
        absl::StrCat("nodes: expected one for each of ", num_ranks,
                     " ranks, got ", nodes.size()));
  }
  std::map<int, std::vector<int>> by_node;
  for (int i = 0; i < num_ranks; ++i) {
    by_node[nodes[static_cast<size_t>(i)]].push_back(i);
  }
  NodePlace place;
  place.in_node = by_node[nodes[static_cast<size_t>(rank)]];
  place.index_in_node = static_cast<int>(
      std::find(place.in_node.begin(), place.in_node.end(), rank) -
      place.in_node.begin());
  for (const auto& [node, ranks] : by_node) {
    if (ranks.size() != place.in_node.size()) {
      return absl::InvalidArgumentError(absl::StrCat(
          "nodes: expected equally many ranks on each, got ", ranks.size(),
          " on node ", node, " and ", place.in_node.size(), " on node ",
          nodes[static_cast<size_t>(rank)]));
    }
    const int counterpart = ranks[static_cast<size_t>(place.index_in_node)];
    if (counterpart == rank) {
      place.index_across = static_cast<int>(place.across.size());
    }
    place.across.push_back(counterpart);
  }
  return place;
}

NodeHierarchy::NodeHierarchy(const Options& options, const NodePlace& place,
                             RankGroup* group,
                             std::unique_ptr<ShardCompressor> compressor)
    : place_(place),
      slices_{options.num_elements, static_cast<int>(place.in_node.size())},
      in_node_group_(place.index_in_node, ChannelsTo(place.in_node, *group)),
      across_group_(place.index_across, ChannelsTo(place.across, *group)),
      in_node_(&in_node_group_, options.generation, options.max_message_bytes),
      across_(&across_group_, options.generation, options.max_message_bytes),
      compressor_(std::move(compressor)),
      messages_(place.in_node.size()) {
  slice_.resize(static_cast<size_t>(slices_.size(place.index_in_node)));
}

void NodeHierarchy::Begin(uint32_t step, uint32_t codec_hash) {
  in_node_.Begin(step, codec_hash);
  across_.Begin(step, codec_hash);
}

std::string NodeHierarchy::activity() const {
  const std::string inside = in_node_.activity();
  return in_node_.is_active() ? absl::StrCat(inside, " of its node")
                              : across_.activity();
}

absl::Status NodeHierarchy::ReduceInNode(absl::Span<const float> values) {
  const int g = slices_.num_ranks;
  const int own = place_.index_in_node;
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < g; ++offset) {
    const int peer = (own + offset) % g;
    if (slices_.size(peer) == 0) continue;
    const auto encode = [=]() -> absl::StatusOr<ByteSpan> {
      const absl::Span<const float> part =
          values.subspan(static_cast<size_t>(slices_.offset(peer)),
                         static_cast<size_t>(slices_.size(peer)));
      std::vector<float> copy(part.begin(), part.end());
      std::vector<uint8_t>& message = messages_[static_cast<size_t>(peer)];
      message.resize(static_cast<size_t>(
          compressor_->MaxMessageBytes(slices_.size(peer))));
      compressor_->AddResidual(absl::MakeSpan(copy), {}, slices_.size(peer));
      DP_ASSIGN_OR_RETURN(const int64_t size,
                          compressor_->Encode(absl::MakeSpan(copy), RandomKey(),
                                              absl::MakeSpan(message)));
      return ByteSpan(message.data(), static_cast<size_t>(size));
    };
    outgoing.push_back({peer, slices_.size(peer), encode});
  }
  const absl::Span<const float> mine =
      values.subspan(static_cast<size_t>(slices_.offset(own)), slice_.size());
  const absl::Span<float> sum = absl::MakeSpan(slice_);
  std::fill(sum.begin(), sum.end(), 0.0f);
  const auto add_mine = [&] {
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += mine[i];
  };
  if (!sum.empty()) {
    for (int peer = 0; peer < g; ++peer) {
      if (peer != own) sources.push_back(peer);
    }
    if (own == 0) add_mine();
  }
  // In the order of the ranks, this one in its place.
  return in_node_.Exchange(kReduceInNode, outgoing, sources,
                           compressor_->MaxMessageBytes(slices_.size(own)),
                           [&](int peer, ByteSpan message) {
                             DP_RETURN_IF_ERROR(compressor_->AccumulateMean(
                                 message, /*num_ranks=*/1, sum));
                             if (peer + 1 == own) add_mine();
                             return absl::OkStatus();
                           });
}

absl::Status NodeHierarchy::Gather(
    ByteSpan mine, int64_t most_bytes,
    const std::function<absl::Status(int index, ByteSpan bytes)>& take) {
  const int g = slices_.num_ranks;
  const int own = place_.index_in_node;
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < g && !slice_.empty(); ++offset) {
    outgoing.push_back(
        {(own + offset) % g, slices_.size(own), [mine] { return mine; }});
  }
  for (int peer = 0; peer < g; ++peer) {
    if (peer != own && slices_.size(peer) > 0) sources.push_back(peer);
  }
  return in_node_.Exchange(kGatherInNode, outgoing, sources, most_bytes, take);
}

absl::Status NodeHierarchy::GatherInNode(absl::Span<float> values) {
  const absl::Span<float> own = SliceOf(place_.index_in_node, values);
  std::copy(slice_.begin(), slice_.end(), own.begin());
  const ByteSpan mine(reinterpret_cast<const uint8_t*>(slice_.data()),
                      slice_.size() * sizeof(float));
  return Gather(mine, slices_.stride() * 4, [&](int index, ByteSpan bytes) {
    const absl::Span<float> part = SliceOf(index, values);
    if (bytes.size() != part.size() * sizeof(float)) {
      return absl::InvalidArgumentError(absl::StrCat(
          bytes.size(), " bytes, expected ", part.size() * sizeof(float)));
    }
    std::memcpy(part.data(), bytes.data(), bytes.size());
    return absl::OkStatus();
  });
}

absl::Status NodeHierarchy::GatherPacked(
    TwoPhaseAllReduce* reduced, absl::Span<const ElementRange> excluded,
    absl::Span<float> values, absl::Span<uint8_t> flags) {
  const absl::Span<float> own = SliceOf(place_.index_in_node, values);
  std::copy(slice_.begin(), slice_.end(), own.begin());
  reduced->WriteResult(&packed_);
  return Gather(
      packed_, reduced->MaxResultBytes(slices_.stride(), excluded.size()),
      [&](int index, ByteSpan bytes) {
        return reduced->ReadResult(
            bytes,
            PartOf(excluded, slices_.offset(index), slices_.offset(index + 1)),
            SliceOf(index, values), flags);
      });
}

}  // namespace deltapipe
