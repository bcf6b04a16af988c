#include "coordinator/cli/checkpoint_export.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <deque>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "base/descriptor.h"
#include "base/file.h"
#include "base/safetensors_stream.h"
#include "base/status_macros.h"
#include "coordinator/cli/checkpoint_verify.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

constexpr char kWeightsPrefix[] = "weights/";
constexpr char kSuffix[] = ".safetensors";
constexpr int64_t kPieceBytes = int64_t{4} << 20;

/// A tensor of the model and where its bytes are.
struct Source {
  SafetensorsDeclaration declaration;
  const SafetensorsReader* reader;
  const SafetensorsEntry* entry;
  int64_t bytes() const { return entry->end - entry->begin; }
};

using ModelPart = std::vector<Source>;  // of one file

absl::Status OpenShards(const ListedCheckpoint& checkpoint,
                        std::deque<SafetensorsReader>* readers) {
  const CheckpointManifest& manifest = *checkpoint.manifest;
  for (int stage = 0; stage < manifest.num_stages; ++stage) {
    const std::string name = StageShardName(stage);
    const auto file = std::find_if(
        manifest.files.begin(), manifest.files.end(),
        [&](const ManifestFile& listed) { return listed.name == name; });
    if (file == manifest.files.end()) {
      return absl::DataLossError(
          absl::StrCat(checkpoint.path, "/manifest.json names no ", name,
                       ", but has ", manifest.num_stages, " stages"));
    }
    DP_RETURN_IF_ERROR(VerifyCheckpointFile(checkpoint.path, *file));
    DP_ASSIGN_OR_RETURN(
        SafetensorsReader reader,
        SafetensorsReader::Open(absl::StrCat(checkpoint.path, "/", name)));
    readers->push_back(std::move(reader));
  }
  return absl::OkStatus();
}

/// All weights, stage after stage.
absl::StatusOr<std::vector<Source>> FindWeights(
    const ListedCheckpoint& checkpoint,
    const std::deque<SafetensorsReader>& readers) {
  std::vector<Source> sources;
  std::map<std::string, size_t> stages;
  for (size_t stage = 0; stage < readers.size(); ++stage) {
    const size_t count = sources.size();
    for (const SafetensorsEntry& entry : readers[stage].entries()) {
      absl::string_view name = entry.name;
      if (!absl::ConsumePrefix(&name, kWeightsPrefix)) continue;
      const auto [found, is_new] = stages.emplace(name, stage);
      if (!is_new) {
        return absl::DataLossError(
            absl::StrCat(checkpoint.path, ": the weights '", name,
                         "' are in stage ", found->second, " and ", stage));
      }
      sources.push_back({{std::string(name), entry.dtype, entry.shape},
                         &readers[stage],
                         &entry});
    }
    if (sources.size() == count) {
      return absl::DataLossError(absl::StrCat(
          checkpoint.path, "/", StageShardName(static_cast<int>(stage)),
          " has no tensor '", kWeightsPrefix, "...': there is no model"));
    }
  }
  return sources;
}

std::vector<ModelPart> Split(const std::vector<Source>& sources,
                             int64_t max_shard_bytes) {
  std::vector<ModelPart> parts(1);
  int64_t bytes = 0;
  for (const Source& source : sources) {
    if (!parts.back().empty() && source.bytes() > max_shard_bytes - bytes) {
      parts.emplace_back();
      bytes = 0;
    }
    parts.back().push_back(source);
    bytes += source.bytes();
  }
  return parts;
}

absl::Status WritePart(const std::string& path, const ModelPart& part,
                       const std::map<std::string, std::string>& metadata) {
  std::vector<SafetensorsDeclaration> declarations;
  std::map<std::string, const Source*> by_name;
  for (const Source& source : part) {
    declarations.push_back(source.declaration);
    by_name[source.declaration.name] = &source;
  }
  DP_ASSIGN_OR_RETURN(
      SafetensorsStreamWriter writer,
      SafetensorsStreamWriter::Create(path, declarations, metadata));
  std::vector<uint8_t> piece;
  for (const SafetensorsEntry& entry : writer.entries()) {
    const Source& source = *by_name.at(entry.name);
    for (int64_t offset = 0; offset < source.bytes(); offset += kPieceBytes) {
      piece.resize(
          static_cast<size_t>(std::min(kPieceBytes, source.bytes() - offset)));
      DP_RETURN_IF_ERROR(source.reader->ReadPart(*source.entry, offset,
                                                 absl::MakeSpan(piece)));
      DP_RETURN_IF_ERROR(writer.Append(entry.name, piece));
    }
  }
  return writer.Finish().status();
}

