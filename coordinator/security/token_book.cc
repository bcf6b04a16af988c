#include "coordinator/security/token_book.h"

#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "base/status_macros.h"
#include "base/tls/certificate.h"
#include "base/tls/private_file.h"
#include "base/tls/secret.h"
#include "coordinator/security/folder_lock.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using Json = nlohmann::json;

constexpr char kUserPrefix[] = "dpt";
constexpr char kJoinPrefix[] = "dpj";
constexpr int kIdBytes = 4;
constexpr int kSecretBytes = 32;
constexpr size_t kMaxName = 100;
// For which tokens stay listed after their end.
constexpr int64_t kKeepMillis = int64_t{30} * 24 * 3'600'000;

std::string TextOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_string() ? found->get<std::string>()
                                                     : "";
}

int64_t NumberOf(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found != object.end() && found->is_number_integer()
             ? found->get<int64_t>()
             : 0;
}

Json ToJson(const TokenRecord& record) {
  Json object;
  object["id"] = record.id;
  object["name"] = record.name;
  object["scope"] = ScopeName(record.scope);
  object["sha256"] = record.hash;
  object["create_millis"] = record.create_millis;
  object["expire_millis"] = record.expire_millis;
  object["revoked"] = record.is_revoked;
  if (record.scope == TokenScope::kJoin) {
    object["uses_left"] = record.uses_left;
    object["used_by"] = record.used_by;
  }
  return object;
}

absl::StatusOr<TokenRecord> FromJson(const Json& object) {
  TokenRecord record;
  record.id = TextOf(object, "id");
  record.name = TextOf(object, "name");
  DP_ASSIGN_OR_RETURN(record.scope, ParseScope(TextOf(object, "scope")));
  record.hash = TextOf(object, "sha256");
  record.create_millis = NumberOf(object, "create_millis");
  record.expire_millis = NumberOf(object, "expire_millis");
  const auto revoked = object.find("revoked");
  // What cannot be read must not admit anybody.
  record.is_revoked =
      revoked == object.end() || !revoked->is_boolean() || revoked->get<bool>();
  record.uses_left = static_cast<int>(NumberOf(object, "uses_left"));
  const auto used_by = object.find("used_by");
  if (used_by != object.end() && used_by->is_array()) {
    for (const Json& key : *used_by) {
      if (key.is_string()) record.used_by.push_back(key.get<std::string>());
    }
  }
  return record;
}

absl::Status CheckWanted(const NewToken& wanted) {
  const bool is_printable =
      std::all_of(wanted.name.begin(), wanted.name.end(),
                  [](char c) { return absl::ascii_isprint(c); });
  if (wanted.name.empty() || wanted.name.size() > kMaxName || !is_printable) {
    return absl::InvalidArgumentError(absl::StrCat(
        "bad name of a token: expected 1 to ", kMaxName,
        " printable ASCII characters, got ", wanted.name.size(), " bytes"));
  }
  if (wanted.lifetime.count() < 1 ||
      (wanted.scope == TokenScope::kJoin && wanted.uses < 1)) {
    return absl::InvalidArgumentError(
        "a token needs a lifetime, and one to join with needs uses: expected "
        "at least 1 of each");
  }
  return absl::OkStatus();
}

// Changes whenever the file is replaced.
std::string FileVersion(const std::string& path) {
  struct stat status = {};
  if (stat(path.c_str(), &status) != 0) return "";
  return absl::StrCat(status.st_ino, ".", status.st_size, ".",
                      status.st_mtim.tv_sec, ".", status.st_mtim.tv_nsec);
}

}  // namespace

const char* ScopeName(TokenScope scope) {
  switch (scope) {
    case TokenScope::kViewer:
      return "viewer";
    case TokenScope::kOperator:
      return "operator";
    case TokenScope::kAdmin:
      return "admin";
    case TokenScope::kJoin:
      break;
  }
  return "join";
}

absl::StatusOr<TokenScope> ParseScope(const std::string& name) {
  for (const TokenScope scope : {TokenScope::kViewer, TokenScope::kOperator,
                                 TokenScope::kAdmin, TokenScope::kJoin}) {
    if (name == ScopeName(scope)) return scope;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "bad scope: expected viewer, operator, admin or join, got '", name, "'"));
}

absl::StatusOr<std::unique_ptr<TokenBook>> TokenBook::Open(
    const std::string& folder, Clock* clock) {
  std::unique_ptr<TokenBook> book(new TokenBook(folder, clock));
  DP_RETURN_IF_ERROR(book->Load().status());
  return book;
}

absl::StatusOr<std::vector<TokenRecord>> TokenBook::Load() const {
  const auto text = ReadPrivateFile(path());
  if (absl::IsNotFound(text.status())) return std::vector<TokenRecord>();
  if (!text.ok()) return text.status();
  const Json parsed = Json::parse(*text, nullptr, /*allow_exceptions=*/false);
  const auto error = [this](const std::string& what) {
    return absl::DataLossError(
        absl::StrCat("cannot read the tokens in ", path(), ": ", what,
                     "; restore the file from a backup, or remove it and make "
                     "new tokens"));
  };
  const auto tokens = parsed.is_object() ? parsed.find("tokens") : parsed.end();
  if (tokens == parsed.end() || !tokens->is_array()) {
    return error("expected an object with an array \"tokens\"");
  }
  std::vector<TokenRecord> records;
  for (const Json& object : *tokens) {
    if (!object.is_object()) return error("a token is not an object");
    auto record = FromJson(object);
    if (!record.ok()) return error(std::string(record.status().message()));
    records.push_back(*std::move(record));
  }
  return records;
}

