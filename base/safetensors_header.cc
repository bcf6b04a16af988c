#include "base/safetensors_header.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr uint64_t kMaxHeaderBytes = 100000000;
constexpr size_t kMaxTensors = size_t{1} << 20;
constexpr int kMaxRank = 8;
constexpr char kMetadataName[] = "__metadata__";

struct DTypeName {
  DType dtype;
  const char* name;
};
constexpr DTypeName kDTypeNames[] = {
    {DType::kFloat64, "F64"}, {DType::kFloat32, "F32"},
    {DType::kFloat16, "F16"}, {DType::kBFloat16, "BF16"},
    {DType::kInt64, "I64"},   {DType::kUInt64, "U64"},
    {DType::kInt32, "I32"},   {DType::kUInt8, "U8"},
};

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
      if (!is_metadata_ && tensors.back().second.fields.size() != 3) {
        return Fail("expected the fields dtype, shape and data_offsets");
      }
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
      if (is_metadata_) return true;
      if (tensors.size() >= kMaxTensors) {
        return Fail(absl::StrCat("more than ", kMaxTensors, " tensors"));
      }
      tensors.emplace_back(key, RawTensor{});
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
absl::StatusOr<SafetensorsEntry> CheckTensor(const std::string& name,
                                             const HeaderReader::RawTensor& raw,
                                             uint64_t data_bytes) {
  SafetensorsEntry entry;
  entry.name = name;
  const auto* row = std::find_if(
      std::begin(kDTypeNames), std::end(kDTypeNames),
      [&raw](const DTypeName& known) { return raw.dtype == known.name; });
  if (row == std::end(kDTypeNames)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected type F64, F32, F16, BF16, I64, U64, I32 or U8, got '",
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

absl::Status CheckLayout(const std::vector<SafetensorsEntry>& entries,
                         int64_t data_bytes) {
  int64_t position = 0;
  for (const SafetensorsEntry& entry : entries) {
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

const char* SafetensorsTypeName(DType dtype) {
  for (const DTypeName& row : kDTypeNames) {
    if (row.dtype == dtype) return row.name;
  }
  return "?";
}

absl::StatusOr<int64_t> SafetensorsHeaderLength(
    absl::Span<const uint8_t> prefix, int64_t file_bytes) {
  const int64_t prefix_bytes = kSafetensorsLengthBytes;
  if (static_cast<int64_t>(prefix.size()) < prefix_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "expected at least ", prefix_bytes, " bytes, got ", prefix.size()));
  }
  uint64_t length = 0;
  for (size_t i = 0; i < kSafetensorsLengthBytes; ++i) {
    length |= uint64_t{prefix[i]} << (8 * i);
  }
  if (length > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a header of ", length, " bytes, expected at most ", kMaxHeaderBytes));
  }
  if (static_cast<int64_t>(length) > file_bytes - prefix_bytes) {
    return absl::InvalidArgumentError(absl::StrCat(
        "a header of ", length, " bytes in a file of ", file_bytes));
  }
  return static_cast<int64_t>(length);
}

absl::StatusOr<SafetensorsHeader> ParseSafetensorsHeader(absl::string_view text,
                                                         int64_t data_bytes) {
  if (text.empty() || text[0] != '{') {
    return absl::InvalidArgumentError("expected a header that begins with '{'");
  }
  HeaderReader reader;
  if (!nlohmann::json::sax_parse(text.begin(), text.end(), &reader)) {
    return absl::InvalidArgumentError(reader.error);
  }
  SafetensorsHeader header;
  header.data_offset =
      kSafetensorsLengthBytes + static_cast<int64_t>(text.size());
  for (const auto& [name, raw] : reader.tensors) {
    auto entry = CheckTensor(name, raw, static_cast<uint64_t>(data_bytes));
    if (!entry.ok()) {
      return Annotate(entry.status(), absl::StrCat("tensor '", name, "'"));
    }
    header.entries.push_back(*std::move(entry));
  }
  std::stable_sort(header.entries.begin(), header.entries.end(),
                   [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
                     return std::make_pair(a.begin, a.end) <
                            std::make_pair(b.begin, b.end);
                   });
  DP_RETURN_IF_ERROR(CheckLayout(header.entries, data_bytes));
  header.metadata = std::move(reader.metadata);
  return header;
}

std::vector<size_t> SafetensorsOrder(const std::vector<DType>& dtypes) {
  std::vector<size_t> order(dtypes.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return DTypeBytes(dtypes[a]) > DTypeBytes(dtypes[b]);
  });
  return order;
}

absl::StatusOr<std::string> FormatSafetensorsHeader(
    const std::map<std::string, std::string>& metadata,
    std::vector<SafetensorsEntry>* entries) {
  using Json = nlohmann::ordered_json;
  // Plain objects keep their keys' order only as ordered_json, whose look-up is
  // linear; with the names checked here, the keys are appended without look-up.
  Json::object_t header;
  if (!metadata.empty()) header.emplace_back(kMetadataName, metadata);
  std::set<std::string> names = {kMetadataName};
  int64_t position = 0;
  for (SafetensorsEntry& entry : *entries) {
    if (!names.insert(entry.name).second) {
      return absl::InvalidArgumentError(absl::StrCat(
          "two tensors are named '", entry.name, "', or the name is reserved"));
    }
    entry.begin = position;
    entry.end = position + NumElements(entry.shape) * DTypeBytes(entry.dtype);
    position = entry.end;
    header.emplace_back(entry.name,
                        Json{{"dtype", SafetensorsTypeName(entry.dtype)},
                             {"shape", std::vector<int64_t>(entry.shape.begin(),
                                                            entry.shape.end())},
                             {"data_offsets", {entry.begin, entry.end}}});
  }
  std::string text;
  try {
    text = Json(std::move(header)).dump();
  } catch (const nlohmann::json::exception&) {
    return absl::InvalidArgumentError("a name or metadata is not UTF-8");
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    return absl::InvalidArgumentError(
        absl::StrCat("its header has ", text.size(),
                     " bytes, expected at most ", kMaxHeaderBytes));
  }
  std::string length;
  for (size_t i = 0; i < kSafetensorsLengthBytes; ++i) {
    length.push_back(static_cast<char>(uint64_t{text.size()} >> (8 * i)));
  }
  return length + text;
}

}  // namespace deltapipe
