#include "worker/collective/replica_check.h"

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/checksum.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxNamedTensors = 8;

/// "replicas 0, 2 against replica 1" where the checksums of segment `l` differ,
/// else empty.
std::string Disagreement(const std::vector<std::vector<double>>& checksums,
                         size_t l) {
  std::map<std::pair<double, double>, std::vector<int>> by_checksum;
  for (size_t rank = 0; rank < checksums.size(); ++rank) {
    by_checksum[{checksums[rank][2 * l], checksums[rank][2 * l + 1]}].push_back(
        static_cast<int>(rank));
  }
  if (by_checksum.size() == 1) return "";
  std::vector<std::vector<int>> groups;
  for (const auto& entry : by_checksum) groups.push_back(entry.second);
  std::sort(groups.begin(), groups.end(), [](const auto& a, const auto& b) {
    return a.size() != b.size() ? a.size() > b.size() : a < b;
  });
  std::vector<std::string> names;
  for (const std::vector<int>& group : groups) {
    names.push_back(absl::StrCat(group.size() == 1 ? "replica " : "replicas ",
                                 absl::StrJoin(group, ", ")));
  }
  return absl::StrJoin(names, " against ");
}

}  // namespace

absl::Status CheckReplicas(RankGroup* group, uint32_t step, uint32_t phase,
                           const ParameterLayout& layout,
                           absl::Span<const float> weights, Deadline deadline) {
  if (static_cast<int64_t>(weights.size()) != layout.num_elements) {
    return absl::InvalidArgumentError(
        absl::StrCat("replica check: ", weights.size(), " weights, expected ",
                     layout.num_elements));
  }
  std::vector<double> mine;
  for (const ParameterSegment& segment : layout.segments) {
    const absl::Span<const float> values =
        weights.subspan(static_cast<size_t>(segment.offset),
                        static_cast<size_t>(segment.num_elements));
    AppendHash(Checksum(absl::Span<const uint8_t>(
                   reinterpret_cast<const uint8_t*>(values.data()),
                   values.size() * sizeof(float))),
               &mine);
  }
  DP_ASSIGN_OR_RETURN(const std::vector<std::vector<double>> checksums,
                      group->AllGather(step, phase, mine, deadline));

  std::vector<std::string> differences;
  size_t num_differences = 0;
  for (size_t l = 0; l < layout.segments.size(); ++l) {
    const std::string ranks = Disagreement(checksums, l);
    if (ranks.empty()) continue;
    if (++num_differences > kMaxNamedTensors) continue;
    differences.push_back(
        absl::StrCat("\"", layout.segments[l].name, "\" (", ranks, ")"));
  }
  if (num_differences == 0) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat("weights of the replicas differ after step ", step + 1,
                   " in ", num_differences, " of ", layout.segments.size(),
                   " tensors: ", absl::StrJoin(differences, ", "),
                   num_differences > kMaxNamedTensors ? ", ..." : "",
                   ": one of them is damaged; start the job again"));
}

}  // namespace deltapipe
