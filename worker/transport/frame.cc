#include "worker/transport/frame.h"

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

const char* KindName(FrameKind kind) {
  switch (kind) {
    case FrameKind::kActivation:
      return "activation";
    case FrameKind::kActivationGradient:
      return "activation gradient";
    case FrameKind::kGradient:
      return "gradient";
    case FrameKind::kScalar:
      return "scalar";
    case FrameKind::kKeyframeRequest:
      return "keyframe request";
    case FrameKind::kKeyframe:
      return "keyframe";
    case FrameKind::kWeights:
      return "weights";
    case FrameKind::kAcknowledge:
      return "acknowledgement";
    case FrameKind::kResendRequest:
      return "resend request";
  }
  return "unknown kind";
}

}  // namespace

std::string FrameHeader::ToString() const {
  return absl::StrCat(KindName(kind), ", step ", step + 1, ", mb ", microbatch,
                      ", boundary ", boundary,
                      (flags & kFrameEvaluation) != 0 ? ", evaluation" : "",
                      (flags & kFrameEnd) != 0 ? ", end of its step" : "");
}

}  // namespace deltapipe
