#include "base/safetensors.h"

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "base/file.h"
#include "base/float_cast.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

constexpr int64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100000000;
constexpr int kMaxRank = 8;
constexpr char kMetadataName[] = "__metadata__";

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::kFloat64, "F64"}, {DType::kFloat32, "F32"},
    {DType::kFloat16, "F16"}, {DType::kBFloat16, "BF16"},
    {DType::kInt64, "I64"},   {DType::kInt32, "I32"},
    {DType::kUInt8, "U8"},
};

const char* NameOf(DType dtype) {
  for (const DTypeName& row : kDTypeNames) {
    if (row.dtype == dtype) return row.name;
  }
  return "?";
}

/// Reads the JSON header event by event. Accepts exactly the shape of a
/// safetensors header and nothing nested deeper, so that a hostile header costs
/// no memory beyond its own entries.
class HeaderReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  struct RawTensor {
    std::string dtype;
    std::vector<uint64_t> shape;
    std::vector<uint64_t> offsets;
    std::set<std::string> fields;
  };

  std::vector<std::pair<std::string, RawTensor>> tensors;
  std::map<std::string, std::string> metadata;
  std::string error;

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text));
  }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (array_ == nullptr) return Unexpected(absl::StrCat("number ", value));
    // No field has more numbers than the largest rank.
    if (array_->size() >= kMaxRank) {
      return Fail(
          absl::StrCat("more than ", kMaxRank, " numbers in '", field_, "'"));
    }
    array_->push_back(value);
    return true;
  }

  bool string(string_t& value) override {
    if (depth_ == 2 && is_metadata_) {
      metadata[field_] = value;
      return true;
    }
    if (depth_ == 2 && field_ == "dtype") {
      tensors.back().second.dtype = value;
      return true;
    }
    return Unexpected("a string");
  }

  bool start_object(std::size_t) override {
    if (depth_ >= 2 || array_ != nullptr) return Unexpected("an object");
    ++depth_;
    return true;
  }

  bool end_object() override {
    if (--depth_ == 1) {
      is_metadata_ = false;
      name_.clear();
    }
    return true;
  }

  bool key(string_t& key) override {
    if (depth_ == 1) {
      name_ = key;
      field_.clear();
      is_metadata_ = key == kMetadataName;
      if (!names_.insert(key).second) return Fail("the name occurs twice");
      if (!is_metadata_) tensors.emplace_back(key, RawTensor{});
      return true;
    }
    field_ = key;
    if (is_metadata_) {
      return metadata.count(key) == 0 ||
             Fail(absl::StrCat("the key '", key, "' occurs twice"));
    }
    if (key != "dtype" && key != "shape" && key != "data_offsets") {
      return Fail(absl::StrCat("unknown field '", key, "'"));
    }
    return tensors.back().second.fields.insert(key).second ||
           Fail(absl::StrCat("the field '", key, "' occurs twice"));
  }

  bool start_array(std::size_t) override {
    if (depth_ != 2 || is_metadata_ || array_ != nullptr) {
      return Unexpected("an array");
    }
    RawTensor& tensor = tensors.back().second;
    if (field_ == "shape") array_ = &tensor.shape;
    if (field_ == "data_offsets") array_ = &tensor.offsets;
    return array_ != nullptr || Unexpected("an array");
  }

  bool end_array() override {
    array_ = nullptr;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("the header is not JSON at its byte ", position));
  }

 private:
  bool Unexpected(const std::string& what) {
    return Fail(absl::StrCat("unexpected ", what, field_.empty() ? "" : " in '",
                             field_, field_.empty() ? "" : "'"));
  }

  bool Fail(const std::string& why) {
    error = name_.empty() ? why : absl::StrCat("tensor '", name_, "': ", why);
    return false;
  }

  int depth_ = 0;
  bool is_metadata_ = false;
  std::string name_;
  std::string field_;
  std::set<std::string> names_;
  std::vector<uint64_t>* array_ = nullptr;
};

/// Checks one tensor of the header; `data_bytes` is the size of the data part.
absl::StatusOr<SafetensorsFile::Entry> CheckTensor(
    const std::string& name, const HeaderReader::RawTensor& raw,
    uint64_t data_bytes) {
  if (raw.fields.size() != 3) {
    return absl::InvalidArgumentError(
        "expected the fields dtype, shape and data_offsets");
  }
  SafetensorsFile::Entry entry;
  entry.name = name;
  const auto* row = std::find_if(
      std::begin(kDTypeNames), std::end(kDTypeNames),
      [&raw](const DTypeName& known) { return raw.dtype == known.name; });
  if (row == std::end(kDTypeNames)) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected type F64, F32, F16, BF16, I64, I32 or U8, got '",
                     raw.dtype, "'"));
  }
  entry.dtype = row->dtype;
  uint64_t bytes = static_cast<uint64_t>(DTypeBytes(entry.dtype));
  bool overflows = false;
  for (const uint64_t dimension : raw.shape) {
    overflows |= dimension > INT64_MAX;
    entry.shape.push_back(static_cast<int64_t>(dimension));
    overflows |= __builtin_mul_overflow(bytes, dimension, &bytes);
  }
  // A dimension of 0 hides an overflow of the others, which is refused as well.
  if (overflows) {
    return absl::InvalidArgumentError("its shape has too many elements");
  }
  if (raw.offsets.size() != 2) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected 2 data_offsets, got ", raw.offsets.size()));
  }
  const uint64_t begin = raw.offsets[0];
  const uint64_t end = raw.offsets[1];
  if (begin > end || end > data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("its bytes ", begin, " to ", end,
                     " lie outside of the file's ", data_bytes));
  }
  if (end - begin != bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected ", bytes, " bytes for ", raw.dtype, " ",
                     ShapeString(entry.shape), ", got ", end - begin));
  }
  entry.begin = static_cast<int64_t>(begin);
  entry.end = static_cast<int64_t>(end);
  return entry;
}

