// The text that names a codec, as a tree:
// "delta(int(4,block=64),first=int(8))".
//
// The same text is used in job specs, the admin API, logs and benchmarks. A
// term is a word with optional arguments; an argument is a term, with or
// without a name; a number is a term too. Spaces are allowed between tokens.
//
//   DP_ASSIGN_OR_RETURN(CodecSpec spec, ParseCodecSpec("int(4,block=32)"));
//   DP_ASSIGN_OR_RETURN(CodecArguments arguments,
//                       CodecArguments::Read(spec, parameters));
//   int64_t block = arguments.Integer("block");
//
// All errors are INVALID_ARGUMENT and one sentence with a 1-based column:
//   codec "int(9)": column 5: bits: expected 1..8, got 9 (the nearest is 8)
#ifndef DELTAPIPE_COMPRESSION_CODEC_SPEC_H_
#define DELTAPIPE_COMPRESSION_CODEC_SPEC_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace deltapipe {

struct CodecArgument;

/// A word and its arguments, as written.
struct CodecSpec {
  std::string name;
  std::vector<CodecArgument> arguments;
  /// Where the term begins in `source`, from 1.
  int column = 1;
  /// The whole text that was parsed, for errors; the same in nested terms.
  std::string source;
};

struct CodecArgument {
  /// Empty for a positional argument.
  std::string name;
  CodecSpec value;
  /// Where the argument (its name, if it has one) begins in the source.
  int column = 1;
};

/// Parses `text`: at most 1,024 characters and 8 levels. The error says what
/// was expected and what was found. Knows no codecs: any word is a name.
absl::StatusOr<CodecSpec> ParseCodecSpec(absl::string_view text);

/// The tree as text, without spaces: ParseCodecSpec of it gives an equal tree.
std::string CodecSpecText(const CodecSpec& spec);

/// INVALID_ARGUMENT in the form of this header's top comment.
absl::Status CodecSpecError(const CodecSpec& at, absl::string_view message);

/// " (did you mean 'block'?)" if one of `known` is close to `word`, else "".
std::string NearestNameHint(absl::string_view word,
                            absl::Span<const absl::string_view> known);

/// One parameter of a codec, as lists and errors show it.
struct CodecParameter {
  enum class Kind { kInteger, kNumber, kChoice, kCodec };

  absl::string_view name;
  Kind kind = Kind::kInteger;
  /// Empty if the argument must be given.
  absl::string_view default_text;
  absl::string_view summary;
  /// kInteger: the range, and what a value must be a multiple of.
  int64_t min = 0;
  int64_t max = 0;
  int64_t multiple_of = 1;
  /// kNumber: the open interval, above `low` and below `high`.
  double low = 0;
  double high = 0;
  /// kChoice: the words, separated by '|'. Other kinds: words that may stand
  /// for a value, such as "auto"; empty: none.
  absl::string_view choices;
  /// kInteger, where the default is 0 for "unknown": which extent of a tensor
  /// it is, from the last (1) on; 0: none. BindTensorShape fills it in.
  int extent_from_last = 0;
  /// The kChoice parameters, separated by '|', one of which must differ from
  /// its default for the extent to matter and be filled in; empty: always.
  absl::string_view extent_used_by;
};

/// "1..8", "16..4096 in multiples of 16", "auto or 1..7", "above 0, below 1",
/// "nearest|stochastic", "a codec without state".
std::string CodecParameterRange(const CodecParameter& parameter);

/// The arguments of one term, checked against its parameters. Positional ones
/// fill the parameters in order and precede all named ones. Borrows nothing.
class CodecArguments {
 public:
  /// Errors: an unknown name (with the nearest one), a name given twice, too
  /// many arguments, a missing one without default, a value out of range (with
  /// the nearest one, which of an open interval is a hundredth from its end).
  static absl::StatusOr<CodecArguments> Read(
      const CodecSpec& spec, absl::Span<const CodecParameter> parameters);

  // `name` must be a parameter of the matching kind.
  /// Of a parameter that may be a word: only where IsWord is false.
  int64_t Integer(absl::string_view name) const;
  double Number(absl::string_view name) const;
  bool IsWord(absl::string_view name) const;
  const std::string& Word(absl::string_view name) const;
  const CodecSpec& Codec(absl::string_view name) const;

  /// "int(4,round=stochastic)": what has no default positionally, then what
  /// differs from its default by name. `codec` terms print as written.
  std::string CanonicalText() const;

 private:
  struct Value {
    CodecParameter parameter;
    CodecSpec spec;
    int64_t integer = 0;
    double number = 0;
    bool is_word = false;
  };
  const Value& Find(absl::string_view name) const;

  std::string name_;
  std::vector<Value> values_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CODEC_SPEC_H_