/// "model-00002-of-00003.safetensors" for "model.safetensors".
std::string PartName(const std::string& output, size_t index, size_t count) {
  absl::string_view stem = output;
  absl::ConsumeSuffix(&stem, kSuffix);
  return absl::StrFormat("%s-%05d-of-%05d%s", stem, index + 1, count, kSuffix);
}

std::string LastName(const std::string& path) {
  return path.substr(path.find_last_of('/') + 1);
}

std::string IndexText(const std::vector<ModelPart>& parts,
                      const ExportedModel& model) {
  std::map<std::string, std::string> names;
  for (size_t i = 0; i < parts.size(); ++i) {
    for (const Source& source : parts[i]) {
      names[source.declaration.name] = LastName(model.files[i]);
    }
  }
  nlohmann::ordered_json index;
  index["metadata"]["total_size"] = model.num_bytes;
  index["weight_map"] = names;
  return index.dump(2) + "\n";
}

/// A checkpoint is not written into.
absl::Status CheckOutside(const std::string& output,
                          const std::string& checkpoint_path) {
  struct stat parent;
  struct stat checkpoint;
  if (::stat(ParentFolder(output).c_str(), &parent) == 0 &&
      ::stat(checkpoint_path.c_str(), &checkpoint) == 0 &&
      parent.st_dev == checkpoint.st_dev &&
      parent.st_ino == checkpoint.st_ino) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", output,
                     ": it lies in the checkpoint's own folder: choose "
                     "another one"));
  }
  return absl::OkStatus();
}

absl::Status CheckFree(const std::vector<std::string>& files) {
  for (const std::string& file : files) {
    struct stat info;
    if (::lstat(file.c_str(), &info) == 0) {
      return absl::AlreadyExistsError(
          absl::StrCat("cannot write ", file,
                       ": it exists: choose another name, or --force"));
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ExportedModel> ExportCheckpoint(
    const ListedCheckpoint& checkpoint, const ExportOptions& options) {
  DP_RETURN_IF_ERROR(CheckOutside(options.output, checkpoint.path));
  std::deque<SafetensorsReader> readers;
  DP_RETURN_IF_ERROR(OpenShards(checkpoint, &readers));
  DP_ASSIGN_OR_RETURN(const std::vector<Source> sources,
                      FindWeights(checkpoint, readers));
  const std::vector<ModelPart> parts = Split(sources, options.max_shard_bytes);
  ExportedModel model;
  model.num_tensors = static_cast<int64_t>(sources.size());
  for (const Source& source : sources) model.num_bytes += source.bytes();
  for (size_t i = 0; i < parts.size(); ++i) {
    model.files.push_back(parts.size() == 1
                              ? options.output
                              : PartName(options.output, i, parts.size()));
  }
  const std::string index = absl::StrCat(options.output, ".index.json");
  if (parts.size() > 1) model.files.push_back(index);
  if (!options.may_replace) DP_RETURN_IF_ERROR(CheckFree(model.files));
  // As the workers write model.safetensors.
  const std::map<std::string, std::string> metadata = {
      {"format", "deltapipe"},
      {"step", absl::StrCat(checkpoint.manifest->step)},
      {"spec", checkpoint.manifest->spec_json}};
  absl::Status status;
  size_t num_written = 0;
  while (status.ok() && num_written < parts.size()) {
    status = WritePart(model.files[num_written], parts[num_written], metadata);
    if (status.ok()) ++num_written;
  }
  if (status.ok() && parts.size() > 1) {
    status = WriteFileAtomically(index, IndexText(parts, model));
  }
  if (status.ok()) return model;
  // Parts without an index are no model.
  for (size_t i = 0; i < num_written; ++i) ::unlink(model.files[i].c_str());
  return status;
}

}  // namespace deltapipe
