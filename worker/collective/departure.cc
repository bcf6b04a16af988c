#include "worker/collective/departure.h"

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/cord.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

/// FrameHeader::boundary of the message; no collective has as many phases.
constexpr uint32_t kDeparturePhase = 0xDE9A47ED;

/// The payload of a status, a rank in decimal.
constexpr char kDepartedUrl[] = "deltapipe/departed-rank";

/// The rank that `status` names so; -1: it names none.
int DepartedOf(const absl::Status& status) {
  int rank = -1;
  const auto text = status.GetPayload(kDepartedUrl);
  if (!text.has_value() || !absl::SimpleAtoi(std::string(*text), &rank)) {
    return -1;
  }
  return rank;
}

}  // namespace

absl::Status CheckIsNoDeparture(const Frame& frame) {
  double rank = -1;
  if (frame.header.kind != FrameKind::kScalar ||
      frame.header.boundary != kDeparturePhase ||
      frame.payload().size() != sizeof(rank)) {
    return absl::OkStatus();
  }
  std::memcpy(&rank, frame.payload().data(), sizeof(rank));
  absl::Status status = absl::UnavailableError(
      absl::StrCat("it says that rank ", rank, " has left"));
  status.SetPayload(kDepartedUrl, absl::Cord(absl::StrCat(rank)));
  return status;
}

int FindDeparted(const absl::Status& status, RankGroup* group) {
  int told = DepartedOf(status);
  const auto is_another = [group](int rank) {
    return rank >= 0 && rank < group->size() && rank != group->rank();
  };
  if (is_another(told)) return told;
  std::vector<int> broken;
  for (int peer = 0; peer < group->size(); ++peer) {
    if (peer == group->rank()) continue;
    bool has_said = false;
    while (true) {
      const absl::StatusOr<Frame> frame =
          group->channel(peer)->Receive(Deadline::After(Nanos(0)));
      if (!frame.ok()) {
        if (!absl::IsDeadlineExceeded(frame.status()) && !has_said) {
          broken.push_back(peer);
        }
        break;
      }
      const int departed = DepartedOf(CheckIsNoDeparture(*frame));
      if (!is_another(departed)) continue;
      has_said = true;
      told = departed;
    }
  }
  if (is_another(told)) return told;
  return broken.size() == 1 ? broken[0] : -1;
}

void TellOfDeparture(RankGroup* group, int departed) {
  const Deadline deadline = Deadline::After(kTellingPatience);
  FrameHeader header;
  header.kind = FrameKind::kScalar;
  header.boundary = kDeparturePhase;
  header.num_rows = 1;
  header.row_elements = 1;
  const double rank = departed;
  const ByteSpan payload(reinterpret_cast<const uint8_t*>(&rank), sizeof(rank));
  const auto for_others = [&](const auto& body) {
    for (int peer = 0; peer < group->size(); ++peer) {
      if (peer != group->rank() && peer != departed) body(group->channel(peer));
    }
  };
  // Whoever has gone, too, needs no telling.
  for_others([&](FrameChannel* channel) {
    channel->Send(header, {payload}, deadline).IgnoreError();
  });
  for_others(
      [&](FrameChannel* channel) { channel->Flush(deadline).IgnoreError(); });
}

}  // namespace deltapipe
