#include "coordinator/rpc/get_version.h"

#include "base/version.h"

namespace deltapipe {

v1::Version GetVersion(const v1::GetVersionRequest& request) {
  v1::Version version;
  version.set_version(kVersion);
  version.set_protocol("deltapipe.v1");
  return version;
}

}  // namespace deltapipe
