#include "worker/transport/faulty/faulty_channel.h"

#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/mutex.h"
#include "base/philox.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

// The draws of one message.
struct Draws {
  explicit Draws(uint64_t seed, uint64_t message_index) {
    RandomKey key;
    key.seed = seed;
    key.step = static_cast<uint32_t>(message_index);
    key.slot = static_cast<uint32_t>(message_index >> 32);
    const PhiloxBlock first = Philox4x32(key.PhiloxCounter(0), key.PhiloxKey());
    const PhiloxBlock second =
        Philox4x32(key.PhiloxCounter(1), key.PhiloxKey());
    loss = Unit(first[0]);
    repeat = Unit(first[1]);
    reorder = Unit(first[2]);
    corrupt = Unit(first[3]);
    truncates = (second[0] & 3) == 0;
    where = (uint64_t{second[1]} << 32) | second[2];
  }
  static double Unit(uint32_t word) { return word * 0x1p-32; }

  double loss, repeat, reorder, corrupt;
  bool truncates;
  uint64_t where;
};

class FaultyChannelImpl : public FaultyChannel {
 public:
  FaultyChannelImpl(std::unique_ptr<Channel> channel,
                    const FaultOptions& options)
      : channel_(std::move(channel)), options_(options) {}

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    DP_RETURN_IF_ERROR(CheckMessageSize(
        TotalBytes(pieces), channel_->capabilities().max_message_bytes,
        channel_->peer()));
    const Draws draws(options_.seed, num_sent_++);
    if (options_.cut_after_messages > 0 &&
        static_cast<int64_t>(num_sent_) > options_.cut_after_messages) {
      const absl::Status cut = absl::UnavailableError(
          absl::StrCat("send to ", channel_->peer(), " failed: cut off"));
      channel_->Cancel(cut);
      return cut;
    }
    if (draws.loss < options_.loss) {
      Count(&FaultCounters::lost);
      return absl::OkStatus();
    }
    Buffer damaged;
    if (draws.corrupt < options_.corrupt && TotalBytes(pieces) > 0) {
      DP_ASSIGN_OR_RETURN(Buffer copy, Concatenate(pieces));
      damaged = Damage(std::move(copy), draws);
      Count(&FaultCounters::corrupted);
    }
    const ByteSpan whole[] = {damaged.span()};
    const absl::Span<const ByteSpan> bytes =
        damaged.empty() ? pieces : absl::MakeConstSpan(whole);
    if (draws.repeat < options_.repeat) {
      Count(&FaultCounters::repeated);
      DP_RETURN_IF_ERROR(channel_->Send(bytes, deadline));
    } else if (draws.reorder < options_.reorder && !is_holding_) {
      Count(&FaultCounters::reordered);
      DP_ASSIGN_OR_RETURN(held_, Concatenate(bytes));
      is_holding_ = true;
      return absl::OkStatus();
    }
    DP_RETURN_IF_ERROR(channel_->Send(bytes, deadline));
    if (!is_holding_) return absl::OkStatus();
    is_holding_ = false;
    return channel_->Send({held_.span()}, deadline);
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    return channel_->Receive(deadline);
  }

  void Cancel(absl::Status reason) override { channel_->Cancel(reason); }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities = channel_->capabilities();
    capabilities.name = absl::StrCat("faulty(", capabilities.name, ")");
    return capabilities;
  }

  ChannelCounters counters() const override { return channel_->counters(); }
  std::string peer() const override { return channel_->peer(); }

  FaultCounters fault_counters() const override {
    MutexLock lock(&mutex_);
    return fault_counters_;
  }

 private:
  static Buffer Damage(Buffer message, const Draws& draws) {
    const uint64_t size = static_cast<uint64_t>(message.size());
    if (draws.truncates && size > 1) {
      message.Truncate(static_cast<int64_t>(1 + draws.where % (size - 1)));
    } else {
      message.data()[draws.where / 8 % size] ^=
          static_cast<uint8_t>(1u << (draws.where % 8));
    }
    return message;
  }

  void Count(int64_t FaultCounters::*counter) {
    MutexLock lock(&mutex_);
    ++(fault_counters_.*counter);
  }

  const std::unique_ptr<Channel> channel_;
  const FaultOptions options_;

  // Touched by the sending thread only.
  uint64_t num_sent_ = 0;
  bool is_holding_ = false;
  Buffer held_;

  mutable Mutex mutex_;
  FaultCounters fault_counters_ DP_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<FaultyChannel> FaultyChannel::Create(
    std::unique_ptr<Channel> channel, const FaultOptions& options) {
  return std::make_unique<FaultyChannelImpl>(std::move(channel), options);
}

}  // namespace deltapipe
