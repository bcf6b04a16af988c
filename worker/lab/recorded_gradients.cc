#include "worker/lab/recorded_gradients.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/tensor_view.h"

namespace deltapipe {
namespace {

absl::Status CheckIsFloat32(const std::string& path,
                            const SafetensorsFile::Entry& entry) {
  if (entry.dtype == DType::kFloat32) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat(path, ": tensor ", entry.name, ": expected dtype F32, got ",
                   SafetensorsTypeName(entry.dtype)));
}

}  // namespace

absl::StatusOr<RecordedGradients> RecordedGradients::Read(
    const std::string& parameters_path, const std::string& gradients_path,
    int num_ranks) {
  DP_ASSIGN_OR_RETURN(const SafetensorsFile parameters,
                      SafetensorsFile::Read(parameters_path));
  DP_ASSIGN_OR_RETURN(SafetensorsFile gradients,
                      SafetensorsFile::Read(gradients_path));
  RecordedGradients recorded(std::move(gradients), num_ranks);
  DP_RETURN_IF_ERROR(recorded.TakeParameters(parameters, parameters_path));
  DP_RETURN_IF_ERROR(recorded.TakeGradients(gradients_path));
  return recorded;
}

absl::Status RecordedGradients::TakeParameters(const SafetensorsFile& file,
                                               const std::string& path) {
  std::map<std::string, const SafetensorsFile::Entry*> by_name;
  for (const SafetensorsFile::Entry& entry : file.entries()) {
    DP_RETURN_IF_ERROR(CheckIsFloat32(path, entry));
    by_name[entry.name] = &entry;
  }
  if (by_name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected at least one tensor, got none"));
  }
  for (const auto& [name, entry] : by_name) {
    ParameterSegment segment;
    segment.name = name;
    segment.shape = Shape(entry->shape.begin(), entry->shape.end());
    segment.offset = layout_.num_elements;
    segment.num_elements = NumElements(entry->shape);
    segment.has_weight_decay = entry->shape.size() >= 2;
    layout_.num_elements += segment.num_elements;
    layout_.segments.push_back(segment);
    DP_ASSIGN_OR_RETURN(const std::vector<float> values,
                        file.FloatValues(name));
    parameters_.insert(parameters_.end(), values.begin(), values.end());
  }
  return absl::OkStatus();
}

absl::Status RecordedGradients::TakeGradients(const std::string& path) {
  std::map<std::string, const SafetensorsFile::Entry*> by_name;
  for (const SafetensorsFile::Entry& entry : gradients_.entries()) {
    by_name[entry.name] = &entry;
  }
  for (const ParameterSegment& segment : layout_.segments) {
    const auto it = by_name.find(segment.name);
    if (it == by_name.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(path, ": tensor ", segment.name,
                       " is missing, which the parameters have"));
    }
    const SafetensorsFile::Entry& entry = *it->second;
    DP_RETURN_IF_ERROR(CheckIsFloat32(path, entry));
    const bool is_first = recorded_.empty();
    Shape expected = {
        is_first && !entry.shape.empty() ? entry.shape[0] : num_steps_,
        num_ranks_};
    expected.insert(expected.end(), segment.shape.begin(), segment.shape.end());
    const Shape got(entry.shape.begin(), entry.shape.end());
    if (got != expected) {
      const std::string steps = is_first ? "steps" : absl::StrCat(num_steps_);
      return absl::InvalidArgumentError(absl::StrCat(
          path, ": tensor ", segment.name, ": expected shape ", steps, "x",
          ShapeString(absl::MakeConstSpan(expected).subspan(1)), " (steps x ",
          num_ranks_, " ranks x the parameter's shape), got ",
          ShapeString(got)));
    }
    num_steps_ = got[0];
    DP_ASSIGN_OR_RETURN(const TensorView view, gradients_.Tensor(segment.name));
    recorded_.push_back(view.Values<float>());
    by_name.erase(it);
  }
  if (!by_name.empty()) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": tensor ", by_name.begin()->first,
                     " is not among the parameters"));
  }
  if (num_steps_ < 1) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": expected at least 1 step, got 0"));
  }
  return absl::OkStatus();
}

void RecordedGradients::Copy(int64_t step, int rank,
                             absl::Span<float> gradient) const {
  for (size_t l = 0; l < layout_.segments.size(); ++l) {
    const ParameterSegment& segment = layout_.segments[l];
    const int64_t at = (step * num_ranks_ + rank) * segment.num_elements;
    std::copy_n(recorded_[l].begin() + at, segment.num_elements,
                gradient.begin() + segment.offset);
  }
}

}  // namespace deltapipe
