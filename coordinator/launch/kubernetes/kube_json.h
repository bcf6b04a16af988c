// Looks into JSON that a server sent, which may have any shape.
#ifndef DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_JSON_H_
#define DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_JSON_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "coordinator/launch/kubernetes/render_manifests.h"

namespace deltapipe {

/// What lies at `path`, or null where there is no such thing. Borrowed.
inline const KubernetesObject* FindAt(const KubernetesObject& object,
                                      std::initializer_list<const char*> path) {
  const KubernetesObject* here = &object;
  for (const char* key : path) {
    if (!here->is_object()) return nullptr;
    const auto found = here->find(key);
    if (found == here->end()) return nullptr;
    here = &*found;
  }
  return here;
}

/// "" where there is no string.
inline std::string TextAt(const KubernetesObject& object,
                          std::initializer_list<const char*> path) {
  const KubernetesObject* const found = FindAt(object, path);
  return found != nullptr && found->is_string() ? found->get<std::string>()
                                                : "";
}

inline int64_t NumberAt(const KubernetesObject& object,
                        std::initializer_list<const char*> path,
                        int64_t otherwise) {
  const KubernetesObject* const found = FindAt(object, path);
  return found != nullptr && found->is_number_integer() ? found->get<int64_t>()
                                                        : otherwise;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_LAUNCH_KUBERNETES_KUBE_JSON_H_
