#include "worker/transport/recording/recording_channel.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/little_endian.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

class RecordingChannel : public Channel {
 public:
  RecordingChannel(std::unique_ptr<Channel> channel,
                   std::shared_ptr<Recording> recording)
      : channel_(std::move(channel)), recording_(std::move(recording)) {}

  absl::Status Send(absl::Span<const ByteSpan> pieces,
                    Deadline deadline) override {
    absl::Status sent = channel_->Send(pieces, deadline);
    if (!sent.ok()) return sent;
    DP_ASSIGN_OR_RETURN(const Buffer message, Concatenate(pieces));
    recording_->OnSent(message.span());
    return sent;
  }

  absl::StatusOr<Buffer> Receive(Deadline deadline) override {
    absl::StatusOr<Buffer> message = channel_->Receive(deadline);
    if (message.ok()) recording_->OnReceived(message->span());
    return message;
  }

  void Cancel(absl::Status reason) override { channel_->Cancel(reason); }

  ChannelCapabilities capabilities() const override {
    ChannelCapabilities capabilities = channel_->capabilities();
    capabilities.name = absl::StrCat("recording(", capabilities.name, ")");
    return capabilities;
  }

  ChannelCounters counters() const override { return channel_->counters(); }
  std::string peer() const override { return channel_->peer(); }

 private:
  const std::unique_ptr<Channel> channel_;
  const std::shared_ptr<Recording> recording_;
};

}  // namespace

Recording::Recording(const RecordingOptions& options) : options_(options) {}

void Recording::OnSent(ByteSpan message) {
  MutexLock lock(&mutex_);
  Record(message, &sent_);
}

void Recording::OnReceived(ByteSpan message) {
  MutexLock lock(&mutex_);
  Record(message, &received_);
}

void Recording::Record(ByteSpan message, Direction* direction) {
  if (options_.only_first_transmissions &&
      !direction->filter.Accepts(message)) {
    return;
  }
  RecordedDirection& record = direction->record;
  ++record.num_messages;
  record.num_bytes += static_cast<int64_t>(message.size());
  uint8_t size[8];
  StoreLittleEndian<uint64_t>(message.size(), size);
  record.checksum = Checksum(message, Checksum(size, record.checksum));
  if (options_.keep_bytes) {
    record.messages.emplace_back(message.begin(), message.end());
  }
}

RecordedDirection Recording::sent() const {
  MutexLock lock(&mutex_);
  return sent_.record;
}

RecordedDirection Recording::received() const {
  MutexLock lock(&mutex_);
  return received_.record;
}

std::unique_ptr<Channel> RecordChannel(std::unique_ptr<Channel> channel,
                                       std::shared_ptr<Recording> recording) {
  return std::make_unique<RecordingChannel>(std::move(channel),
                                            std::move(recording));
}

}  // namespace deltapipe
