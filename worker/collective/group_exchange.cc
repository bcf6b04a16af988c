#include "worker/collective/group_exchange.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/departure.h"

namespace deltapipe {

void GroupExchange::Begin(uint32_t step, uint32_t codec_hash) {
  step_ = step;
  codec_hash_ = codec_hash;
}

std::string GroupExchange::activity() const {
  const int peer = active_peer_.load();
  if (peer < 0) return "computing";
  return absl::StrCat(is_sending_.load() ? "sending to " : "waiting for ",
                      group_->Describe(peer), ", phase ", active_phase_.load());
}

absl::Status GroupExchange::Send(int peer, const Part& part, ByteSpan bytes) {
  FrameHeader header;
  header.kind = FrameKind::kGradient;
  header.generation = generation_;
  header.step = step_;
  header.boundary = part.phase;
  header.microbatch = part.piece;
  header.codec_hash = codec_hash_;
  header.num_rows = part.num_pieces;
  header.row_elements = static_cast<uint32_t>(part.num_elements);
  is_sending_ = true;
  active_phase_ = part.phase;
  active_peer_ = peer;
  const absl::Status sent =
      group_->channel(peer)->Send(header, {bytes}, Deadline::Infinite());
  active_peer_ = -1;
  if (!sent.ok()) {
    return Annotate(sent, absl::StrCat("phase ", part.phase, ", to ",
                                       group_->Describe(peer)));
  }
  payload_bytes_ += static_cast<int64_t>(bytes.size());
  return absl::OkStatus();
}

absl::Status GroupExchange::CheckHeader(const FrameHeader& header,
                                        const Part& part) const {
  if (header.kind != FrameKind::kGradient || header.step != step_ ||
      header.boundary != part.phase || header.microbatch != part.piece) {
    return absl::FailedPreconditionError(absl::StrCat(
        "expected gradients of step ", step_ + 1, ", phase ", part.phase,
        ", piece ", part.piece, ", got a frame of kind ",
        static_cast<int>(header.kind), ", step ", header.step + 1, ", phase ",
        header.boundary, ", piece ", header.microbatch,
        ": the ranks are not in the same place of the plan"));
  }
  if (header.codec_hash != codec_hash_) {
    return absl::FailedPreconditionError(absl::StrCat(
        "codec hash ", absl::Hex(header.codec_hash), ", expected ",
        absl::Hex(codec_hash_),
        ": the ranks disagree about format or codec of this step"));
  }
  return absl::OkStatus();
}

absl::StatusOr<Frame> GroupExchange::Receive(int peer, const Part& part) {
  is_sending_ = false;
  active_phase_ = part.phase;
  active_peer_ = peer;
  absl::StatusOr<Frame> frame =
      group_->channel(peer)->Receive(Deadline::Infinite());
  active_peer_ = -1;
  absl::Status status =
      frame.ok() ? CheckIsNoDeparture(*frame) : frame.status();
  if (status.ok()) status = CheckHeader(frame->header, part);
  if (!status.ok()) {
    return Annotate(status, absl::StrCat("phase ", part.phase, ", from ",
                                         group_->Describe(peer)));
  }
  return frame;
}

uint32_t GroupExchange::NumPieces(int64_t bytes) const {
  return static_cast<uint32_t>(std::max<int64_t>(
      1, (bytes + max_message_bytes_ - 1) / max_message_bytes_));
}

absl::Status GroupExchange::Exchange(
    uint32_t phase, absl::Span<const Outgoing> outgoing,
    absl::Span<const int> sources, int64_t most_bytes,
    const std::function<absl::Status(int peer, ByteSpan bytes)>& on_message) {
  struct Leaving {
    ByteSpan bytes;
    uint32_t num_pieces = 1;
  };
  struct Arriving {
    Frame frame;                 // where one piece is all
    std::vector<uint8_t> bytes;  // where there are more
    uint32_t num_pieces = 1;
    bool is_whole = false;
  };
  std::vector<Leaving> leaving(outgoing.size());
  std::vector<Arriving> arriving(sources.size());
  size_t num_delivered = 0;
  bool is_done = false;
  for (uint32_t piece = 0; !is_done; ++piece) {
    is_done = true;
    for (size_t i = 0; i < outgoing.size(); ++i) {
      if (piece == 0) {
        DP_ASSIGN_OR_RETURN(leaving[i].bytes, outgoing[i].encode());
        leaving[i].num_pieces =
            NumPieces(static_cast<int64_t>(leaving[i].bytes.size()));
      }
      if (piece >= leaving[i].num_pieces) continue;
      const size_t limit = static_cast<size_t>(max_message_bytes_);
      DP_RETURN_IF_ERROR(
          Send(outgoing[i].peer,
               {phase, piece, leaving[i].num_pieces, outgoing[i].num_elements},
               leaving[i].bytes.subspan(size_t{piece} * limit, limit)));
      is_done = is_done && piece + 1 == leaving[i].num_pieces;
    }
    for (size_t i = 0; i < sources.size(); ++i) {
      Arriving& message = arriving[i];
      if (piece >= message.num_pieces) continue;
      DP_ASSIGN_OR_RETURN(Frame frame, Receive(sources[i], {phase, piece}));
      if (piece == 0) {
        message.num_pieces = std::max<uint32_t>(frame.header.num_rows, 1);
        if (message.num_pieces > NumPieces(most_bytes)) {
          return absl::DataLossError(absl::StrCat(
              "phase ", phase, ", from ", group_->Describe(sources[i]),
              ": a message of ", message.num_pieces, " pieces, expected ",
              NumPieces(most_bytes), " of at most ", max_message_bytes_,
              " bytes: the ranks do not run the same plan"));
        }
      }
      message.is_whole = piece + 1 == message.num_pieces;
      is_done = is_done && message.is_whole;
      if (message.num_pieces == 1) {
        message.frame = std::move(frame);
      } else {
        message.bytes.insert(message.bytes.end(), frame.payload().begin(),
                             frame.payload().end());
      }
      while (num_delivered < sources.size() &&
             arriving[num_delivered].is_whole) {
        Arriving& next = arriving[num_delivered];
        const int peer = sources[num_delivered++];
        const absl::Status status = on_message(
            peer, next.num_pieces == 1 ? next.frame.payload() : next.bytes);
        next = Arriving{};
        next.num_pieces = 0;
        if (!status.ok()) {
          return Annotate(status, absl::StrCat("phase ", phase, ", from ",
                                               group_->Describe(peer)));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace deltapipe
