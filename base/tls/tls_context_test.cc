#include "base/tls/tls_context.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "base/tls/testing_identities.h"

namespace deltapipe {
namespace {

using std::chrono::hours;
using ::testing::HasSubstr;

// Two sessions joined in memory.
struct Pair {
  Pair(const TlsContext& client_context, const TlsContext& server_context)
      : client(client_context.NewSession(TlsRole::kConnect)),
        server(server_context.NewSession(TlsRole::kAccept)) {
    BIO* near = nullptr;
    BIO* far = nullptr;
    BIO_new_bio_pair(&near, 0, &far, 0);
    SSL_set_bio(client.get(), near, near);
    SSL_set_bio(server.get(), far, far);
    for (int i = 0; i < 10; ++i) {
      client_result = SSL_do_handshake(client.get());
      if (client_result != 1 && client_error.empty() &&
          SSL_get_error(client.get(), client_result) == SSL_ERROR_SSL) {
        client_error = HandshakeFailure(client.get());
      }
      server_result = SSL_do_handshake(server.get());
      if (server_result != 1 && server_error.empty() &&
          SSL_get_error(server.get(), server_result) == SSL_ERROR_SSL) {
        server_error = HandshakeFailure(server.get());
      }
    }
  }
  OpensslPtr<SSL> client, server;
  int client_result = 0, server_result = 0;
  std::string client_error, server_error;
};

class TlsContextTest : public ::testing::Test {
 protected:
  FakeClock clock_;  // at 1970, where no other clock is
  TestAuthority authority_{&clock_};
};

TEST_F(TlsContextTest, BothSidesKnowWhomTheyTalkTo) {
  const auto one = authority_.MakeContext("worker-1");
  const auto two = authority_.MakeContext("worker-2");

  const Pair pair(*one, *two);

  ASSERT_EQ(pair.client_result, 1) << pair.client_error;
  ASSERT_EQ(pair.server_result, 1) << pair.server_error;
  EXPECT_EQ(std::string(SSL_get_version(pair.client.get())), "TLSv1.3");
  EXPECT_EQ(PeerIdentity(pair.client.get(), "c1").value().worker, "worker-2");
  EXPECT_EQ(PeerIdentity(pair.server.get(), "c1").value().worker, "worker-1");
  EXPECT_EQ(PeerIdentity(pair.server.get(), "c2").status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST_F(TlsContextTest, AnExpiredCertificateIsRefused) {
  const auto brief = authority_.MakeContext("worker-1", hours(1));
  const auto lasting = authority_.MakeContext("worker-2", hours(9));
  clock_.Advance(hours(2));

  const Pair pair(*brief, *lasting);

  EXPECT_NE(pair.server_result, 1);
  EXPECT_THAT(pair.server_error, HasSubstr("expired"));
}

TEST_F(TlsContextTest, AnotherAuthoritysCertificateIsRefusedByBothSides) {
  TestAuthority other(&clock_);
  const auto ours = authority_.MakeContext("worker-1");
  const auto theirs = other.MakeContext("worker-2");

  EXPECT_NE(Pair(*ours, *theirs).client_result, 1);
  EXPECT_THAT(Pair(*ours, *theirs).client_error, HasSubstr("refused"));
}

TEST_F(TlsContextTest, KeyAndCertificateMustBelongTogether) {
  const std::string one = authority_.MakeIdentity("worker-1");
  const std::string two = authority_.MakeIdentity("worker-2");
  const std::string marker = "-----BEGIN CERTIFICATE";
  const std::string mixed =
      one.substr(0, one.find(marker)) + two.substr(two.find(marker));

  const auto context = TlsContext::Create(mixed, authority_.pem(), &clock_);

  EXPECT_EQ(context.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(context.status().message()), HasSubstr("worker-2"));
}

TEST_F(TlsContextTest, GarbageIsRefused) {
  EXPECT_EQ(TlsContext::Create("x", authority_.pem(), &clock_).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(TlsContext::Create(authority_.MakeIdentity("worker-1"), "", &clock_)
                .status()
                .code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace deltapipe
