// Outbox: what a worker has told of its assignment and the coordinator has not
// stored yet. It is sent again over a new stream, in order.
//
// Bounded by what a worker says while a coordinator is away: a report a step.
// Thread-compatible.
#ifndef DELTAPIPE_WORKER_CONTROL_OUTBOX_H_
#define DELTAPIPE_WORKER_CONTROL_OUTBOX_H_

#include <cstdint>
#include <deque>
#include <string>
#include <utility>

#include "proto/deltapipe/v1/control.pb.h"

namespace deltapipe {

class Outbox {
 public:
  /// Forgets what is left of an earlier assignment and counts from 1 again.
  void Begin(const std::string& job_id, uint64_t generation) {
    job_id_ = job_id;
    generation_ = generation;
    last_sequence_ = 0;
    messages_.clear();
  }
  /// Numbers the message and keeps it until it is acknowledged.
  const v1::WorkerMessage& Add(v1::WorkerMessage message) {
    message.set_sequence(++last_sequence_);
    messages_.push_back(std::move(message));
    return messages_.back();
  }
  void Acknowledge(const v1::Acknowledge& acknowledge) {
    if (acknowledge.job_id() != job_id_ ||
        acknowledge.generation() != generation_) {
      return;
    }
    while (!messages_.empty() &&
           messages_.front().sequence() <= acknowledge.sequence()) {
      messages_.pop_front();
    }
  }

  const std::deque<v1::WorkerMessage>& messages() const { return messages_; }
  const std::string& job_id() const { return job_id_; }
  uint64_t generation() const { return generation_; }

 private:
  std::string job_id_;
  uint64_t generation_ = 0;
  int64_t last_sequence_ = 0;
  std::deque<v1::WorkerMessage> messages_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_CONTROL_OUTBOX_H_
