#include "worker/collective/loopback_ranks.h"

#include <chrono>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread.h"

namespace deltapipe {

absl::StatusOr<LoopbackRanks> LoopbackRanks::Create(
    int num_ranks, const FrameChannelOptions& options) {
  if (num_ranks < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat("loopback ranks: expected at least 1, got ", num_ranks));
  }
  LoopbackRanks ranks;
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    DP_ASSIGN_OR_RETURN(auto transport, ranks.network_->CreateTransport(
                                            absl::StrCat("rank-", rank)));
    transports.push_back(std::move(transport));
  }
  DP_RETURN_IF_ERROR(ranks.Connect(std::move(transports), options));
  return ranks;
}

absl::StatusOr<LoopbackRanks> LoopbackRanks::CreateOver(
    std::vector<std::unique_ptr<Transport>> transports,
    const FrameChannelOptions& options) {
  LoopbackRanks ranks;
  DP_RETURN_IF_ERROR(ranks.Connect(std::move(transports), options));
  return ranks;
}

absl::Status LoopbackRanks::Connect(
    std::vector<std::unique_ptr<Transport>> transports,
    const FrameChannelOptions& options) {
  const Deadline deadline = Deadline::After(std::chrono::seconds(30));
  const size_t num_ranks = transports.size();
  std::vector<std::vector<FrameChannel*>> table(
      num_ranks, std::vector<FrameChannel*>(num_ranks));
  for (size_t low = 0; low < table.size(); ++low) {
    for (size_t high = low + 1; high < table.size(); ++high) {
      const std::string name = absl::StrCat("group/", low, "-", high);
      DP_ASSIGN_OR_RETURN(auto connected,
                          transports[low]->Connect(transports[high]->address(),
                                                   name, deadline));
      DP_ASSIGN_OR_RETURN(auto accepted,
                          transports[high]->Accept(name, deadline));
      DP_ASSIGN_OR_RETURN(auto low_end,
                          FrameChannel::Create(std::move(connected), options));
      DP_ASSIGN_OR_RETURN(auto high_end,
                          FrameChannel::Create(std::move(accepted), options));
      table[low][high] = low_end.get();
      table[high][low] = high_end.get();
      channels_.push_back(std::move(low_end));
      channels_.push_back(std::move(high_end));
    }
  }
  for (size_t rank = 0; rank < num_ranks; ++rank) {
    groups_.push_back(std::make_unique<RankGroup>(static_cast<int>(rank),
                                                  std::move(table[rank])));
  }
  transports_ = std::move(transports);
  return absl::OkStatus();
}

void LoopbackRanks::Run(const std::function<void(int rank)>& body) const {
  std::vector<Thread> threads;
  for (int rank = 0; rank < size(); ++rank) {
    threads.emplace_back(absl::StrCat("rank-", rank),
                         [&body, rank] { body(rank); });
  }
}

}  // namespace deltapipe
