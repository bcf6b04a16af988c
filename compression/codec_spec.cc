#include "compression/codec_spec.h"

#include <algorithm>
#include <cassert>
#include <cmath>
#include <limits>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr int kMaxTextLength = 1024;
constexpr int kMaxDepth = 8;

absl::Status ErrorAt(absl::string_view source, int column,
                     absl::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat("codec \"", absl::CHexEscape(source), "\": column ", column,
                   ": ", message));
}

bool IsWordCharacter(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' ||
         c == '.' || c == '+' || c == '-';
}

class Parser {
 public:
  explicit Parser(absl::string_view text) : text_(text) {}

  absl::StatusOr<CodecSpec> Parse() {
    DP_ASSIGN_OR_RETURN(CodecSpec spec, ParseTerm(1));
    SkipSpaces();
    if (position_ != text_.size()) return Unexpected("the end of the text");
    return spec;
  }

 private:
  void SkipSpaces() {
    while (position_ < text_.size() &&
           absl::ascii_isspace(static_cast<unsigned char>(text_[position_]))) {
      ++position_;
    }
  }

  int Column() const { return static_cast<int>(position_) + 1; }

  bool Take(char c) {
    SkipSpaces();
    if (position_ == text_.size() || text_[position_] != c) return false;
    ++position_;
    return true;
  }

  absl::Status Unexpected(absl::string_view expected) const {
    const std::string found =
        position_ == text_.size()
            ? "the end of the text"
            : absl::StrCat("'", absl::CHexEscape(text_.substr(position_, 1)),
                           "'");
    return ErrorAt(text_, Column(),
                   absl::StrCat("expected ", expected, ", got ", found));
  }

  absl::StatusOr<std::string> ParseWord(absl::string_view expected) {
    SkipSpaces();
    const size_t begin = position_;
    while (position_ < text_.size() && IsWordCharacter(text_[position_])) {
      ++position_;
    }
    if (position_ == begin) return Unexpected(expected);
    return std::string(text_.substr(begin, position_ - begin));
  }

  absl::StatusOr<CodecSpec> ParseTerm(int depth) {
    SkipSpaces();
    CodecSpec spec;
    spec.column = Column();
    spec.source = std::string(text_);
    DP_ASSIGN_OR_RETURN(
        spec.name, ParseWord(depth == 1 ? "the name of a codec" : "a value"));
    DP_RETURN_IF_ERROR(ParseArguments(depth, &spec));
    return spec;
  }

  absl::Status ParseArguments(int depth, CodecSpec* spec) {
    if (!Take('(')) return absl::OkStatus();
    if (depth == kMaxDepth) {
      return ErrorAt(text_, Column() - 1,
                     absl::StrCat("expected at most ", kMaxDepth,
                                  " levels of parentheses"));
    }
    if (Take(')')) return absl::OkStatus();
    do {
      DP_ASSIGN_OR_RETURN(CodecArgument argument, ParseArgument(depth + 1));
      spec->arguments.push_back(std::move(argument));
    } while (Take(','));
    if (!Take(')')) return Unexpected("',' or ')'");
    return absl::OkStatus();
  }

  absl::StatusOr<CodecArgument> ParseArgument(int depth) {
    CodecArgument argument;
    DP_ASSIGN_OR_RETURN(argument.value, ParseTerm(depth));
    argument.column = argument.value.column;
    if (!argument.value.arguments.empty() || !Take('=')) return argument;
    argument.name = std::move(argument.value.name);
    DP_ASSIGN_OR_RETURN(argument.value, ParseTerm(depth));
    return argument;
  }

  const absl::string_view text_;
  size_t position_ = 0;
};

