#include "worker/collective/rank_group.h"

#include <cstring>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/collective/departure.h"

namespace deltapipe {
namespace {

absl::Status CheckScalarFrame(const Frame& frame, const FrameHeader& expected,
                              size_t num_values) {
  const FrameHeader& header = frame.header;
  if (header.kind != expected.kind || header.step != expected.step ||
      header.boundary != expected.boundary) {
    return absl::FailedPreconditionError(absl::StrCat(
        "expected scalars of step ", expected.step + 1, ", phase ",
        expected.boundary, ", got a frame of kind ",
        static_cast<int>(header.kind), ", step ", header.step + 1, ", phase ",
        header.boundary, ": the ranks are not in the same place of the plan"));
  }
  if (frame.payload().size() != num_values * sizeof(double)) {
    return absl::FailedPreconditionError(absl::StrCat(
        "expected ", num_values, " values (", num_values * sizeof(double),
        " bytes), got ", frame.payload().size(), " bytes"));
  }
  return absl::OkStatus();
}

}  // namespace

std::string RankGroup::Describe(int rank) const {
  return absl::StrCat("rank ", rank, " (", channel(rank)->peer(), ")");
}

absl::StatusOr<std::vector<std::vector<double>>> RankGroup::AllGather(
    uint32_t step, uint32_t phase, absl::Span<const double> mine,
    Deadline deadline) {
  FrameHeader header;
  header.kind = FrameKind::kScalar;
  header.step = step;
  header.boundary = phase;
  header.num_rows = 1;
  header.row_elements = static_cast<uint32_t>(mine.size());
  const ByteSpan payload(reinterpret_cast<const uint8_t*>(mine.data()),
                         mine.size() * sizeof(double));
  const auto annotate = [&](const absl::Status& status, const char* what,
                            int peer) {
    return Annotate(
        status, absl::StrCat("gather of scalars, step ", step + 1, ", phase ",
                             phase, ": ", what, Describe(peer)));
  };

  for (int offset = 1; offset < size(); ++offset) {
    const int peer = (rank_ + offset) % size();
    const absl::Status sent = channel(peer)->Send(header, {payload}, deadline);
    if (!sent.ok()) return annotate(sent, "to ", peer);
  }
  std::vector<std::vector<double>> gathered(static_cast<size_t>(size()));
  for (int peer = 0; peer < size(); ++peer) {
    std::vector<double>& values = gathered[static_cast<size_t>(peer)];
    if (peer == rank_) {
      values.assign(mine.begin(), mine.end());
      continue;
    }
    absl::StatusOr<Frame> frame = channel(peer)->Receive(deadline);
    if (!frame.ok()) return annotate(frame.status(), "from ", peer);
    const absl::Status left = CheckIsNoDeparture(*frame);
    if (!left.ok()) return annotate(left, "from ", peer);
    const absl::Status checked = CheckScalarFrame(*frame, header, mine.size());
    if (!checked.ok()) return annotate(checked, "from ", peer);
    values.resize(mine.size());
    if (!values.empty()) {
      std::memcpy(values.data(), frame->payload().data(),
                  frame->payload().size());
    }
  }
  return gathered;
}

}  // namespace deltapipe
