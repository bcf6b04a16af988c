// Reads and writes safetensors, the only file format for tensors here: 8 bytes
// of little-endian header length, a JSON header, then the tensors' bytes.
//
// The reader maps nothing and trusts nothing: a header over 100 MB, offsets
// that overlap, leave holes, exceed the file or disagree with shape and type
// are errors that name the tensor. The writer writes to a temporary file beside
// the target and renames it, so that a full disk leaves the former file whole.
//
//   SafetensorsWriter writer;
//   writer.Add("layer.0.weight", view);
//   DP_RETURN_IF_ERROR(writer.WriteTo(path, {{"step", "900"}}));
#ifndef DELTAPIPE_BASE_SAFETENSORS_H_
#define DELTAPIPE_BASE_SAFETENSORS_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/safetensors_header.h"
#include "base/tensor_view.h"

namespace deltapipe {

class SafetensorsFile {
 public:
  using Entry = SafetensorsEntry;

  /// NOT_FOUND if there is no such file; INVALID_ARGUMENT, naming path and
  /// tensor, if its content is not valid safetensors.
  static absl::StatusOr<SafetensorsFile> Read(const std::string& path);
  /// The same from bytes in memory; `origin` names them in errors.
  static absl::StatusOr<SafetensorsFile> Parse(std::vector<uint8_t> bytes,
                                               const std::string& origin);

  /// In the order of their bytes.
  const std::vector<Entry>& entries() const { return entries_; }
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }
  /// A view into this object's memory. NOT_FOUND if there is no such tensor.
  absl::StatusOr<TensorView> Tensor(const std::string& name) const;
  /// fp32, fp16, bf16 or fp64 tensors as fp32 values.
  absl::StatusOr<std::vector<float>> FloatValues(const std::string& name) const;

 private:
  std::vector<uint8_t> bytes_;
  int64_t data_offset_ = 0;
  std::vector<Entry> entries_;
  std::map<std::string, std::string> metadata_;
  std::map<std::string, size_t> index_;  // name to position in entries_
  /// Tensors whose place in the file does not fit their type.
  std::map<std::string, std::vector<uint8_t>> aligned_copies_;
};

class SafetensorsWriter {
 public:
  /// Adds a tensor; the view must live until WriteTo.
  void Add(const std::string& name, TensorView view);
  /// Writes all tensors, wide types first and else in the order of adding.
  /// Errors name the path: those of WriteFileAtomically (RESOURCE_EXHAUSTED for
  /// a full disk, PERMISSION_DENIED and NOT_FOUND for the folder),
  /// INVALID_ARGUMENT if two tensors share a name or a name is not UTF-8.
  /// Replaces a file.
  absl::Status WriteTo(const std::string& path,
                       const std::map<std::string, std::string>& metadata);

 private:
  std::vector<std::pair<std::string, TensorView>> tensors_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_SAFETENSORS_H_
