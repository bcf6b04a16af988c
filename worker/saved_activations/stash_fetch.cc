// What was offloaded of a micro-batch comes back to the device for its backward
// pass: in time, and where possible into memory that the pass has given back.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "worker/saved_activations/stash_state.h"

namespace deltapipe {
namespace {

// On the device or on their way there, whatever room there is, once the first
// one was read.
constexpr int kFetchedAhead = 2;

}  // namespace

void StashState::Prefetch(const SavedContext& of) {
  Aliases seen;
  MutexLock lock(&mutex_);
  if (!has_offloaded_) return;
  for (const auto& list : entries_) {
    for (const auto& weak : list.second) {
      std::shared_ptr<SavedEntry> entry = weak.lock();
      if (entry != nullptr) seen.push_back(std::move(entry));
    }
  }
  Aliases mine;
  for (const auto& entry : seen) {
    const bool is_mine = entry->packed.transfer != nullptr &&
                         entry->context.step == of.step &&
                         entry->context.microbatch == of.microbatch;
    if (is_mine) mine.push_back(entry);
  }
  std::sort(mine.begin(), mine.end(),
            [](const auto& a, const auto& b) { return a->number < b->number; });
  fetch_.next.assign(mine.begin(), mine.end());
  fetch_.level = live_;
  fetch_.has_begun = false;
  FetchAhead(&seen);
}

void StashState::FetchAhead(Aliases* seen) {
  while (!fetch_.next.empty()) {
    std::shared_ptr<SavedEntry> entry = fetch_.next.back().lock();
    const bool is_open = entry != nullptr && entry->fetched_bytes == 0 &&
                         entry->packed.transfer != nullptr;
    const bool may_fetch =
        is_open && (live_ + entry->host_bytes <= fetch_.level ||
                    (fetch_.has_begun && fetch_.num_fetched < kFetchedAhead));
    if (may_fetch) Fetch(entry.get());
    if (entry != nullptr) seen->push_back(std::move(entry));
    if (is_open && !may_fetch) return;
    fetch_.next.pop_back();
  }
}

void StashState::Fetch(SavedEntry* entry) {
  packer_->Prefetch(entry->packed);
  entry->fetched_bytes = entry->host_bytes;
  ++fetch_.num_fetched;
  CountLive(entry->fetched_bytes);
}

void StashState::ForgetFetched(SavedEntry* entry) {
  if (entry->fetched_bytes == 0) return;
  live_ -= std::exchange(entry->fetched_bytes, 0);
  --fetch_.num_fetched;
}

}  // namespace deltapipe
