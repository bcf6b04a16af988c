#include "coordinator/tuning/tuning_paths.h"

#include <cmath>
#include <set>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/span.h"
#include "base/status_macros.h"
#include "base/units.h"
#include "compression/codec_spec.h"

namespace deltapipe {
namespace {

constexpr absl::string_view kBoundaryKnobs[] = {
    "activations", "activation_gradients", "rate_limit"};

/// Spellings, and the path of Tuning that each means.
struct Spelling {
  absl::string_view text;
  absl::string_view path;
};
constexpr Spelling kSpellings[] = {
    {"activations", "activations"},
    {"activation_gradients", "activation_gradients"},
    {"rate_limit", "rate_limit"},
    {"gradients", "gradients"},
    {"saved_activations", "saved_activations"},
    {"straggler_policy", "straggler_policy"},
    {"inject", "inject"},
    {"budget", "budget_bytes_per_step"},
    {"budget_bytes_per_step", "budget_bytes_per_step"},
    {"tuner.mode", "tuner.mode"},
    {"tuner.error_budget", "tuner.error_budget"},
    // As in a job spec.
    {"compression.activations", "activations"},
    {"compression.activation_gradients", "activation_gradients"},
    {"compression.gradients", "gradients"},
    {"compression.saved_activations", "saved_activations"},
    {"stragglers.policy", "straggler_policy"},
    {"stragglers.inject", "inject"},
};

/// Something wrong at a column (from 0) of an edit.
struct Mistake {
  size_t column = 0;
  std::string message;
};

bool IsBoundaryKnob(absl::string_view path) {
  for (const absl::string_view knob : kBoundaryKnobs) {
    if (path == knob) return true;
  }
  return false;
}

/// One edit, taken apart.
struct Edit {
  std::string path;  // of Tuning, without "boundaries[...]."
  int first_boundary = 0;
  int last_boundary = -1;
  std::string value;
  size_t value_column = 0;
};

class EditReader {
 public:
  EditReader(absl::string_view text, int num_boundaries)
      : text_(text), num_boundaries_(num_boundaries) {}

  bool Read(Edit* edit, Mistake* mistake) {
    const size_t equals = text_.find('=');
    if (equals == absl::string_view::npos) {
      return Fail(text_.size(), "expected PATH=VALUE, got no '='", mistake);
    }
    edit->value =
        std::string(absl::StripAsciiWhitespace(text_.substr(equals + 1)));
    edit->value_column = equals + 1;
    if (edit->value.empty()) {
      return Fail(equals + 1, "expected a value after '='", mistake);
    }
    const absl::string_view path =
        absl::StripTrailingAsciiWhitespace(text_.substr(0, equals));
    return path.find('[') == absl::string_view::npos
               ? ReadPlainPath(path, edit, mistake)
               : ReadIndexedPath(path, edit, mistake);
  }

 private:
  static bool Fail(size_t column, std::string message, Mistake* mistake) {
    *mistake = {column, std::move(message)};
    return false;
  }

  bool ReadPlainPath(absl::string_view path, Edit* edit, Mistake* mistake) {
    std::vector<absl::string_view> known;
    for (const Spelling& spelling : kSpellings) {
      if (path == spelling.text) {
        edit->path = std::string(spelling.path);
        edit->last_boundary = num_boundaries_ - 1;
        return CheckBoundaries(0, *edit, mistake);
      }
      known.push_back(spelling.text);
    }
    known.push_back("boundaries");
    const std::string hint = NearestNameHint(path, known);
    return Fail(
        0,
        absl::StrCat(
            "unknown path '", path, "'",
            hint.empty() ? absl::StrCat(" (known: ", Known(), ")") : hint),
        mistake);
  }

  bool ReadIndexedPath(absl::string_view path, Edit* edit, Mistake* mistake) {
    const size_t open = path.find('[');
    const absl::string_view list = path.substr(0, open);
    if (list != "boundaries") {
      constexpr absl::string_view kLists[] = {"boundaries"};
      return Fail(0,
                  absl::StrCat("unknown path '", list, "[...]'",
                               NearestNameHint(list, kLists),
                               ": only boundaries have numbers"),
                  mistake);
    }
    const size_t close = path.find(']', open);
    if (close == absl::string_view::npos) {
      return Fail(path.size(), "expected ']'", mistake);
    }
    const absl::string_view index = path.substr(open + 1, close - open - 1);
    if (!ReadIndex(index, edit)) {
      return Fail(open + 1,
                  absl::StrCat("expected a number, a range such as 0-2, or *, "
                               "got '",
                               index, "'"),
                  mistake);
    }
    if (path.substr(close + 1, 1) != ".") {
      return Fail(close + 1,
                  absl::StrCat("expected '.' and one of ",
                               absl::StrJoin(kBoundaryKnobs, ", ")),
                  mistake);
    }
    const absl::string_view knob = path.substr(close + 2);
    if (!IsBoundaryKnob(knob)) {
      return Fail(
          close + 2,
          absl::StrCat("a boundary has no '", knob, "'",
                       NearestNameHint(knob, kBoundaryKnobs), ": it has ",
                       absl::StrJoin(kBoundaryKnobs, ", ")),
          mistake);
    }
    edit->path = std::string(knob);
    return CheckBoundaries(open + 1, *edit, mistake);
  }

  bool ReadIndex(absl::string_view index, Edit* edit) const {
    if (index == "*") {
      edit->last_boundary = num_boundaries_ - 1;
      return true;
    }
    const std::pair<absl::string_view, absl::string_view> ends =
        absl::StrSplit(index, absl::MaxSplits('-', 1));
    const bool is_range = absl::StrContains(index, '-');
    return absl::SimpleAtoi(ends.first, &edit->first_boundary) &&
           absl::SimpleAtoi(is_range ? ends.second : ends.first,
                            &edit->last_boundary) &&
           edit->first_boundary >= 0 &&
           edit->first_boundary <= edit->last_boundary;
  }

