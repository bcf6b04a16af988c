// FakeWorkerSupply: keeps what is wanted and brings nothing. A test speaks for
// it by hand.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_FAKE_WORKER_SUPPLY_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_FAKE_WORKER_SUPPLY_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "coordinator/launch/worker_supply.h"

namespace deltapipe {

class FakeWorkerSupply : public WorkerSupply {
 public:
  void Begin(SupplyListener listener) override {
    MutexLock lock(&mutex_);
    listener_ = std::move(listener);
  }
  void Want(const SuppliedJob& job) override {
    MutexLock lock(&mutex_);
    wanted_[job.id] = job;
  }
  void Unwant(const std::string& job_id) override {
    MutexLock lock(&mutex_);
    wanted_.erase(job_id);
  }
  void End() override {
    MutexLock lock(&mutex_);
    has_ended_ = true;
  }
  std::string Hint(const std::string& job_id) const override {
    return absl::StrCat("a fake brings those of ", job_id);
  }

  /// What a supply would say.
  void Tell(const std::string& job_id, const SupplyNotice& notice) {
    SupplyListener listener;
    {
      MutexLock lock(&mutex_);
      listener = listener_;
    }
    listener.on_notice(job_id, notice);
  }
  std::vector<SuppliedJob> wanted() {
    MutexLock lock(&mutex_);
    std::vector<SuppliedJob> jobs;
    for (const auto& [id, job] : wanted_) jobs.push_back(job);
    return jobs;
  }
  bool has_ended() {
    MutexLock lock(&mutex_);
    return has_ended_;
  }
  bool IsAtRest(const std::string& job_id) {
    SupplyListener listener;
    {
      MutexLock lock(&mutex_);
      listener = listener_;
    }
    return listener.is_at_rest(job_id);
  }

 private:
  Mutex mutex_;
  SupplyListener listener_ DP_GUARDED_BY(mutex_);
  std::map<std::string, SuppliedJob> wanted_ DP_GUARDED_BY(mutex_);
  bool has_ended_ DP_GUARDED_BY(mutex_) = false;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_FAKE_WORKER_SUPPLY_H_
