// The text of a manifest and the names of its folders; manifest_folder.cc has
// what lies on the disk.
#include "base/checkpoint/manifest.h"

#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/string_view.h"
#include "base/checkpoint/checkpoint_folder.h"
#include "base/checksum.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

constexpr char kFormat[] = "deltapipe.checkpoint";
constexpr uint64_t kVersion = 1;
constexpr size_t kMaxFiles = 4096;
constexpr size_t kMaxNameBytes = 200;
constexpr int64_t kMaxShape = 65536;  // stages, replicas
constexpr char kFolderPrefix[] = "step-";
constexpr char kDigestPrefix[] = "\"digest\": \"";
constexpr char kDigestSuffix[] = "\"\n}\n";
constexpr size_t kDigestDigits = 16;

absl::Span<const uint8_t> BytesOf(absl::string_view text) {
  return {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
}

/// Lower case only, so that one digest has one text.
bool ParseDigest(absl::string_view text, uint64_t* digest) {
  return text.size() == kDigestDigits &&
         text.find_first_not_of("0123456789abcdef") ==
             absl::string_view::npos &&
         absl::SimpleHexAtoi(text, digest);
}

/// Whether the last line of `text` is the digest of all before it.
absl::Status CheckDigest(absl::string_view text) {
  const size_t tail_bytes =
      sizeof(kDigestPrefix) + kDigestDigits + sizeof(kDigestSuffix) - 2;
  const absl::string_view tail =
      text.size() < tail_bytes ? "" : text.substr(text.size() - tail_bytes);
  uint64_t expected = 0;
  if (!absl::StartsWith(tail, kDigestPrefix) ||
      !absl::EndsWith(tail, kDigestSuffix) ||
      !ParseDigest(tail.substr(sizeof(kDigestPrefix) - 1, kDigestDigits),
                   &expected)) {
    return absl::DataLossError(absl::StrCat(
        "its ", text.size(),
        " bytes do not end with a digest line: it is torn, or no manifest"));
  }
  const absl::string_view body = text.substr(0, text.size() - tail_bytes);
  const uint64_t digest = Checksum(BytesOf(body));
  if (digest != expected) {
    return absl::DataLossError(absl::StrFormat(
        "expected the digest %016x, got %016x: it was changed or damaged",
        expected, digest));
  }
  return absl::OkStatus();
}

/// Reads the JSON event by event: accepts exactly the members of a manifest,
/// each once, nothing deeper.
class ManifestReader : public nlohmann::json_sax<nlohmann::json> {
 public:
  CheckpointManifest manifest;
  std::string error;

  /// What is missing at the end, or wrong with the whole; "" if nothing.
  std::string Problem() const {
    for (const char* name :
         {"format", "version", "job_id", "generation", "step", "num_stages",
          "num_replicas", "time_millis", "samples_applied", "samples_dropped",
          "spec", "tuning", "files", "digest"}) {
      if (members_.count(name) == 0) {
        return absl::StrCat("the member '", name, "' is missing");
      }
    }
    return "";
  }

  bool null() override { return Unexpected("null"); }
  bool boolean(bool) override { return Unexpected("a boolean"); }
  bool binary(binary_t&) override { return Unexpected("binary data"); }
  bool number_float(number_float_t, const string_t& text) override {
    return Unexpected(absl::StrCat("the number ", text));
  }
  bool number_integer(number_integer_t value) override {
    return Unexpected(absl::StrCat("the negative number ", value));
  }

  bool number_unsigned(number_unsigned_t value) override {
    if (is_in_files_ && depth_ == 1) return Unexpected("a number");
    if (depth_ == 2) {
      return member_ == "bytes"
                 ? Store(value, INT64_MAX, &manifest.files.back().bytes)
                 : Unexpected("a number");
    }
    if (member_ == "version") {
      return value == kVersion ||
             Fail(absl::StrCat("it has version ", value, ", expected ",
                               kVersion,
                               ": read it with the deltapipe that wrote it"));
    }
    if (member_ == "generation") {
      manifest.generation = value;
      return true;
    }
    if (member_ == "num_stages" || member_ == "num_replicas") {
      int64_t count = 0;
      if (value == 0) return Unexpected("0");
      if (!Store(value, kMaxShape, &count)) return false;
      (member_ == "num_stages" ? manifest.num_stages : manifest.num_replicas) =
          static_cast<int>(count);
      return true;
    }
    const auto found = numbers_.find(member_);
    return found == numbers_.end() ? Unexpected("a number")
                                   : Store(value, INT64_MAX, found->second);
  }

  bool string(string_t& value) override {
    if (is_in_files_ && depth_ == 1) return Unexpected("a text");
    if (depth_ == 2 && member_ == "name") {
      manifest.files.back().name = value;
      return CheckpointFileNameIsSafe(value) ||
             Fail(absl::StrCat("'", value.substr(0, kMaxNameBytes),
                               "' is no name of a checkpoint's file"));
    }
    if (depth_ == 2) {
      return (member_ == "digest" &&
              ParseDigest(value, &manifest.files.back().digest)) ||
             Unexpected("a text");
    }
    if (member_ == "format") return value == kFormat || Unexpected("a text");
    if (member_ == "digest") return true;
    const auto found = texts_.find(member_);
    if (found == texts_.end()) return Unexpected("a text");
    *found->second = std::move(value);
    return true;
  }

  bool start_object(std::size_t) override {
    if (depth_ == 0 || (depth_ == 1 && is_in_files_)) {
      if (depth_++ == 0) return true;
      if (manifest.files.size() >= kMaxFiles) {
        return Fail(absl::StrCat("more than ", kMaxFiles, " files"));
      }
      manifest.files.emplace_back();
      fields_.clear();
      return true;
    }
    return Unexpected("an object");
  }

  bool end_object() override {
    if (depth_-- == 1) return true;
    const std::string& name = manifest.files.back().name;
    if (fields_.size() != 3) {
      return Fail("a file has not exactly name, bytes and digest");
    }
    return names_.insert(name).second ||
           Fail(absl::StrCat("the file '", name, "' occurs twice"));
  }

  bool key(string_t& name) override {
    member_ = name;
    std::set<std::string>& seen = depth_ == 1 ? members_ : fields_;
    if (!seen.insert(name).second) {
      return Fail(absl::StrCat("the member '", name, "' occurs twice"));
    }
    // A later version may say everything else in another way.
    if (depth_ == 1 && members_.size() <= 2 && name != "format" &&
        name != "version") {
      return Fail("expected it to begin with 'format' and 'version'");
    }
    return true;
  }

  bool start_array(std::size_t) override {
    if (depth_ != 1 || is_in_files_ || member_ != "files") {
      return Unexpected("an array");
    }
    is_in_files_ = true;
    return true;
  }

  bool end_array() override {
    is_in_files_ = false;
    return true;
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception&) override {
    return Fail(absl::StrCat("it is not JSON at byte ", position));
  }

 private:
  bool Store(uint64_t value, int64_t limit, int64_t* out) {
    if (value > static_cast<uint64_t>(limit)) {
      return Fail(absl::StrCat("'", member_, "' is ", value,
                               ", expected at most ", limit));
    }
    *out = static_cast<int64_t>(value);
    return true;
  }

  bool Unexpected(const std::string& what) {
    return Fail(absl::StrCat("unexpected ", what, " in '",
                             member_.substr(0, kMaxNameBytes), "'"));
  }

  bool Fail(const std::string& why) {
    error = why;
    return false;
  }

  const std::map<std::string, std::string*> texts_ = {
      {"job_id", &manifest.job_id},
      {"spec", &manifest.spec_json},
      {"tuning", &manifest.tuning_json}};
  const std::map<std::string, int64_t*> numbers_ = {
      {"step", &manifest.step},
      {"time_millis", &manifest.time_millis},
      {"samples_applied", &manifest.samples_applied},
      {"samples_dropped", &manifest.samples_dropped}};
  int depth_ = 0;
  bool is_in_files_ = false;
  std::string member_;
  std::set<std::string> members_;
  std::set<std::string> fields_;  // of the file being read
  std::set<std::string> names_;
};

}  // namespace