absl::Status TokenBook::Store(const std::vector<TokenRecord>& records) const {
  Json tokens = Json::array();
  const int64_t oldest = clock_->WallMillis() - kKeepMillis;
  for (const TokenRecord& record : records) {
    if (record.expire_millis > oldest) tokens.push_back(ToJson(record));
  }
  Json object;
  object["version"] = 1;
  object["tokens"] = std::move(tokens);
  return WritePrivateFile(
      path(), object.dump(1, ' ', true, Json::error_handler_t::replace) + "\n");
}

absl::StatusOr<IssuedToken> TokenBook::Create(const NewToken& wanted) {
  DP_RETURN_IF_ERROR(CheckWanted(wanted));
  DP_ASSIGN_OR_RETURN(const std::string secret, RandomHex(kSecretBytes));
  IssuedToken issued;
  DP_ASSIGN_OR_RETURN(issued.record.id, RandomHex(kIdBytes));
  issued.secret = absl::StrCat(
      wanted.scope == TokenScope::kJoin ? kJoinPrefix : kUserPrefix, "_",
      issued.record.id, "_", secret);
  issued.record.name = wanted.name;
  issued.record.scope = wanted.scope;
  issued.record.hash = Sha256Hex(issued.secret);
  issued.record.create_millis = clock_->WallMillis();
  issued.record.expire_millis =
      issued.record.create_millis + wanted.lifetime.count();
  if (wanted.scope == TokenScope::kJoin) issued.record.uses_left = wanted.uses;

  DP_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  DP_ASSIGN_OR_RETURN(std::vector<TokenRecord> records, Load());
  records.push_back(issued.record);
  DP_RETURN_IF_ERROR(Store(records));
  return issued;
}

absl::StatusOr<TokenRecord*> TokenBook::Find(
    const std::string& secret, std::vector<TokenRecord>* records) const {
  const std::vector<std::string> parts = absl::StrSplit(secret, '_');
  const absl::Status unknown = absl::UnauthenticatedError(
      "the token is unknown here: check that it is whole and of this "
      "coordinator, or ask its admin for a new one");
  if (parts.size() != 3) return unknown;
  const std::string hash = Sha256Hex(secret);
  TokenRecord* found = nullptr;
  for (TokenRecord& record : *records) {
    if (record.id == parts[1] && EqualInConstantTime(record.hash, hash)) {
      found = &record;
    }
  }
  if (found == nullptr) return unknown;
  const std::string name =
      absl::StrCat("the token ", found->id, " (", found->name, ", ",
                   ScopeName(found->scope), ")");
  if (found->is_revoked) {
    return absl::UnauthenticatedError(
        absl::StrCat(name, " was revoked: ask an admin for a new one"));
  }
  if (clock_->WallMillis() >= found->expire_millis) {
    return absl::UnauthenticatedError(
        absl::StrCat(name, " expired at ", UtcText(found->expire_millis),
                     ": ask an admin for a new one"));
  }
  return found;
}

absl::StatusOr<TokenRecord> TokenBook::Check(const std::string& secret) {
  const std::string version = FileVersion(path());
  std::vector<TokenRecord> records;
  {
    MutexLock lock(&mutex_);
    if (!version.empty() && version == cached_version_) records = cached_;
  }
  if (records.empty()) {
    DP_ASSIGN_OR_RETURN(records, Load());
    MutexLock lock(&mutex_);
    cached_ = records;
    cached_version_ = version;
  }
  DP_ASSIGN_OR_RETURN(TokenRecord* const found, Find(secret, &records));
  if (found->scope == TokenScope::kJoin) {
    return absl::UnauthenticatedError(
        absl::StrCat("the token ", found->id,
                     " is for workers to join with: ask an admin for one with "
                     "the scope viewer, operator or admin"));
  }
  return std::move(*found);
}

absl::StatusOr<TokenRecord> TokenBook::Redeem(const std::string& secret,
                                              const std::string& key_hash) {
  DP_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  DP_ASSIGN_OR_RETURN(std::vector<TokenRecord> records, Load());
  DP_ASSIGN_OR_RETURN(TokenRecord* const found, Find(secret, &records));
  if (found->scope != TokenScope::kJoin) {
    return absl::PermissionDeniedError(absl::StrCat(
        "the token ", found->id,
        " is a user's: workers join with one that "
        "`deltapipe coordinator` or `deltapipe token create --scope join` "
        "printed"));
  }
  const auto& used_by = found->used_by;
  if (std::find(used_by.begin(), used_by.end(), key_hash) == used_by.end()) {
    if (found->uses_left < 1) {
      return absl::PermissionDeniedError(absl::StrCat(
          "the token ", found->id, " (", found->name,
          ") is used up: make another with `deltapipe token create --scope "
          "join`"));
    }
    --found->uses_left;
    found->used_by.push_back(key_hash);
    DP_RETURN_IF_ERROR(Store(records));
  }
  return *found;
}

absl::Status TokenBook::Revoke(const std::string& id) {
  DP_ASSIGN_OR_RETURN(const FolderLock lock, FolderLock::Take(folder_));
  DP_ASSIGN_OR_RETURN(std::vector<TokenRecord> records, Load());
  const auto found = std::find_if(
      records.begin(), records.end(),
      [&id](const TokenRecord& record) { return record.id == id; });
  if (found == records.end()) {
    return absl::NotFoundError(absl::StrCat("no token has the id '", id,
                                            "': see `deltapipe token ls`"));
  }
  found->is_revoked = true;
  return Store(records);
}

absl::StatusOr<std::vector<TokenRecord>> TokenBook::List() { return Load(); }

}  // namespace deltapipe
