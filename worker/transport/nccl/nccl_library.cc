#include "worker/transport/nccl/nccl_library.h"

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "worker/transport/nccl/shared_library.h"

namespace deltapipe {
namespace {

absl::Status FindAll(const SharedLibrary& library, NcclLibrary* nccl) {
  DP_RETURN_IF_ERROR(library.Find("ncclGetVersion", &nccl->get_version));
  DP_RETURN_IF_ERROR(library.Find("ncclGetUniqueId", &nccl->get_unique_id));
  DP_RETURN_IF_ERROR(
      library.Find("ncclCommInitRankConfig", &nccl->comm_init_rank_config));
  DP_RETURN_IF_ERROR(
      library.Find("ncclCommGetAsyncError", &nccl->comm_get_async_error));
  DP_RETURN_IF_ERROR(library.Find("ncclCommFinalize", &nccl->comm_finalize));
  DP_RETURN_IF_ERROR(library.Find("ncclCommDestroy", &nccl->comm_destroy));
  DP_RETURN_IF_ERROR(library.Find("ncclCommAbort", &nccl->comm_abort));
  DP_RETURN_IF_ERROR(library.Find("ncclSend", &nccl->send));
  DP_RETURN_IF_ERROR(library.Find("ncclRecv", &nccl->recv));
  DP_RETURN_IF_ERROR(library.Find("ncclGroupStart", &nccl->group_start));
  DP_RETURN_IF_ERROR(library.Find("ncclGroupEnd", &nccl->group_end));
  DP_RETURN_IF_ERROR(
      library.Find("ncclGetErrorString", &nccl->get_error_string));
  return library.Find("ncclGetLastError", &nccl->get_last_error);
}

}  // namespace

std::vector<std::string> NcclCandidates() {
  std::vector<std::string> candidates = {"libnccl.so.2"};
  const std::string torch = FolderOfLoadedLibrary("libc10.so");
  if (!torch.empty()) {
    candidates.push_back(
        absl::StrCat(torch, "/../../nvidia/nccl/lib/libnccl.so.2"));
  }
  return candidates;
}

absl::StatusOr<NcclLibrary> LoadNccl(
    const std::vector<std::string>& candidates) {
  const auto library = SharedLibrary::Open(candidates);
  if (!library.ok()) {
    return absl::FailedPreconditionError(absl::StrCat(
        "NCCL cannot be loaded (", library.status().message(),
        "): install libnccl.so.2, ", NcclVersionText(kOldestNcclVersion),
        " or later, where the loader finds it"));
  }
  NcclLibrary nccl;
  nccl.path = library->path();
  const absl::Status found = FindAll(*library, &nccl);
  if (nccl.get_version && nccl.get_version(&nccl.version) != kNcclSuccess) {
    return absl::FailedPreconditionError(
        absl::StrCat(nccl.path, " does not tell its version: install another"));
  }
  if (nccl.version >= kOldestNcclVersion && found.ok()) return nccl;
  return absl::FailedPreconditionError(absl::StrCat(
      nccl.path, " is NCCL ", NcclVersionText(nccl.version), ", expected ",
      NcclVersionText(kOldestNcclVersion), " or later",
      found.ok() ? "" : absl::StrCat(" (", found.message(), ")"),
      ": install a later one"));
}

std::string NcclVersionText(int version) {
  // Until 2.8 two digits less.
  const int major = version / (version < 10000 ? 1000 : 10000);
  return absl::StrCat(major, ".", version / 100 % (version < 10000 ? 10 : 100),
                      ".", version % 100);
}

}  // namespace deltapipe
