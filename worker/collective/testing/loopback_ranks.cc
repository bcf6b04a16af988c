#include "worker/collective/testing/loopback_ranks.h"

#include <chrono>
#include <cstdlib>
#include <iostream>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/thread.h"

namespace deltapipe {
namespace {

template <typename T>
T OrDie(absl::StatusOr<T> value) {
  if (!value.ok()) {
    std::cerr << "loopback ranks: " << value.status() << std::endl;
    std::abort();
  }
  return *std::move(value);
}

}  // namespace

LoopbackRanks::LoopbackRanks(int num_ranks,
                             const FrameChannelOptions& options) {
  const Deadline deadline = Deadline::After(std::chrono::seconds(30));
  std::vector<std::unique_ptr<Transport>> transports;
  for (int rank = 0; rank < num_ranks; ++rank) {
    transports.push_back(
        OrDie(network_.CreateTransport(absl::StrCat("rank-", rank))));
  }
  std::vector<std::vector<FrameChannel*>> table(
      static_cast<size_t>(num_ranks),
      std::vector<FrameChannel*>(static_cast<size_t>(num_ranks)));
  for (size_t low = 0; low < table.size(); ++low) {
    for (size_t high = low + 1; high < table.size(); ++high) {
      const std::string name = absl::StrCat("group/", low, "-", high);
      auto connected = OrDie(transports[low]->Connect(
          absl::StrCat("rank-", high), name, deadline));
      auto accepted = OrDie(transports[high]->Accept(name, deadline));
      channels_.push_back(
          OrDie(FrameChannel::Create(std::move(connected), options)));
      table[low][high] = channels_.back().get();
      channels_.push_back(
          OrDie(FrameChannel::Create(std::move(accepted), options)));
      table[high][low] = channels_.back().get();
    }
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    groups_.push_back(std::make_unique<RankGroup>(
        rank, std::move(table[static_cast<size_t>(rank)])));
  }
}

void LoopbackRanks::Run(const std::function<void(int rank)>& body) const {
  std::vector<Thread> threads;
  for (int rank = 0; rank < size(); ++rank) {
    threads.emplace_back(absl::StrCat("rank-", rank),
                         [&body, rank] { body(rank); });
  }
}

}  // namespace deltapipe