bool CheckpointFileNameIsSafe(absl::string_view name) {
  constexpr char kCharacters[] =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  return !name.empty() && name.size() <= kMaxNameBytes && name[0] != '.' &&
         name[0] != '-' && name != kManifestName &&
         !absl::StrContains(name, "..") &&
         name.find_first_not_of(kCharacters) == absl::string_view::npos;
}

std::string CheckpointFolderName(int64_t step, uint64_t generation) {
  return absl::StrFormat("%s%09d-g%u", kFolderPrefix, step, generation);
}

absl::Status ParseCheckpointFolderName(const std::string& name, int64_t* step,
                                       uint64_t* generation) {
  const size_t dash = name.find("-g");
  const size_t prefix_bytes = sizeof(kFolderPrefix) - 1;
  // Written again it must be the same: no sign, space or other number of
  // zeros gives a second name to a step.
  if (!absl::StartsWith(name, kFolderPrefix) || dash == std::string::npos ||
      dash < prefix_bytes ||
      !absl::SimpleAtoi(name.substr(prefix_bytes, dash - prefix_bytes), step) ||
      *step < 0 || !absl::SimpleAtoi(name.substr(dash + 2), generation) ||
      CheckpointFolderName(*step, *generation) != name) {
    return absl::InvalidArgumentError(
        absl::StrCat("'", name, "' is no name of a checkpoint, such as '",
                     CheckpointFolderName(50, 7), "'"));
  }
  return absl::OkStatus();
}

