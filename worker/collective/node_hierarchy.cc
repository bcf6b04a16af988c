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
      messages_(place.in_node.size()) {}

SyncBucket NodeHierarchy::PartOfSlice(const SyncBucket& bucket,
                                      int index) const {
  SyncBucket part;
  part.ready_at = bucket.ready_at;
  for (const ElementRange& range : bucket.ranges) {
    const ElementRange common = Overlap(range, SliceRange(index));
    if (common.begin >= common.end) continue;
    part.ranges.push_back(common);
    part.num_elements += common.end - common.begin;
  }
  return part;
}

std::vector<SyncBucket> NodeHierarchy::Parts(const SyncBucket& bucket) const {
  std::vector<SyncBucket> parts;
  for (int index = 0; index < slices_.num_ranks; ++index) {
    parts.push_back(PartOfSlice(bucket, index));
  }
  return parts;
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

absl::Status NodeHierarchy::ReduceInNode(const SyncBucket& bucket,
                                         absl::Span<const float> values,
                                         std::vector<float>* sum) {
  const int g = slices_.num_ranks;
  const int own = place_.index_in_node;
  const std::vector<SyncBucket> parts = Parts(bucket);
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < g; ++offset) {
    const int peer = (own + offset) % g;
    const SyncBucket& part = parts[static_cast<size_t>(peer)];
    if (part.num_elements == 0) continue;
    const auto encode = [=, &part]() -> absl::StatusOr<ByteSpan> {
      std::vector<float> copy;
      CopyOut(part, values, &copy);
      std::vector<uint8_t>& message = messages_[static_cast<size_t>(peer)];
      message.resize(
          static_cast<size_t>(compressor_->MaxMessageBytes(part.num_elements)));
      compressor_->AddResidual(absl::MakeSpan(copy), {}, part.num_elements);
      DP_ASSIGN_OR_RETURN(const int64_t size,
                          compressor_->Encode(absl::MakeSpan(copy), RandomKey(),
                                              absl::MakeSpan(message)));
      return ByteSpan(message.data(), static_cast<size_t>(size));
    };
    outgoing.push_back({peer, part.num_elements, encode});
  }
  const SyncBucket& own_part = parts[static_cast<size_t>(own)];
  std::vector<float> mine;
  CopyOut(own_part, values, &mine);
  sum->assign(mine.size(), 0.0f);
  const auto add_mine = [&] {
    for (size_t i = 0; i < mine.size(); ++i) (*sum)[i] += mine[i];
  };
  if (!mine.empty()) {
    for (int peer = 0; peer < g; ++peer) {
      if (peer != own) sources.push_back(peer);
    }
    if (own == 0) add_mine();
  }
  // In the order of the ranks, this one in its place.
  return in_node_.Exchange(
      kReduceInNode, outgoing, sources,
      compressor_->MaxMessageBytes(own_part.num_elements),
      [&](int peer, ByteSpan message) {
        DP_RETURN_IF_ERROR(compressor_->AccumulateMean(message, /*num_ranks=*/1,
                                                       absl::MakeSpan(*sum)));
        if (peer + 1 == own) add_mine();
        return absl::OkStatus();
      });
}

absl::Status NodeHierarchy::Gather(
    const std::vector<SyncBucket>& parts, ByteSpan mine,
    const std::function<int64_t(int64_t num_elements)>& most_bytes,
    const std::function<absl::Status(int index, ByteSpan bytes)>& take) {
  const int g = slices_.num_ranks;
  const int own = place_.index_in_node;
  const int64_t num_own = parts[static_cast<size_t>(own)].num_elements;
  std::vector<GroupExchange::Outgoing> outgoing;
  std::vector<int> sources;
  for (int offset = 1; offset < g && num_own > 0; ++offset) {
    outgoing.push_back({(own + offset) % g, num_own, [mine] { return mine; }});
  }
  int64_t most = 0;
  for (int peer = 0; peer < g; ++peer) {
    const int64_t num_theirs = parts[static_cast<size_t>(peer)].num_elements;
    if (peer == own || num_theirs == 0) continue;
    sources.push_back(peer);
    most = std::max(most, most_bytes(num_theirs));
  }
  return in_node_.Exchange(kGatherInNode, outgoing, sources, most, take);
}

absl::Status NodeHierarchy::GatherInNode(const SyncBucket& bucket,
                                         absl::Span<float> values) {
  const std::vector<SyncBucket> parts = Parts(bucket);
  std::vector<float> mine;
  CopyOut(parts[static_cast<size_t>(place_.index_in_node)], values, &mine);
  const auto size_of = [](int64_t elements) {
    return elements * static_cast<int64_t>(sizeof(float));
  };
  std::vector<float> theirs;
  return Gather(
      parts,
      ByteSpan(reinterpret_cast<const uint8_t*>(mine.data()),
               mine.size() * sizeof(float)),
      size_of, [&](int index, ByteSpan bytes) {
        const SyncBucket& part = parts[static_cast<size_t>(index)];
        if (static_cast<int64_t>(bytes.size()) != size_of(part.num_elements)) {
          return absl::InvalidArgumentError(absl::StrCat(
              bytes.size(), " bytes, expected ", size_of(part.num_elements)));
        }
        theirs.resize(static_cast<size_t>(part.num_elements));
        std::memcpy(theirs.data(), bytes.data(), bytes.size());
        CopyIn(part, theirs, values);
        return absl::OkStatus();
      });
}

absl::Status NodeHierarchy::GatherPacked(
    const SyncBucket& bucket, ByteSpan packed, TwoPhaseAllReduce* reduced,
    absl::Span<const ElementRange> excluded, absl::Span<float> values,
    absl::Span<uint8_t> flags) {
  const std::vector<SyncBucket> parts = Parts(bucket);
  // As many pieces of them as a part may have.
  const size_t num_excluded = excluded.size() + bucket.ranges.size();
  std::vector<float> theirs;
  return Gather(
      parts, packed,
      [&](int64_t elements) {
        return reduced->MaxResultBytes(elements, num_excluded);
      },
      [&](int index, ByteSpan bytes) -> absl::Status {
        const SyncBucket& part = parts[static_cast<size_t>(index)];
        const ExcludedInBucket in_part = ExcludedIn(part, excluded);
        std::vector<uint8_t> is_woken(in_part.ranges.size());
        theirs.resize(static_cast<size_t>(part.num_elements));
        DP_RETURN_IF_ERROR(reduced->ReadResult(
            bytes, PartOf(in_part.ranges, 0, part.num_elements),
            absl::MakeSpan(theirs), absl::MakeSpan(is_woken)));
        CopyIn(part, theirs, values);
        for (size_t i = 0; i < is_woken.size(); ++i) {
          if (is_woken[i] != 0) flags[in_part.origins[i]] = 1;
        }
        return absl::OkStatus();
      });
}

}  // namespace deltapipe
