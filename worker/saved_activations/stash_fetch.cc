// What was offloaded of a micro-batch comes back to the device for its backward
// pass: in time, and into memory that the pass has given back. All that waits
// on the device again counts as alive, and at most one tensor of it lies above
// what was alive when the pass began: one that is needed now, or the one that
// is needed next.
#include <algorithm>
#include <iterator>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "worker/saved_activations/stash_state.h"

namespace deltapipe {

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
  // As the pass before read them, and else the last one saved first.
  if (!fetch_.reads.empty()) {
    fetch_.places.clear();
    for (const std::string& name : fetch_.reads) {
      fetch_.places.insert({name, fetch_.places.size()});
    }
    fetch_.reads.clear();
  }
  struct Mine {
    size_t place = 0;
    int64_t number = 0;
    std::shared_ptr<SavedEntry> entry;
  };
  std::vector<Mine> mine;
  for (const auto& entry : seen) {
    const bool is_mine = entry->packed.transfer != nullptr &&
                         entry->context.step == of.step &&
                         entry->context.microbatch == of.microbatch;
    if (!is_mine) continue;
    const auto found = fetch_.places.find(entry->report->name);
    const size_t place =
        found == fetch_.places.end() ? fetch_.places.size() : found->second;
    mine.push_back({place, entry->number, entry});
  }
  std::sort(mine.begin(), mine.end(), [](const Mine& a, const Mine& b) {
    return a.place != b.place ? a.place > b.place : a.number < b.number;
  });
  fetch_.next.clear();
  for (const Mine& one : mine) fetch_.next.push_back(one.entry);
  fetch_.fetched.clear();
  fetch_.level = live_;
  fetch_.has_begun = false;
  FetchAhead(&seen);
}

void StashState::FetchAhead(Aliases* seen) {
  while (!fetch_.next.empty()) {
    const std::shared_ptr<SavedEntry> entry = fetch_.next.back().lock();
    seen->push_back(entry);
    const bool is_open = entry != nullptr && entry->fetched_bytes == 0 &&
                         entry->packed.transfer != nullptr;
    if (is_open) {
      const bool is_within = live_ + entry->host_bytes <= fetch_.level;
      // Where it is not known to be the next one, it would be in the way.
      const bool is_next = fetch_.has_begun && fetch_.num_fetched == 0 &&
                           fetch_.places.count(entry->report->name) > 0;
      if (!is_within && !is_next) return;
      Fetch(entry);
    }
    fetch_.next.pop_back();
  }
}

void StashState::FetchNow(const std::shared_ptr<SavedEntry>& entry,
                          Aliases* seen) {
  // Not once more when it was read.
  const auto is_it = [&](const std::weak_ptr<SavedEntry>& weak) {
    return !weak.owner_before(entry) && !entry.owner_before(weak);
  };
  const auto at = std::find_if(fetch_.next.rbegin(), fetch_.next.rend(), is_it);
  if (at != fetch_.next.rend()) fetch_.next.erase(std::next(at).base());
  // Those that are needed last are fetched last, as a rule.
  while (!fetch_.fetched.empty() && live_ + entry->host_bytes > fetch_.level) {
    const std::shared_ptr<SavedEntry> other = fetch_.fetched.back().lock();
    fetch_.fetched.pop_back();
    seen->push_back(other);
    if (other == nullptr || other->fetched_bytes == 0) continue;
    packer_->DropFetched(other->packed);
    ForgetFetched(other.get());
    fetch_.next.push_back(other);
  }
  Fetch(entry);
}

void StashState::Fetch(const std::shared_ptr<SavedEntry>& entry) {
  packer_->Prefetch(entry->packed);
  entry->fetched_bytes = entry->host_bytes;
  ++fetch_.num_fetched;
  fetch_.fetched.push_back(entry);
  CountLive(entry->fetched_bytes);
}

void StashState::ForgetFetched(SavedEntry* entry) {
  if (entry->fetched_bytes == 0) return;
  live_ -= std::exchange(entry->fetched_bytes, 0);
  --fetch_.num_fetched;
}

}  // namespace deltapipe
