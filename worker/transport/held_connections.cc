#include "worker/transport/held_connections.h"

#include <algorithm>

#include "absl/strings/str_cat.h"

namespace deltapipe {

void HeldConnections::Add(const std::string& name,
                          std::unique_ptr<Channel> channel) {
  // Destroyed after the lock is released: closing may take a system call.
  std::list<Entry> dropped;
  {
    MutexLock lock(&mutex_);
    if (!cancelled_.ok()) {
      dropped.emplace_back(name, std::move(channel));
    } else {
      held_.emplace_back(name, std::move(channel));
      if (held_.size() > kMaxHeld) {
        dropped.splice(dropped.end(), held_, held_.begin());
      }
    }
  }
  changed_.NotifyAll();
}

absl::StatusOr<std::unique_ptr<Channel>> HeldConnections::Take(
    const std::string& name, const std::string& address, Deadline deadline) {
  MutexLock lock(&mutex_);
  auto found = held_.end();
  const bool is_here = changed_.WaitUntil(lock, deadline, [&] {
    found = std::find_if(held_.begin(), held_.end(), [&](const Entry& entry) {
      return entry.first == name;
    });
    return !cancelled_.ok() || found != held_.end();
  });
  if (!cancelled_.ok()) return cancelled_;
  if (!is_here) {
    return absl::DeadlineExceededError(absl::StrCat(
        "nobody connected to ", address, " under the name ", name,
        " in time; expected the peer to connect: is its worker running?"));
  }
  std::unique_ptr<Channel> channel = std::move(found->second);
  held_.erase(found);
  return channel;
}

void HeldConnections::Cancel(const absl::Status& reason) {
  std::list<Entry> dropped;
  {
    MutexLock lock(&mutex_);
    if (cancelled_.ok()) cancelled_ = reason;
    dropped.swap(held_);
  }
  changed_.NotifyAll();
}

}  // namespace deltapipe
