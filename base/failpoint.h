// Failpoints: named places where a process can be made to die, to show that
// nothing is lost there.
//
//   Failpoint("apply.before");
//
// DELTAPIPE_FAILPOINTS="apply.before=kill@30" ends this process by SIGKILL when
// it passes that place for the 30th time. Where the variable is not set a
// failpoint costs one read of a constant. Several are separated by commas; a
// text that is none is an error on stderr, and the process ends.
#ifndef DELTAPIPE_BASE_FAILPOINT_H_
#define DELTAPIPE_BASE_FAILPOINT_H_

namespace deltapipe {

namespace failpoint_internal {
extern const bool is_any_set;
void Pass(const char* name);
}  // namespace failpoint_internal

/// Thread-safe.
inline void Failpoint(const char* name) {
  if (failpoint_internal::is_any_set) failpoint_internal::Pass(name);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_FAILPOINT_H_
