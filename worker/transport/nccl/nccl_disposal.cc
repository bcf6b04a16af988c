#include "worker/transport/nccl/nccl_disposal.h"

#include <utility>

#include "base/log.h"

namespace deltapipe {
namespace {

constexpr Nanos kFinalizePoll = std::chrono::milliseconds(1);

}  // namespace

NcclDisposal::NcclDisposal(const NcclLibrary* nccl, const CudaLibrary* cuda,
                           int device)
    : nccl_(nccl), cuda_(cuda), device_(device) {}

NcclDisposal::~NcclDisposal() { Await(Deadline::Infinite()); }

void NcclDisposal::Take(NcclRemains remains) {
  std::list<Batch> finished;  // joined after the lock is free
  MutexLock lock(&mutex_);
  for (auto batch = batches_.begin(); batch != batches_.end();) {
    const auto next = std::next(batch);
    if (batch->is_done) finished.splice(finished.end(), batches_, batch);
    batch = next;
  }
  // A thread that has not taken what waits will take this, too.
  const bool is_taken_care_of = !waiting_.empty();
  waiting_.push_back(std::move(remains));
  if (is_taken_care_of) return;
  Batch* const batch = &batches_.emplace_back();
  batch->thread = Thread("nccl-disposal", [this, batch] { Run(batch); });
}

bool NcclDisposal::Await(Deadline deadline) {
  MutexLock lock(&mutex_);
  return changed_.WaitUntil(lock, deadline, [&] {
    for (const Batch& batch : batches_) {
      if (!batch.is_done) return false;
    }
    return true;
  });
}

void NcclDisposal::Run(Batch* batch) {
  std::vector<NcclRemains> taken;
  {
    MutexLock lock(&mutex_);
    taken.swap(waiting_);
  }
  // Where it fails, so will what follows, which says so.
  cuda_->set_device(device_);
  std::vector<NcclRemains*> failed, clean;
  for (NcclRemains& remains : taken) {
    if (remains.communicator == nullptr) continue;
    (remains.is_clean ? clean : failed).push_back(&remains);
  }
  Abort(failed);
  Abort(Destroy(std::move(clean)));
  for (const NcclRemains& remains : taken) FreeMemory(remains);
  MutexLock lock(&mutex_);
  batch->is_done = true;
  changed_.NotifyAll();
}

void NcclDisposal::Abort(const std::vector<NcclRemains*>& remains) {
  if (remains.empty()) return;
  // An abort alone would wait for kernels of those that come after it.
  NcclResult worst = nccl_->group_start();
  for (const NcclRemains* one : remains) {
    const NcclResult aborted = nccl_->comm_abort(one->communicator);
    if (aborted != kNcclSuccess && aborted != kNcclInProgress) worst = aborted;
  }
  const NcclResult ended = nccl_->group_end();
  if (ended != kNcclSuccess && ended != kNcclInProgress) worst = ended;
  if (worst == kNcclSuccess) return;
  LOG_WARNING << "aborting " << remains.size()
              << " NCCL communicators (the first with " << remains.front()->peer
              << ") failed: " << nccl_->get_error_string(worst);
}

std::vector<NcclRemains*> NcclDisposal::Destroy(
    std::vector<NcclRemains*> remains) {
  std::vector<NcclRemains*> left, given_up;
  for (NcclRemains* one : remains) {
    const NcclResult begun = nccl_->comm_finalize(one->communicator);
    const bool is_begun = begun == kNcclSuccess || begun == kNcclInProgress;
    (is_begun ? left : given_up).push_back(one);
  }
  const Deadline deadline = Deadline::After(kFinalizeWithin);
  while (!left.empty()) {
    std::vector<NcclRemains*> still;
    for (NcclRemains* one : left) {
      NcclResult state = kNcclInternalError;
      const NcclResult asked =
          nccl_->comm_get_async_error(one->communicator, &state);
      if (asked == kNcclSuccess && state == kNcclSuccess) {
        nccl_->comm_destroy(one->communicator);
      } else if (asked == kNcclSuccess && state == kNcclInProgress &&
                 !deadline.has_passed()) {
        still.push_back(one);
      } else {
        given_up.push_back(one);
      }
    }
    left = std::move(still);
    if (left.empty()) break;
    // Nobody notifies of it: this is a pause between two looks.
    MutexLock lock(&mutex_);
    changed_.WaitUntil(lock, Deadline::After(kFinalizePoll),
                       [] { return false; });
  }
  return given_up;
}

void NcclDisposal::FreeMemory(const NcclRemains& remains) {
  CudaResult worst = kCudaSuccess;
  const auto check = [&worst](CudaResult result) {
    if (result != kCudaSuccess) worst = result;
  };
  for (const CudaEvent event : remains.events) {
    check(cuda_->event_destroy(event));
  }
  if (remains.stream != nullptr) check(cuda_->stream_destroy(remains.stream));
  if (remains.device_memory != nullptr) {
    check(cuda_->free(remains.device_memory));
  }
  if (remains.host_memory != nullptr) {
    check(cuda_->free_host(remains.host_memory));
  }
  if (worst == kCudaSuccess) return;
  LOG_WARNING << "freeing what the NCCL edge with " << remains.peer
              << " had failed: " << cuda_->get_error_string(worst);
}

}  // namespace deltapipe