std::string FormatManifest(const CheckpointManifest& manifest) {
  nlohmann::ordered_json json;
  json["format"] = kFormat;
  json["version"] = kVersion;
  json["job_id"] = manifest.job_id;
  json["generation"] = manifest.generation;
  json["step"] = manifest.step;
  json["num_stages"] = manifest.num_stages;
  json["num_replicas"] = manifest.num_replicas;
  json["time_millis"] = manifest.time_millis;
  json["samples_applied"] = manifest.samples_applied;
  json["samples_dropped"] = manifest.samples_dropped;
  json["spec"] = manifest.spec_json;
  json["tuning"] = manifest.tuning_json;
  json["files"] = nlohmann::ordered_json::array();
  for (const ManifestFile& file : manifest.files) {
    json["files"].push_back(
        {{"name", file.name},
         {"bytes", file.bytes},
         {"digest", absl::StrFormat("%016x", file.digest)}});
  }
  std::string text =
      json.dump(1, ' ', false, nlohmann::json::error_handler_t::replace);
  text.resize(text.size() - 2);  // "\n}"
  text += ",\n";
  return absl::StrCat(text, kDigestPrefix,
                      absl::StrFormat("%016x", Checksum(BytesOf(text))),
                      kDigestSuffix);
}

absl::StatusOr<CheckpointManifest> ParseManifest(const std::string& text,
                                                 const std::string& origin) {
  const auto refuse = [&origin](absl::string_view why) {
    return absl::DataLossError(
        absl::StrCat(origin, " is no valid manifest: ", why));
  };
  if (static_cast<int64_t>(text.size()) > kMaxManifestBytes) {
    return refuse(absl::StrCat("it has ", text.size(),
                               " bytes, expected at most ", kMaxManifestBytes));
  }
  if (const absl::Status status = CheckDigest(text); !status.ok()) {
    return refuse(status.message());
  }
  ManifestReader reader;
  if (!nlohmann::json::sax_parse(text, &reader)) return refuse(reader.error);
  if (const std::string problem = reader.Problem(); !problem.empty()) {
    return refuse(problem);
  }
  return std::move(reader.manifest);
}

}  // namespace deltapipe
