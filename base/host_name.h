// The name of this machine, as workers announce it and coordinators compare it.
#ifndef DELTAPIPE_BASE_HOST_NAME_H_
#define DELTAPIPE_BASE_HOST_NAME_H_

#include <unistd.h>

#include <string>

namespace deltapipe {

inline std::string HostName() {
  char name[256] = {};
  gethostname(name, sizeof(name) - 1);
  return name;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_HOST_NAME_H_