absl::Status CheckLayout(const std::vector<SafetensorsFile::Entry>& entries,
                         int64_t data_bytes) {
  int64_t position = 0;
  for (const SafetensorsFile::Entry& entry : entries) {
    if (entry.begin != position) {
      return absl::InvalidArgumentError(absl::StrCat(
          "tensor '", entry.name, "': its bytes begin at ", entry.begin,
          entry.begin < position ? " and overlap" : " and leave a hole after",
          " those that end at ", position));
    }
    position = entry.end;
  }
  if (position != data_bytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("the tensors end at byte ", position, " of ", data_bytes,
                     ": the rest belongs to none"));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SafetensorsFile> SafetensorsFile::Read(const std::string& path) {
  DP_ASSIGN_OR_RETURN(std::vector<uint8_t> bytes, ReadFileBytes(path));
  return Parse(std::move(bytes), path);
}

absl::StatusOr<SafetensorsFile> SafetensorsFile::Parse(
    std::vector<uint8_t> bytes, const std::string& origin) {
  const auto refuse = [&origin](absl::string_view why) {
    return absl::InvalidArgumentError(
        absl::StrCat(origin, " is not valid safetensors: ", why));
  };
  if (bytes.size() < kLengthBytes) {
    return refuse(absl::StrCat("expected at least ", kLengthBytes,
                               " bytes, got ", bytes.size()));
  }
  uint64_t header_bytes = 0;
  for (int i = 0; i < kLengthBytes; ++i) {
    header_bytes |= uint64_t{bytes[i]} << (8 * i);
  }
  if (header_bytes > kMaxHeaderBytes) {
    return refuse(absl::StrCat("a header of ", header_bytes,
                               " bytes, expected at most ", kMaxHeaderBytes));
  }
  if (header_bytes > bytes.size() - kLengthBytes) {
    return refuse(absl::StrCat("a header of ", header_bytes,
                               " bytes in a file of ", bytes.size()));
  }
  const char* header =
      reinterpret_cast<const char*>(bytes.data()) + kLengthBytes;
  if (header_bytes == 0 || header[0] != '{') {
    return refuse("expected a header that begins with '{'");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(header, header + header_bytes, &reader)) {
    return refuse(reader.error);
  }
  SafetensorsFile file;
  file.data_offset_ = kLengthBytes + static_cast<int64_t>(header_bytes);
  const int64_t data_bytes =
      static_cast<int64_t>(bytes.size()) - file.data_offset_;
  for (const auto& [name, raw] : reader.tensors) {
    auto entry = CheckTensor(name, raw, static_cast<uint64_t>(data_bytes));
    if (!entry.ok()) {
      return refuse(
          absl::StrCat("tensor '", name, "': ", entry.status().message()));
    }
    file.entries_.push_back(*std::move(entry));
  }
  std::stable_sort(file.entries_.begin(), file.entries_.end(),
                   [](const Entry& a, const Entry& b) {
                     return std::make_pair(a.begin, a.end) <
                            std::make_pair(b.begin, b.end);
                   });
  if (absl::Status layout = CheckLayout(file.entries_, data_bytes);
      !layout.ok()) {
    return refuse(layout.message());
  }
  file.metadata_ = std::move(reader.metadata);
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
                       NameOf(view.dtype())));
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
  // Wide types first: every tensor is then aligned to its own type.
  std::vector<size_t> order(tensors_.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [this](size_t a, size_t b) {
    return DTypeBytes(tensors_[a].second.dtype()) >
           DTypeBytes(tensors_[b].second.dtype());
  });
  // Plain objects keep their keys' order only as ordered_json, whose look-up is
  // linear; with the names checked here, the keys are appended without look-up.
  Json::object_t header;
  if (!metadata.empty()) header.emplace_back(kMetadataName, metadata);
  std::set<std::string> names = {kMetadataName};
  std::vector<absl::Span<const uint8_t>> pieces(2);
  int64_t position = 0;
  for (const size_t i : order) {
    const auto& [name, view] = tensors_[i];
    if (!names.insert(name).second) {
      return absl::InvalidArgumentError(
          absl::StrCat("cannot write ", path, ": two tensors are named '", name,
                       "', or the name is reserved"));
    }
    const int64_t end = position + view.num_bytes();
    header.emplace_back(
        name, Json{{"dtype", NameOf(view.dtype())},
                   {"shape", std::vector<int64_t>(view.shape().begin(),
                                                  view.shape().end())},
                   {"data_offsets", {position, end}}});
    pieces.emplace_back(static_cast<const uint8_t*>(view.data()),
                        static_cast<size_t>(view.num_bytes()));
    position = end;
  }
  std::string text;
  try {
    text = Json(std::move(header)).dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError(absl::StrCat(
        "cannot write ", path, ": a name or metadata is not UTF-8"));
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("cannot write ", path, ": its header has ", text.size(),
                     " bytes, expected at most ", kMaxHeaderBytes));
  }
  uint8_t length[kLengthBytes];
  for (int i = 0; i < kLengthBytes; ++i) {
    length[i] = static_cast<uint8_t>(uint64_t{text.size()} >> (8 * i));
  }
  pieces[0] = absl::MakeConstSpan(length);
  pieces[1] = absl::MakeConstSpan(reinterpret_cast<const uint8_t*>(text.data()),
                                  text.size());
  return WriteFileAtomically(path, pieces);
}

}  // namespace deltapipe