  bool CheckBoundaries(size_t column, const Edit& edit, Mistake* mistake) {
    if (!IsBoundaryKnob(edit.path)) return true;
    if (num_boundaries_ == 0) {
      return Fail(column, "the job has one stage and so no boundaries",
                  mistake);
    }
    if (edit.last_boundary < num_boundaries_) return true;
    return Fail(column,
                absl::StrCat("expected a boundary from 0 to ",
                             num_boundaries_ - 1, ", got ", edit.last_boundary),
                mistake);
  }

  static std::string Known() {
    std::vector<absl::string_view> paths = {"boundaries[N].KNOB"};
    for (const Spelling& spelling : kSpellings) {
      if (!absl::StartsWith(spelling.text, "compression.") &&
          !absl::StartsWith(spelling.text, "stragglers.")) {
        paths.push_back(spelling.text);
      }
    }
    return absl::StrJoin(paths, ", ");
  }

  const absl::string_view text_;
  const int num_boundaries_;
};

/// Writes one edit into `tuning` and names what it touched. Returns what is
/// wrong with the value, or "".
std::string Write(const Edit& edit, v1::Tuning* tuning,
                  std::set<std::string>* mask) {
  mask->insert(IsBoundaryKnob(edit.path) ? "boundaries" : edit.path);
  for (int b = edit.first_boundary; b <= edit.last_boundary; ++b) {
    if (!IsBoundaryKnob(edit.path)) break;
    v1::BoundaryTuning* boundary = tuning->mutable_boundaries(b);
    if (edit.path == "activations") boundary->set_activations(edit.value);
    if (edit.path == "activation_gradients") {
      boundary->set_activation_gradients(edit.value);
    }
    if (edit.path == "rate_limit") boundary->set_rate_limit(edit.value);
  }
  if (edit.path == "gradients") tuning->set_gradients(edit.value);
  if (edit.path == "saved_activations") {
    tuning->set_saved_activations(edit.value);
  }
  if (edit.path == "straggler_policy") tuning->set_straggler_policy(edit.value);
  if (edit.path == "inject") tuning->set_inject(edit.value);
  if (edit.path == "budget_bytes_per_step") {
    const auto bytes = ParseBudget(edit.value);
    if (!bytes.ok()) return std::string(bytes.status().message());
    tuning->set_budget_bytes_per_step(*bytes);
  }
  if (edit.path == "tuner.mode") {
    constexpr absl::string_view kModes[] = {"off", "propose", "apply"};
    v1::Tuner::Mode mode = v1::Tuner::MODE_UNSPECIFIED;
    const bool is_mode =
        absl::AsciiStrToLower(edit.value) == edit.value &&
        edit.value != "mode_unspecified" &&
        v1::Tuner::Mode_Parse(absl::AsciiStrToUpper(edit.value), &mode);
    if (!is_mode) {
      return absl::StrCat("expected off, propose or apply, got '", edit.value,
                          "'", NearestNameHint(edit.value, kModes));
    }
    tuning->mutable_tuner()->set_mode(mode);
  }
  if (edit.path == "tuner.error_budget") {
    double budget = 0;
    if (!absl::SimpleAtod(edit.value, &budget) || !(budget > 0) || budget > 1) {
      return absl::StrCat("expected a relative error above 0, at most 1, got '",
                          edit.value, "'");
    }
    tuning->mutable_tuner()->set_error_budget(budget);
  }
  return "";
}

}  // namespace

absl::StatusOr<int64_t> ParseBudget(absl::string_view text) {
  if (text == "off" || text == "0") return 0;
  absl::string_view size = text;
  absl::ConsumeSuffix(&size, "/step");
  const auto bytes = ParseBytes(size);
  if (bytes.ok() && *bytes > 0 && size != "all") return *bytes;
  return absl::InvalidArgumentError(absl::StrCat(
      "budget '", text,
      "': expected bytes per step, such as 12MB/step or 600kB, or 'off'"));
}

std::string BudgetText(int64_t bytes_per_step) {
  if (bytes_per_step == 0) return "off";
  return absl::StrCat(FormatBytes(static_cast<double>(bytes_per_step)),
                      "/step");
}

absl::StatusOr<v1::UpdateTuningRequest> ParseTuningEdits(
    const std::vector<std::string>& edits, const v1::Tuning& current) {
  v1::UpdateTuningRequest request;
  *request.mutable_tuning() = current;
  std::set<std::string> mask;
  std::vector<std::string> mistakes;
  std::set<std::string> seen;
  for (const std::string& text : edits) {
    Edit edit;
    Mistake mistake;
    if (EditReader(text, current.boundaries_size()).Read(&edit, &mistake)) {
      mistake = {edit.value_column,
                 Write(edit, request.mutable_tuning(), &mask)};
      const std::string target = absl::StrCat(
          edit.path, " ", edit.first_boundary, " ", edit.last_boundary);
      if (!seen.insert(target).second) {
        mistake = {0, "is set by an argument before: name it once"};
      }
    }
    if (mistake.message.empty()) continue;
    constexpr size_t kShown = 100;
    mistakes.push_back(absl::StrCat("'", text.substr(0, kShown), "': column ",
                                    mistake.column + 1, ": ", mistake.message));
  }
  if (edits.empty()) mistakes.push_back("expected at least one PATH=VALUE");
  if (!mistakes.empty()) {
    return absl::InvalidArgumentError(absl::StrJoin(mistakes, "\n"));
  }
  for (const std::string& path : mask) {
    request.mutable_update_mask()->add_paths(path);
  }
  return request;
}

}  // namespace deltapipe
