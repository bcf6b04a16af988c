#include "base/safetensors.h"

#include <algorithm>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/float_cast.h"
#include "base/status_macros.h"

namespace deltapipe {

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(const std::string& path) {
  DP_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, ReadFileBytes(path));
  return Parse(std::move(bytes), path);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(
    std::vector<uint8_t> bytes, const std::string& origin) {
  const std::string context = absl::StrCat(origin, " is not valid safetensors");
  const auto length =
      SafetensorsHeaderLength(bytes, static_cast<int64_t>(bytes.size()));
  if (!length.ok()) return Annotate(length.status(), context);
  const int64_t data_offset = kSafetensorsLengthBytes + *length;
  auto header = ParseSafetensorsHeader(
      {reinterpret_cast<const char*>(bytes.data()) + kSafetensorsLengthBytes,
       static_cast<size_t>(*length)},
      static_cast<int64_t>(bytes.size()) - data_offset);
  if (!header.ok()) return Annotate(header.status(), context);
  SafetensorsFile file;
  file.data_offset_ = data_offset;
  file.entries_ = std::move(header->entries);
  file.metadata_ = std::move(header->metadata);
  file.bytes_ = std::move(bytes);
  for (size_t i = 0; i < file.entries_.size(); ++i) {
    const Entry& entry = file.entries_[i];
    file.index_[entry.name] = i;
    // Other writers need not align tensors; typed views must be aligned.
    const int64_t position = file.data_offset_ + entry.begin;
    if (position % DTypeBytes(entry.dtype) != 0) {
      file.aligned_copies_[entry.name].assign(
          file.bytes_.begin() + position,
          file.bytes_.begin() + file.data_offset_ + entry.end);
    }
  }
  return file;
}

absl::StatusOr<TensorView> SafetensorsFile::Tensor(
    const std::string& name) const {
  const auto found = index_.find(name);
  if (found == index_.end()) {
    return absl::NotFoundError(absl::StrCat("there is no tensor '", name, "'"));
  }
  const Entry& entry = entries_[found->second];
  const auto copy = aligned_copies_.find(name);
  const uint8_t* data = copy != aligned_copies_.end()
                            ? copy->second.data()
                            : bytes_.data() + data_offset_ + entry.begin;
  // TensorView has no read-only form; callers of a const file do not write.
  return TensorView(entry.dtype, entry.shape, const_cast<uint8_t*>(data));
}

absl::StatusOr<std::vector<float>> SafetensorsFile::FloatValues(
    const std::string& name) const {
  DP_ASSIGN_OR_RETURN(const TensorView view, Tensor(name));
  std::vector<float> values(static_cast<size_t>(view.num_elements()));
  const auto convert = [&values](auto source, auto to_float) {
    std::transform(source.begin(), source.end(), values.begin(), to_float);
    return absl::OkStatus();
  };
  absl::Status status;
  switch (view.dtype()) {
    case DType::kFloat32:
      status = convert(view.Values<float>(), [](float v) { return v; });
      break;
    case DType::kFloat64:
      status = convert(view.Values<double>(),
                       [](double v) { return static_cast<float>(v); });
      break;
    case DType::kFloat16:
      status = convert(view.Values<uint16_t>(), Float16ToFloat);
      break;
    case DType::kBFloat16:
      status = convert(view.Values<uint16_t>(), BFloat16ToFloat);
      break;
    default:
      status = absl::InvalidArgumentError(
          absl::StrCat("tensor '", name,
                       "': expected F64, F32, F16 or BF16, "
                       "got ",
                       SafetensorsTypeName(view.dtype())));
  }
  DP_RETURN_IF_ERROR(status);
  return values;
}

void SafetensorsWriter::Add(const std::string& name, TensorView view) {
  tensors_.emplace_back(name, std::move(view));
}

absl::Status SafetensorsWriter::WriteTo(
    const std::string& path,
    const std::map<std::string, std::string>& metadata) {
  std::vector<DType> dtypes;
  for (const auto& [name, view] : tensors_) dtypes.push_back(view.dtype());
  std::vector<SafetensorsEntry> entries;
  std::vector<absl::Span<const uint8_t>> pieces(1);
  for (const size_t i : SafetensorsOrder(dtypes)) {
    const auto& [name, view] = tensors_[i];
    entries.push_back({name, view.dtype(), view.shape(), 0, 0});
    pieces.emplace_back(static_cast<const uint8_t*>(view.data()),
                        static_cast<size_t>(view.num_bytes()));
  }
  const auto header = FormatSafetensorsHeader(metadata, &entries);
  if (!header.ok()) {
    return Annotate(header.status(), absl::StrCat("cannot write ", path));
  }
  pieces[0] = {reinterpret_cast<const uint8_t*>(header->data()),
               header->size()};
  return WriteFileAtomically(path, pieces);
}

}  // namespace deltapipe
