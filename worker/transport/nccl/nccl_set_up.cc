#include "worker/transport/nccl/nccl_set_up.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/little_endian.h"
#include "base/status_macros.h"
#include "worker/transport/message.h"

namespace deltapipe {
namespace {

/// u32 protocol, u32 version of NCCL, u64 bytes of a chunk.
constexpr size_t kHelloBytes = 16;
constexpr uint32_t kProtocol = 1;

/// Both ends' part in making a channel.
class SetUp {
 public:
  SetUp(ControlLane* lane, NcclContext* context,
        const NcclSetUpOptions& options, Deadline deadline)
      : lane_(lane),
        context_(context),
        options_(options),
        deadline_(deadline) {}

  absl::StatusOr<NcclEdgePair> Run() {
    DP_RETURN_IF_ERROR(ExchangeHellos());
    DP_RETURN_IF_ERROR(ShareIds());
    NcclEdgePair edges;
    // The lower rank's sending edge first, at both ends.
    if (options_.is_lower_rank) {
      DP_ASSIGN_OR_RETURN(edges.out, MakeEdge(NcclEnd::kSender, 0));
      DP_ASSIGN_OR_RETURN(edges.in, MakeEdge(NcclEnd::kReceiver, 1));
    } else {
      DP_ASSIGN_OR_RETURN(edges.in, MakeEdge(NcclEnd::kReceiver, 0));
      DP_ASSIGN_OR_RETURN(edges.out, MakeEdge(NcclEnd::kSender, 1));
    }
    return edges;
  }

 private:
  absl::Status ExchangeHellos() {
    uint8_t hello[kHelloBytes];
    uint8_t* at = StoreLittleEndian<uint32_t>(kProtocol, hello);
    at = StoreLittleEndian<uint32_t>(
        static_cast<uint32_t>(context_->nccl().version), at);
    StoreLittleEndian<uint64_t>(static_cast<uint64_t>(options_.chunk_bytes),
                                at);
    DP_RETURN_IF_ERROR(
        lane_->Send(ControlLane::Kind::kHello, {ByteSpan(hello)}, deadline_));
    DP_ASSIGN_OR_RETURN(const Buffer theirs,
                        Receive(ControlLane::Kind::kHello, kHelloBytes));
    const int version =
        static_cast<int>(LoadLittleEndian<uint32_t>(theirs.data() + 4));
    if (version != context_->nccl().version) {
      return absl::FailedPreconditionError(absl::StrCat(
          lane_->channel()->peer(), " has NCCL ", NcclVersionText(version),
          ", this worker ", NcclVersionText(context_->nccl().version), " (",
          context_->nccl().path,
          "): NCCL joins equal versions only: install one of them on all, or "
          "use network.transport: tcp"));
    }
    if (std::memcmp(theirs.data(), hello, kHelloBytes) == 0) {
      return absl::OkStatus();
    }
    return absl::FailedPreconditionError(
        absl::StrCat(lane_->channel()->peer(),
                     " uses another protocol or chunk size over "
                     "NCCL: build all workers from one commit"));
  }

  absl::Status ShareIds() {
    if (options_.is_lower_rank) {
      for (NcclUniqueId& id : ids_) {
        const NcclResult made = context_->nccl().get_unique_id(&id);
        if (made == kNcclSuccess) continue;
        return absl::UnavailableError(absl::StrCat(
            context_->description(), " makes no id for ",
            lane_->channel()->peer(), ": ",
            context_->nccl().get_error_string(made),
            ": does NCCL_SOCKET_IFNAME name an interface that is up?"));
      }
      return lane_->Send(
          ControlLane::Kind::kIds,
          {ByteSpan(reinterpret_cast<const uint8_t*>(ids_), sizeof(ids_))},
          deadline_);
    }
    DP_ASSIGN_OR_RETURN(const Buffer bytes,
                        Receive(ControlLane::Kind::kIds, sizeof(ids_)));
    std::memcpy(ids_, bytes.data(), sizeof(ids_));
    return absl::OkStatus();
  }

  absl::StatusOr<Buffer> Receive(ControlLane::Kind kind, int64_t size) {
    while (true) {
      DP_RETURN_IF_ERROR(CheckCancelled());
      auto message =
          lane_->Receive(std::min(deadline_, Deadline::After(kCancelPoll)));
      if (!message.ok()) {
        if (absl::IsDeadlineExceeded(message.status()) &&
            !deadline_.has_passed()) {
          continue;
        }
        return message.status();
      }
      if (message->kind == kind && message->bytes.size() == size) {
        return std::move(message->bytes);
      }
      return absl::DataLossError(
          absl::StrCat("a message of ", message->bytes.size(), " bytes from ",
                       lane_->channel()->peer(), " where ", size,
                       " bytes of NCCL's set-up were expected"));
    }
  }

  absl::Status CheckCancelled() const {
    const bool is_over =
        options_.is_cancelled != nullptr && *options_.is_cancelled;
    return is_over ? CalledOff() : absl::OkStatus();
  }

  absl::StatusOr<std::unique_ptr<NcclEdge>> MakeEdge(NcclEnd end, int index) {
    NcclEdgeOptions edge;
    edge.id = ids_[index];
    edge.end = end;
    edge.chunk_bytes = options_.chunk_bytes;
    edge.peer = lane_->channel()->peer();
    return NcclEdge::Create(context_, edge, deadline_, [this] {
      DP_RETURN_IF_ERROR(CheckCancelled());
      return lane_->Watch();
    });
  }

  ControlLane* const lane_;
  NcclContext* const context_;
  const NcclSetUpOptions options_;
  const Deadline deadline_;

  NcclUniqueId ids_[2] = {};
};

}  // namespace

absl::StatusOr<NcclEdgePair> SetUpNccl(ControlLane* lane, NcclContext* context,
                                       const NcclSetUpOptions& options,
                                       Deadline deadline) {
  return SetUp(lane, context, options, deadline).Run();
}

}  // namespace deltapipe
