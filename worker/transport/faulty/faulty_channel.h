// A decorator that damages what is sent, for tests: it loses, repeats, reorders
// and corrupts messages with given probabilities, drawn from a seed, and can
// cut the connection. What is received passes through.
//
// With the same seed and the same sequence of Sends it does the same. A message
// that is held back to be reordered goes out behind the next one that is sent.
#ifndef DELTAPIPE_WORKER_TRANSPORT_FAULTY_FAULTY_CHANNEL_H_
#define DELTAPIPE_WORKER_TRANSPORT_FAULTY_FAULTY_CHANNEL_H_

#include <cstdint>
#include <memory>

#include "worker/transport/channel.h"

namespace deltapipe {

/// Probabilities of each fault per message, drawn independently; a message is
/// lost, or repeated, or held back, in this order of precedence.
struct FaultOptions {
  uint64_t seed = 1;
  double loss = 0;
  double repeat = 0;
  double reorder = 0;
  double corrupt = 0;  // one bit flipped, or the end cut off
  /// Messages after which the connection is cut; 0: never.
  int64_t cut_after_messages = 0;
};

struct FaultCounters {
  int64_t lost = 0;
  int64_t repeated = 0;
  int64_t reordered = 0;
  int64_t corrupted = 0;
};

class FaultyChannel : public Channel {
 public:
  static std::unique_ptr<FaultyChannel> Create(std::unique_ptr<Channel> channel,
                                               const FaultOptions& options);
  virtual FaultCounters fault_counters() const = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_FAULTY_FAULTY_CHANNEL_H_
