#include "coordinator/cli/checkpoint_listing.h"

#include <algorithm>
#include <filesystem>
#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "base/file.h"
#include "base/status_macros.h"
#include "coordinator/cli/run_folder.h"

namespace deltapipe {
namespace {

namespace fs = std::filesystem;

constexpr char kCheckpointsFolder[] = "checkpoints";

std::string WithoutSlashes(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  return path;
}

bool IsFolder(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error);
}

bool IsCheckpointName(const std::string& name) {
  int64_t step;
  uint64_t generation;
  return ParseCheckpointFolderName(name, &step, &generation).ok();
}

/// Compares the files on the disk with their sizes in the manifest.
void LookAtFiles(ListedCheckpoint* listed) {
  listed->state = "ok";
  for (const ManifestFile& file : listed->manifest->files) {
    const std::string path = absl::StrCat(listed->path, "/", file.name);
    std::error_code error;
    const bool is_file =
        fs::symlink_status(path, error).type() == fs::file_type::regular;
    if (!is_file) {
      if (listed->is_ok()) {
        listed->state = "incomplete";
        listed->problem = absl::StrCat(ShortPath(path), " is not there");
      }
      continue;
    }
    ++listed->num_files_here;
    const auto bytes = static_cast<int64_t>(fs::file_size(path, error));
    if (bytes != file.bytes && listed->state != "damaged") {
      listed->state = "damaged";
      listed->problem = absl::StrCat(ShortPath(path), " is damaged: expected ",
                                     file.bytes, " bytes, got ", bytes);
    }
  }
}

ListedCheckpoint LookAt(const std::string& folder, const std::string& name) {
  ListedCheckpoint listed;
  listed.path = absl::StrCat(WithoutSlashes(folder), "/", name);
  // The caller has looked at the name.
  ParseCheckpointFolderName(name, &listed.step, &listed.generation)
      .IgnoreError();
  auto manifest = LoadManifest(listed.path);
  if (manifest.ok()) {
    listed.manifest = *std::move(manifest);
    LookAtFiles(&listed);
  } else if (absl::IsNotFound(manifest.status())) {
    listed.state = "unfinished";
    listed.problem =
        absl::StrCat(ShortPath(listed.path),
                     " has no manifest.json: it is being written, or never "
                     "was finished");
  } else {
    listed.state = "damaged";
    listed.problem = std::string(manifest.status().message());
  }
  return listed;
}

std::string ChoiceText(const CheckpointChoice& choice) {
  return absl::StrCat(
      choice.step ? absl::StrCat(" of step ", *choice.step) : "",
      choice.generation ? absl::StrCat(" of generation ", *choice.generation)
                        : "");
}

}  // namespace

int64_t ListedCheckpoint::num_bytes() const {
  int64_t bytes = 0;
  if (!manifest) return bytes;
  // A manifest may claim any sizes.
  for (const ManifestFile& file : manifest->files) {
    if (__builtin_add_overflow(bytes, file.bytes, &bytes)) return INT64_MAX;
  }
  return bytes;
}

absl::StatusOr<std::vector<ListedCheckpoint>> ListCheckpoints(
    const std::string& folder) {
  std::vector<ListedCheckpoint> all;
  std::error_code error;
  for (fs::directory_iterator it(folder, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (IsCheckpointName(name)) all.push_back(LookAt(folder, name));
  }
  if (error) return FileError("list", folder, error.value());
  std::sort(all.begin(), all.end(),
            [](const ListedCheckpoint& a, const ListedCheckpoint& b) {
              return std::make_pair(a.step, a.generation) >
                     std::make_pair(b.step, b.generation);
            });
  return all;
}

absl::StatusOr<std::string> FindCheckpointsFolder(
    const CheckpointChoice& choice) {
  const std::string job = WithoutSlashes(choice.job);
  const std::string below = absl::StrCat(choice.runs, "/", job);
  for (const std::string& path : {below, job}) {
    if (IsCheckpointName(BaseName(path)) && IsFolder(path)) {
      const std::string parent = fs::path(path).parent_path().string();
      return parent.empty() ? "." : parent;
    }
    const std::string inside = absl::StrCat(path, "/", kCheckpointsFolder);
    if (IsFolder(inside)) return inside;
  }
  // A folder of checkpoints itself, maybe one that somebody has copied.
  if (IsFolder(job)) {
    DP_ASSIGN_OR_RETURN(const std::vector<ListedCheckpoint> all,
                        ListCheckpoints(job));
    if (!all.empty() || BaseName(job) == kCheckpointsFolder) return job;
  }
  for (const std::string& path : {below, job}) {
    if (!IsFolder(path)) continue;
    return absl::NotFoundError(absl::StrCat(
        path,
        " has no checkpoints: checkpoint.every in a job's spec makes "
        "them"));
  }
  return absl::NotFoundError(absl::StrCat(
      "no run '", job, "' below ", choice.runs,
      " and no folder of that name: give a run's name, or a path"));
}

absl::StatusOr<std::vector<ListedCheckpoint>> FindCheckpoints(
    const CheckpointChoice& given) {
  CheckpointChoice choice = given;
  DP_ASSIGN_OR_RETURN(const std::string folder, FindCheckpointsFolder(choice));
  const std::string name = BaseName(WithoutSlashes(choice.job));
  int64_t step;
  uint64_t generation;
  if (ParseCheckpointFolderName(name, &step, &generation).ok()) {
    choice.step = step;
    choice.generation = generation;
  }
  DP_ASSIGN_OR_RETURN(const std::vector<ListedCheckpoint> all,
                      ListCheckpoints(folder));
  std::vector<ListedCheckpoint> chosen;
  std::vector<std::string> others;
  for (const ListedCheckpoint& listed : all) {
    if ((!choice.step || listed.step == *choice.step) &&
        (!choice.generation || listed.generation == *choice.generation)) {
      chosen.push_back(listed);
    } else {
      others.push_back(BaseName(listed.path));
    }
  }
  if (!chosen.empty()) return chosen;
  return absl::NotFoundError(absl::StrCat(
      folder, " has no checkpoint", ChoiceText(choice),
      others.empty()
          ? ""
          : absl::StrCat(" (there are: ", absl::StrJoin(others, ", "), ")")));
}

absl::StatusOr<ListedCheckpoint> FindCheckpointToRead(
    const CheckpointChoice& choice) {
  DP_ASSIGN_OR_RETURN(const std::vector<ListedCheckpoint> all,
                      FindCheckpoints(choice));
  for (const ListedCheckpoint& listed : all) {
    if (listed.manifest) return listed;
  }
  return absl::DataLossError(all.front().problem);
}

}  // namespace deltapipe
