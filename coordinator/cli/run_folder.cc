#include "coordinator/cli/run_folder.h"

#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <system_error>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "base/utf8.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

constexpr int kMaxRunsOfAName = 100000;
constexpr char kModelFile[] = "model.safetensors";

bool HasModel(const std::string& folder) {
  std::error_code error;
  return fs::is_regular_file(fs::path(folder) / kModelFile, error);
}

std::string WhichRunsThereAre(const std::string& runs, const std::string& job) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator it(runs, error), end; !error && it != end;
       it.increment(error)) {
    if (HasModel(it->path().string())) {
      names.push_back(it->path().filename().string());
    }
  }
  if (names.empty()) return ": 'deltapipe run SPEC' makes one";
  const std::vector<absl::string_view> known(names.begin(), names.end());
  const std::string hint = NearestNameHint(job, known);
  if (!hint.empty()) return hint;
  return absl::StrCat(" (there are: ", absl::StrJoin(names, ", "), ")");
}

}  // namespace

std::string AbsolutePath(const std::string& path) {
  std::error_code error;
  const fs::path absolute = fs::absolute(path, error);
  return error ? path : absolute.lexically_normal().string();
}

std::string ShortPath(const std::string& path) {
  std::error_code error;
  const fs::path here = fs::current_path(error);
  if (error) return path;
  const std::string relative = fs::path(path).lexically_relative(here).string();
  const bool is_below = !relative.empty() && relative.rfind("..", 0) != 0;
  return is_below ? relative : path;
}

std::string BaseName(const std::string& path) {
  const fs::path whole(path);
  return (whole.has_filename() ? whole : whole.parent_path())
      .filename()
      .string();
}

absl::StatusOr<std::string> CreateRunFolder(const std::string& runs,
                                            const std::string& name) {
  const std::string parent = AbsolutePath(runs);
  DP_RETURN_IF_ERROR(CheckUtf8("the folder of runs", parent));
  DP_RETURN_IF_ERROR(MakeDirectories(parent));
  for (int i = 1; i <= kMaxRunsOfAName; ++i) {
    const std::string folder =
        absl::StrCat(parent, "/", name, i == 1 ? "" : absl::StrCat("-", i));
    if (mkdir(folder.c_str(), 0777) == 0) return folder;
    if (errno != EEXIST) return FileError("make the folder", folder, errno);
  }
  return absl::ResourceExhaustedError(
      absl::StrCat("no free folder name for ", name, " below ", parent,
                   ": remove old runs, or give the job another name"));
}

absl::StatusOr<std::string> FindResumableFolder(const std::string& runs,
                                                const std::string& name) {
  const std::string folder = AbsolutePath(absl::StrCat(runs, "/", name));
  const std::string spec = folder + "/spec.yaml";
  if (access(spec.c_str(), R_OK) == 0) return folder;
  return absl::NotFoundError(
      absl::StrCat("there is no run ", folder,
                   " to go on with: `run` without --resume starts one, and "
                   "--set name=NAME names another"));
}

void RemoveModelTemporaries(const std::string& folder) {
  // As WriteFileAtomically names them.
  const std::string prefix = absl::StrCat(kModelFile, ".tmp-");
  std::vector<fs::path> left;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (absl::StartsWith(name, prefix)) left.push_back(it->path());
  }
  // What cannot be removed harms nobody: no one reads such a file.
  for (const fs::path& path : left) fs::remove(path, error);
}

absl::StatusOr<std::string> FindRunFolder(const std::string& runs,
                                          const std::string& job) {
  const std::string below = absl::StrCat(runs, "/", job);
  for (const std::string& folder : {below, job}) {
    if (HasModel(folder)) return AbsolutePath(folder);
  }
  std::error_code error;
  for (const std::string& folder : {below, job}) {
    if (!fs::is_directory(folder, error)) continue;
    return absl::NotFoundError(
        absl::StrCat(folder,
                     " has no model.safetensors yet: it is written at every "
                     "checkpoint and at the end of the run"));
  }
  return absl::NotFoundError(absl::StrCat("no run '", job, "' below ", runs,
                                          WhichRunsThereAre(runs, job)));
}

}  // namespace deltapipe