// Insertions, deletions, substitutions and swaps of neighbours.
int EditDistance(absl::string_view a, absl::string_view b) {
  std::vector<std::vector<int>> distance(a.size() + 1,
                                         std::vector<int>(b.size() + 1));
  for (size_t i = 0; i <= a.size(); ++i) {
    for (size_t j = 0; j <= b.size(); ++j) {
      int& cell = distance[i][j];
      if (i == 0 || j == 0) {
        cell = static_cast<int>(i + j);
        continue;
      }
      cell = std::min({distance[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1),
                       distance[i - 1][j] + 1, distance[i][j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        cell = std::min(cell, distance[i - 2][j - 2] + 1);
      }
    }
  }
  return distance[a.size()][b.size()];
}

std::vector<absl::string_view> Choices(const CodecParameter& parameter) {
  return absl::StrSplit(parameter.choices, '|');
}

absl::Status OutOfRange(const CodecParameter& parameter, const CodecSpec& spec,
                        absl::string_view hint) {
  return CodecSpecError(spec,
                        absl::StrCat(parameter.name, ": expected ",
                                     CodecParameterRange(parameter), ", got ",
                                     CodecSpecText(spec), hint));
}

// The shortest text that reads back as `value`.
std::string NumberText(double value) {
  std::string text;
  for (int digits = 6; digits <= 17; ++digits) {
    text = absl::StrFormat("%.*g", digits, value);
    double again = 0;
    if (absl::SimpleAtod(text, &again) && again == value) break;
  }
  return text;
}

// What is nearest to `value` among the parameter's integers.
int64_t NearestInteger(const CodecParameter& parameter, double value) {
  const double low = static_cast<double>(parameter.min);
  const double high = static_cast<double>(parameter.max);
  const int64_t clamped = value <= low    ? parameter.min
                          : value >= high ? parameter.max
                                          : std::llround(value);
  const int64_t over = clamped % parameter.multiple_of;
  const int64_t up = clamped - over + parameter.multiple_of;
  const int64_t nearest =
      over == 0 || (2 * over >= parameter.multiple_of && up <= parameter.max)
          ? (over == 0 ? clamped : up)
          : clamped - over;
  return std::max(nearest, parameter.min);
}

// What is near `value` in the parameter's open interval: a hundredth of the
// bound, or of the interval, from the bound that it is beyond, in round
// decimals; or that bound, where it is one of the words.
double NearestNumber(const CodecParameter& parameter, double value) {
  const bool is_low = value <= parameter.low;
  const double bound = is_low ? parameter.low : parameter.high;
  for (const absl::string_view word : Choices(parameter)) {
    double number = 0;
    if (absl::SimpleAtod(word, &number) && number == bound) return bound;
  }
  const double scale =
      std::min(parameter.high - parameter.low, std::max(std::fabs(bound), 1.0));
  const double step = std::pow(10, std::floor(std::log10(scale) + 1e-9) - 2);
  double nearest = is_low ? bound + step : bound - step;
  const bool is_read =
      absl::SimpleAtod(absl::StrFormat("%.9g", nearest), &nearest);
  return is_read && nearest > parameter.low && nearest < parameter.high
             ? nearest
             : (parameter.low + parameter.high) / 2;
}

std::string NearestHint(absl::string_view nearest) {
  return absl::StrCat(" (the nearest is ", nearest, ")");
}

absl::StatusOr<int64_t> ReadInteger(const CodecParameter& parameter,
                                    const CodecSpec& spec) {
  int64_t value = 0;
  double number = 0;
  const bool is_integer =
      spec.arguments.empty() && absl::SimpleAtoi(spec.name, &value);
  if (is_integer && value >= parameter.min && value <= parameter.max &&
      value % parameter.multiple_of == 0) {
    return value;
  }
  const bool is_number = spec.arguments.empty() &&
                         absl::SimpleAtod(spec.name, &number) &&
                         !std::isnan(number);
  return OutOfRange(
      parameter, spec,
      is_number ? NearestHint(absl::StrCat(NearestInteger(parameter, number)))
                : "");
}

absl::StatusOr<double> ReadNumber(const CodecParameter& parameter,
                                  const CodecSpec& spec) {
  double value = 0;
  if (!spec.arguments.empty() || !absl::SimpleAtod(spec.name, &value) ||
      std::isnan(value)) {
    return OutOfRange(parameter, spec, "");
  }
  if (!(value > parameter.low && value < parameter.high)) {
    return OutOfRange(parameter, spec,
                      NearestHint(NumberText(NearestNumber(parameter, value))));
  }
  return value;
}

bool IsChoice(const CodecParameter& parameter, const CodecSpec& spec) {
  const std::vector<absl::string_view> choices = Choices(parameter);
  return spec.arguments.empty() && !parameter.choices.empty() &&
         std::find(choices.begin(), choices.end(), spec.name) != choices.end();
}

// By value among words that are all numbers, else by spelling.
std::string NearestChoiceHint(const CodecParameter& parameter,
                              absl::string_view word) {
  const std::vector<absl::string_view> choices = Choices(parameter);
  double value = 0;
  if (!absl::SimpleAtod(word, &value)) return NearestNameHint(word, choices);
  absl::string_view nearest;
  double best = std::numeric_limits<double>::infinity();
  for (const absl::string_view choice : choices) {
    double number = 0;
    if (!absl::SimpleAtod(choice, &number)) {
      return NearestNameHint(word, choices);
    }
    if (nearest.empty() || std::fabs(number - value) < best) {
      best = std::fabs(number - value);
      nearest = choice;
    }
  }
  return NearestHint(nearest);
}

absl::Status CheckChoice(const CodecParameter& parameter,
                         const CodecSpec& spec) {
  if (IsChoice(parameter, spec)) return absl::OkStatus();
  return OutOfRange(parameter, spec, NearestChoiceHint(parameter, spec.name));
}

// The index of the parameter that argument `index` of `spec` is for.
absl::StatusOr<size_t> FindParameter(
    const CodecSpec& spec, size_t index,
    absl::Span<const CodecParameter> parameters) {
  const CodecArgument& argument = spec.arguments[index];
  if (argument.name.empty()) {
    if (index > 0 && !spec.arguments[index - 1].name.empty()) {
      return CodecSpecError(argument.value,
                            "expected a named argument after a named one");
    }
    if (index < parameters.size()) return index;
    return CodecSpecError(argument.value,
                          absl::StrCat(spec.name, ": expected at most ",
                                       parameters.size(), " arguments"));
  }
  std::vector<absl::string_view> names;
  for (size_t i = 0; i < parameters.size(); ++i) {
    if (parameters[i].name == argument.name) return i;
    names.push_back(parameters[i].name);
  }
  const std::string known =
      names.empty()
          ? "has no parameters"
          : absl::StrCat("has the parameters ", absl::StrJoin(names, ", "));
  return ErrorAt(
      spec.source, argument.column,
      absl::StrCat("unknown parameter '", argument.name, "': ", spec.name, " ",
                   known, NearestNameHint(argument.name, names)));
}

}  // namespace

absl::StatusOr<CodecSpec> ParseCodecSpec(absl::string_view text) {
  if (text.size() > kMaxTextLength) {
    return absl::InvalidArgumentError(
        absl::StrCat("codec: expected at most ", kMaxTextLength,
                     " characters, got ", text.size()));
  }
  return Parser(text).Parse();
}

std::string CodecSpecText(const CodecSpec& spec) {
  if (spec.arguments.empty()) return spec.name;
  return absl::StrCat(
      spec.name, "(",
      absl::StrJoin(spec.arguments, ",",
                    [](std::string* out, const CodecArgument& argument) {
                      if (!argument.name.empty()) {
                        absl::StrAppend(out, argument.name, "=");
                      }
                      absl::StrAppend(out, CodecSpecText(argument.value));
                    }),
      ")");
}

absl::Status CodecSpecError(const CodecSpec& at, absl::string_view message) {
  return ErrorAt(at.source.empty() ? CodecSpecText(at) : at.source, at.column,
                 message);
}

std::string NearestNameHint(absl::string_view word,
                            absl::Span<const absl::string_view> known) {
  absl::string_view nearest;
  int best = static_cast<int>(word.size() + 2) / 3 + 1;
  for (const absl::string_view name : known) {
    const int distance = EditDistance(word, name);
    if (distance < best && distance < static_cast<int>(name.size())) {
      best = distance;
      nearest = name;
    }
  }
  return nearest.empty() ? ""
                         : absl::StrCat(" (did you mean '", nearest, "'?)");
}

std::string CodecParameterRange(const CodecParameter& parameter) {
  std::string words;
  if (!parameter.choices.empty()) {
    words = absl::StrCat(
        absl::StrReplaceAll(parameter.choices, {{"|", " or "}}), " or ");
  }
  switch (parameter.kind) {
    case CodecParameter::Kind::kNumber:
      return absl::StrCat(words, "above ", NumberText(parameter.low),
                          ", below ", NumberText(parameter.high));
    case CodecParameter::Kind::kInteger:
      return absl::StrCat(
          words, parameter.min, "..", parameter.max,
          parameter.multiple_of == 1
              ? ""
              : absl::StrCat(" in multiples of ", parameter.multiple_of));
    case CodecParameter::Kind::kChoice:
      return std::string(parameter.choices);
    case CodecParameter::Kind::kCodec:
      return absl::StrCat(words, "a codec without state");
  }
  return "";
}

absl::StatusOr<CodecArguments> CodecArguments::Read(
    const CodecSpec& spec, absl::Span<const CodecParameter> parameters) {
  std::vector<const CodecSpec*> given(parameters.size(), nullptr);
  for (size_t i = 0; i < spec.arguments.size(); ++i) {
    DP_ASSIGN_OR_RETURN(const size_t index, FindParameter(spec, i, parameters));
    if (given[index] != nullptr) {
      return ErrorAt(spec.source, spec.arguments[i].column,
                     absl::StrCat("parameter '", parameters[index].name,
                                  "' is given twice"));
    }
    given[index] = &spec.arguments[i].value;
  }

  CodecArguments arguments;
  arguments.name_ = spec.name;
  for (size_t i = 0; i < parameters.size(); ++i) {
    const CodecParameter& parameter = parameters[i];
    Value value;
    value.parameter = parameter;
    if (given[i] != nullptr) {
      value.spec = *given[i];
    } else if (parameter.default_text.empty()) {
      return CodecSpecError(
          spec, absl::StrCat(spec.name, ": expected ", parameter.name, " (",
                             CodecParameterRange(parameter),
                             "), got no such argument"));
    } else {
      DP_ASSIGN_OR_RETURN(value.spec, ParseCodecSpec(parameter.default_text));
    }
    value.is_word = IsChoice(parameter, value.spec);
    if (parameter.kind == CodecParameter::Kind::kInteger && !value.is_word) {
      DP_ASSIGN_OR_RETURN(value.integer, ReadInteger(parameter, value.spec));
    } else if (parameter.kind == CodecParameter::Kind::kNumber &&
               !value.is_word) {
      DP_ASSIGN_OR_RETURN(value.number, ReadNumber(parameter, value.spec));
    } else if (parameter.kind == CodecParameter::Kind::kChoice) {
      DP_RETURN_IF_ERROR(CheckChoice(parameter, value.spec));
    }
    arguments.values_.push_back(std::move(value));
  }
  return arguments;
}

const CodecArguments::Value& CodecArguments::Find(
    absl::string_view name) const {
  const auto found = std::find_if(
      values_.begin(), values_.end(),
      [name](const Value& value) { return value.parameter.name == name; });
  assert(found != values_.end());
  return *found;
}

int64_t CodecArguments::Integer(absl::string_view name) const {
  return Find(name).integer;
}

double CodecArguments::Number(absl::string_view name) const {
  return Find(name).number;
}

bool CodecArguments::IsWord(absl::string_view name) const {
  return Find(name).is_word;
}

const std::string& CodecArguments::Word(absl::string_view name) const {
  return Find(name).spec.name;
}

const CodecSpec& CodecArguments::Codec(absl::string_view name) const {
  return Find(name).spec;
}

std::string CodecArguments::CanonicalText() const {
  std::vector<std::string> texts;
  for (const Value& value : values_) {
    std::string text = CodecSpecText(value.spec);
    if (value.parameter.kind == CodecParameter::Kind::kInteger &&
        !value.is_word) {
      text = absl::StrCat(value.integer);
    } else if (value.parameter.kind == CodecParameter::Kind::kNumber &&
               !value.is_word) {
      text = NumberText(value.number);
    }
    if (value.parameter.default_text.empty()) {
      texts.push_back(text);
    } else if (text != value.parameter.default_text) {
      texts.push_back(absl::StrCat(value.parameter.name, "=", text));
    }
  }
  return texts.empty()
             ? name_
             : absl::StrCat(name_, "(", absl::StrJoin(texts, ","), ")");
}

}  // namespace deltapipe
