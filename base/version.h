// The version of this source tree; coordinator and workers must agree on it.
#ifndef DELTAPIPE_BASE_VERSION_H_
#define DELTAPIPE_BASE_VERSION_H_

namespace deltapipe {

inline constexpr char kVersion[] = "0.1.0";

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_VERSION_H_
