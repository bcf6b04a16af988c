// RpcCounts: how often each method of the coordinator was answered with each
// status code.
//
// Written by the gRPC server's threads (service/rpc_meter.h), read for each
// scrape. Thread-safe. Grows with methods times codes, so whoever adds names
// methods of its services alone.
#ifndef DELTAPIPE_COORDINATOR_METRICS_RPC_COUNTS_H_
#define DELTAPIPE_COORDINATOR_METRICS_RPC_COUNTS_H_

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/mutex.h"

namespace deltapipe {

class RpcCounts {
 public:
  /// Method and code, such as "JobService.GetJob" and "NOT_FOUND".
  using Counts = std::map<std::pair<std::string, std::string>, int64_t>;

  void Add(const std::string& method, const std::string& code) {
    MutexLock lock(&mutex_);
    ++counts_[{method, code}];
  }
  Counts counts() {
    MutexLock lock(&mutex_);
    return counts_;
  }

 private:
  Mutex mutex_;
  Counts counts_ DP_GUARDED_BY(mutex_);
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_RPC_COUNTS_H_
