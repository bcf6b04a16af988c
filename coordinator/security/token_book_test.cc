#include "coordinator/security/token_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <chrono>
#include <memory>
#include <string>

#include "base/clock.h"
#include "base/file.h"

namespace deltapipe {
namespace {

using std::chrono::hours;
using ::testing::HasSubstr;
using ::testing::Not;

class TokenBookTest : public ::testing::Test {
 protected:
  TokenBookTest() {
    folder_ = ::testing::TempDir() + "/tokens-XXXXXX";
    EXPECT_NE(mkdtemp(&folder_[0]), nullptr);
    book_ = TokenBook::Open(folder_, &clock_).value();
  }
  IssuedToken Create(TokenScope scope, int uses = 1) {
    NewToken wanted;
    wanted.name = "alice";
    wanted.scope = scope;
    wanted.lifetime = hours(1);
    wanted.uses = uses;
    return book_->Create(wanted).value();
  }

  FakeClock clock_;
  std::string folder_;
  std::unique_ptr<TokenBook> book_;
};

TEST_F(TokenBookTest, ATokenIsKnownAndItsSecretIsNotKept) {
  const IssuedToken issued = Create(TokenScope::kOperator);

  const auto record = book_->Check(issued.secret);

  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_EQ(record->name, "alice");
  EXPECT_EQ(record->scope, TokenScope::kOperator);
  const std::string file = ReadFile(folder_ + "/tokens.json").value();
  EXPECT_THAT(file, Not(HasSubstr(issued.secret.substr(13))));
  EXPECT_THAT(file, HasSubstr(issued.record.hash));
  struct stat status = {};
  ASSERT_EQ(stat((folder_ + "/tokens.json").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
}

TEST_F(TokenBookTest, ExpiredTokensAreRefusedWithTheTime) {
  const IssuedToken issued = Create(TokenScope::kViewer);
  clock_.Advance(hours(1));

  const auto record = book_->Check(issued.secret);

  EXPECT_EQ(record.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(record.status().message()),
              HasSubstr("expired at 1970-01-01 01:00:00 UTC"));
}

TEST_F(TokenBookTest, WhatAnotherProcessRevokesIsRefusedAtTheNextCall) {
  const IssuedToken issued = Create(TokenScope::kAdmin);
  ASSERT_TRUE(book_->Check(issued.secret).ok());
  auto other = TokenBook::Open(folder_, &clock_).value();

  ASSERT_TRUE(other->Revoke(issued.record.id).ok());

  const auto record = book_->Check(issued.secret);
  EXPECT_EQ(record.status().code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(record.status().message()), HasSubstr("revoked"));
}

TEST_F(TokenBookTest, UnknownAndDamagedTokensAreRefused) {
  const std::string secret = Create(TokenScope::kViewer).secret;
  std::string other_end = secret;
  other_end.back() = other_end.back() == '0' ? '1' : '0';

  for (const std::string& token :
       {std::string(), std::string("dpt"), std::string("dpt__"), other_end,
        secret + "0", secret.substr(4)}) {
    EXPECT_EQ(book_->Check(token).status().code(),
              absl::StatusCode::kUnauthenticated)
        << token.size();
  }
}

TEST_F(TokenBookTest, AReplayedJoinTokenIsRefused) {
  const IssuedToken issued = Create(TokenScope::kJoin, 1);
  ASSERT_TRUE(book_->Redeem(issued.secret, "sha256:one").ok());

  const auto replayed = book_->Redeem(issued.secret, "sha256:two");

  EXPECT_EQ(replayed.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(replayed.status().message()), HasSubstr("used up"));
}

TEST_F(TokenBookTest, AWorkerThatAsksAgainIsTheSameUse) {
  const IssuedToken issued = Create(TokenScope::kJoin, 2);

  EXPECT_TRUE(book_->Redeem(issued.secret, "sha256:one").ok());
  EXPECT_TRUE(book_->Redeem(issued.secret, "sha256:one").ok());
  EXPECT_TRUE(book_->Redeem(issued.secret, "sha256:two").ok());

  EXPECT_FALSE(book_->Redeem(issued.secret, "sha256:three").ok());
}

TEST_F(TokenBookTest, UsesSurviveARestart) {
  const IssuedToken issued = Create(TokenScope::kJoin, 1);
  ASSERT_TRUE(book_->Redeem(issued.secret, "sha256:one").ok());

  book_ = TokenBook::Open(folder_, &clock_).value();

  EXPECT_EQ(book_->Redeem(issued.secret, "sha256:two").status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(TokenBookTest, AnExpiredJoinTokenIsRefused) {
  const IssuedToken issued = Create(TokenScope::kJoin, 5);
  clock_.Advance(hours(2));

  EXPECT_EQ(book_->Redeem(issued.secret, "sha256:one").status().code(),
            absl::StatusCode::kUnauthenticated);
}

TEST_F(TokenBookTest, TokensOfUsersAndToJoinWithAreNotMixedUp) {
  const std::string join = Create(TokenScope::kJoin).secret;
  const std::string admin = Create(TokenScope::kAdmin).secret;

  EXPECT_EQ(book_->Check(join).status().code(),
            absl::StatusCode::kUnauthenticated);
  EXPECT_EQ(book_->Redeem(admin, "sha256:one").status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(TokenBookTest, BadWishesAreRefused) {
  for (const char* name : {"", "two\nlines", "\x1b[31m"}) {
    NewToken wanted;
    wanted.name = name;
    EXPECT_EQ(book_->Create(wanted).status().code(),
              absl::StatusCode::kInvalidArgument);
  }
  NewToken brief;
  brief.name = "x";
  brief.lifetime = hours(0);
  EXPECT_EQ(book_->Create(brief).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(book_->Revoke("00000000").code(), absl::StatusCode::kNotFound);
}

TEST_F(TokenBookTest, ADamagedFileAdmitsNobody) {
  const IssuedToken issued = Create(TokenScope::kAdmin);
  for (const char* text :
       {"{", "[]", "{\"tokens\":[1]}", "{\"tokens\":[{\"scope\":\"root\"}]}"}) {
    ASSERT_TRUE(WriteFileAtomically(folder_ + "/tokens.json", text).ok());
    ASSERT_EQ(chmod((folder_ + "/tokens.json").c_str(), 0600), 0);

    EXPECT_EQ(book_->Check(issued.secret).status().code(),
              absl::StatusCode::kDataLoss)
        << text;
  }
}

}  // namespace
}  // namespace deltapipe
