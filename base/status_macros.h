// Early returns for absl::Status and absl::StatusOr, and one way to add
// context.
//
//   DP_RETURN_IF_ERROR(channel->Send(frame));
//   DP_ASSIGN_OR_RETURN(Plan plan, BuildPlan(spec));
//   return Annotate(status, "stage 2, step 118");
//
// Each layer annotates once, with facts its callee did not know.
#ifndef DELTAPIPE_BASE_STATUS_MACROS_H_
#define DELTAPIPE_BASE_STATUS_MACROS_H_

#include <string>
#include <utility>

#include "absl/base/optimization.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"

namespace deltapipe {

/// Returns `status` with `context` put before its message; OK stays OK.
inline absl::Status Annotate(const absl::Status& status,
                             absl::string_view context) {
  if (status.ok()) return status;
  absl::Status annotated(status.code(),
                         absl::StrCat(context, ": ", status.message()));
  status.ForEachPayload(
      [&annotated](absl::string_view url, const absl::Cord& payload) {
        annotated.SetPayload(url, payload);
      });
  return annotated;
}

}  // namespace deltapipe

#define DP_RETURN_IF_ERROR(expression)                           \
  do {                                                           \
    ::absl::Status dp_status_ = (expression);                    \
    if (ABSL_PREDICT_FALSE(!dp_status_.ok())) return dp_status_; \
  } while (false)

#define DP_STATUS_CONCAT_INNER_(a, b) a##b
#define DP_STATUS_CONCAT_(a, b) DP_STATUS_CONCAT_INNER_(a, b)

#define DP_ASSIGN_OR_RETURN(declaration, expression)                    \
  DP_ASSIGN_OR_RETURN_IMPL_(DP_STATUS_CONCAT_(dp_status_or_, __LINE__), \
                            declaration, expression)

#define DP_ASSIGN_OR_RETURN_IMPL_(status_or, declaration, expression) \
  auto status_or = (expression);                                      \
  if (ABSL_PREDICT_FALSE(!status_or.ok())) return status_or.status(); \
  declaration = std::move(status_or).value()

#endif  // DELTAPIPE_BASE_STATUS_MACROS_H_
