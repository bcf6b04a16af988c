#include "worker/transport/nccl/shared_library.h"

#include <dlfcn.h>
#include <link.h>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace deltapipe {
namespace {

std::string LoadError() {
  const char* const text = dlerror();
  return text == nullptr ? "no reason given" : text;
}

std::string PathOf(void* handle, const std::string& name) {
  link_map* map = nullptr;
  if (dlinfo(handle, RTLD_DI_LINKMAP, &map) != 0 || map == nullptr ||
      map->l_name == nullptr || *map->l_name == '\0') {
    return name;
  }
  return map->l_name;
}

struct FolderSearch {
  const std::string* name;
  std::string folder;
};

int VisitLibrary(dl_phdr_info* info, size_t, void* argument) {
  auto* const search = static_cast<FolderSearch*>(argument);
  const std::string path = info->dlpi_name == nullptr ? "" : info->dlpi_name;
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return 0;
  if (path.compare(slash + 1, std::string::npos, *search->name) != 0) return 0;
  search->folder = path.substr(0, slash);
  return 1;
}

}  // namespace

absl::StatusOr<SharedLibrary> SharedLibrary::Open(
    const std::vector<std::string>& candidates) {
  for (const std::string& name : candidates) {
    void* const loaded = dlopen(name.c_str(), RTLD_NOW | RTLD_NOLOAD);
    if (loaded != nullptr) return SharedLibrary(loaded, PathOf(loaded, name));
  }
  std::vector<std::string> errors;
  for (const std::string& name : candidates) {
    void* const loaded = dlopen(name.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (loaded != nullptr) return SharedLibrary(loaded, PathOf(loaded, name));
    errors.push_back(LoadError());
  }
  return absl::NotFoundError(absl::StrJoin(errors, "; "));
}

absl::StatusOr<void*> SharedLibrary::Address(const char* symbol) const {
  void* const address = dlsym(handle_, symbol);
  if (address != nullptr) return address;
  return absl::NotFoundError(absl::StrCat(path_, " has no ", symbol));
}

std::string FolderOfLoadedLibrary(const std::string& name) {
  FolderSearch search{&name, ""};
  dl_iterate_phdr(&VisitLibrary, &search);
  return search.folder;
}

}  // namespace deltapipe
