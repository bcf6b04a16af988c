// A shared library that is loaded while the program runs, where there is one.
//
// It stays loaded until the process ends: NCCL and CUDA have threads of their
// own, which must not lose their code. Thread-safe.
//
//   DP_ASSIGN_OR_RETURN(const auto library,
//   SharedLibrary::Open({"libx.so.2"})); std::function<int(int*)> get_version;
//   DP_RETURN_IF_ERROR(library.Find("xGetVersion", &get_version));
#ifndef DELTAPIPE_WORKER_TRANSPORT_NCCL_SHARED_LIBRARY_H_
#define DELTAPIPE_WORKER_TRANSPORT_NCCL_SHARED_LIBRARY_H_

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/status_macros.h"

namespace deltapipe {

class SharedLibrary {
 public:
  /// Opens the first of `candidates` (names or paths) that this process has
  /// loaded already, else the first that can be loaded. NOT_FOUND says why each
  /// could not.
  static absl::StatusOr<SharedLibrary> Open(
      const std::vector<std::string>& candidates);

  /// Sets `function` to the library's `symbol`. NOT_FOUND names both.
  template <typename Result, typename... Arguments>
  absl::Status Find(const char* symbol,
                    std::function<Result(Arguments...)>* function) const {
    DP_ASSIGN_OR_RETURN(void* const address, Address(symbol));
    *function = reinterpret_cast<Result (*)(Arguments...)>(address);
    return absl::OkStatus();
  }

  /// The file that was loaded.
  const std::string& path() const { return path_; }

 private:
  SharedLibrary(void* handle, std::string path)
      : handle_(handle), path_(std::move(path)) {}
  absl::StatusOr<void*> Address(const char* symbol) const;

  void* handle_;
  std::string path_;
};

/// The folder of the loaded library whose file is called `name`; empty if this
/// process has none.
std::string FolderOfLoadedLibrary(const std::string& name);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_NCCL_SHARED_LIBRARY_H_
