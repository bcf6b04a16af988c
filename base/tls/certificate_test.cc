#include "base/tls/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <string>

#include "base/tls/certificate_authority.h"
#include "base/tls/identity.h"
#include "base/tls/key_pair.h"
#include "base/tls/secret.h"

namespace deltapipe {
namespace {

using std::chrono::hours;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// 2026-11-21 00:00:00 UTC
constexpr int64_t kNow = 1'795'219'200'000;
constexpr int64_t kHour = 3'600'000;

std::string Request() {
  return KeyPair::Generate().value().MakeSigningRequest().value();
}

Certificate SignWorker(const CertificateAuthority& authority,
                       const std::string& worker) {
  CertificateOrder order;
  order.identity = {authority.cluster(), worker};
  order.lifetime = hours(1);
  return Certificate::FromPem(authority.Sign(Request(), order, kNow).value())
      .value();
}

TEST(CertificateTest, SaysWhoseItIsAndHowLong) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();

  const Certificate leaf = SignWorker(authority, "worker-3");

  EXPECT_EQ(leaf.identity().value().ToString(),
            "deltapipe://c1/worker/worker-3");
  EXPECT_EQ(leaf.not_after_millis(), kNow + kHour);
  EXPECT_FALSE(leaf.is_authority());
  EXPECT_TRUE(leaf.CheckSignedBy(authority.certificate(), kNow).ok());
}

TEST(CertificateTest, ExpiresAndSaysWhen) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const Certificate leaf = SignWorker(authority, "worker-3");

  const absl::Status status =
      leaf.CheckSignedBy(authority.certificate(), kNow + kHour + 2000);

  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("deltapipe://c1/worker/worker-3 expired at 2026-11-21 "
                        "01:00:00 UTC, now it is 2026-11-21 01:00:02 UTC"));
}

TEST(CertificateTest, IsNotValidBeforeItWasMade) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const Certificate leaf = SignWorker(authority, "worker-3");

  const absl::Status status =
      leaf.CheckSignedBy(authority.certificate(), kNow - kHour);

  EXPECT_EQ(status.code(), absl::StatusCode::kUnauthenticated);
}

TEST(CertificateTest, AnotherAuthoritysIsRefusedEvenUnderTheSameName) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const auto impostor = CertificateAuthority::Create("c1", kNow).value();
  const Certificate leaf = SignWorker(impostor, "worker-3");

  const absl::Status status = leaf.CheckSignedBy(authority.certificate(), kNow);

  EXPECT_EQ(status.code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(authority.certificate().public_key_hash()));
}

TEST(CertificateTest, ALeafIsNoAuthority) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const KeyPair key = KeyPair::Generate().value();
  CertificateOrder order;
  order.identity = {"c1", "worker-1"};
  const std::string leaf =
      authority.Sign(key.MakeSigningRequest().value(), order, kNow).value();

  const auto made = CertificateAuthority::FromPem(key.ToPem().value(), leaf);

  EXPECT_EQ(made.status().code(), absl::StatusCode::kInvalidArgument);
}

TEST(CertificateTest, AnAuthorityHasNoIdentity) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();

  EXPECT_TRUE(authority.certificate().is_authority());
  EXPECT_THAT(authority.certificate().uris(), ElementsAre("deltapipe://c1"));
  EXPECT_EQ(authority.certificate().identity().status().code(),
            absl::StatusCode::kPermissionDenied);
}

TEST(CertificateTest, AnAuthoritySurvivesItsFiles) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();

  const auto again = CertificateAuthority::FromPem(
      authority.key().ToPem().value(), authority.certificate().ToPem().value());

  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_EQ(again->cluster(), "c1");
  EXPECT_EQ(again->certificate().public_key_hash(),
            authority.certificate().public_key_hash());
}

TEST(CertificateTest, AKeyOfAnotherAuthorityIsRefused) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();

  const auto mixed =
      CertificateAuthority::FromPem(KeyPair::Generate().value().ToPem().value(),
                                    authority.certificate().ToPem().value());

  EXPECT_THAT(std::string(mixed.status().message()),
              HasSubstr("do not belong together"));
}

TEST(CertificateTest, RequestsThatAreDamagedOrTooLongAreRefused) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  CertificateOrder order;
  order.identity = {"c1", "worker-1"};
  std::string damaged = Request();
  damaged[damaged.size() / 2] = damaged[damaged.size() / 2] == 'A' ? 'B' : 'A';

  for (const std::string& request : {std::string(), std::string("nonsense"),
                                     damaged, std::string(10'000, 'x')}) {
    EXPECT_EQ(authority.Sign(request, order, kNow).status().code(),
              absl::StatusCode::kInvalidArgument)
        << request.size();
  }
}

TEST(CertificateTest, NamesOfOtherClustersAndBadNamesAreNotSigned) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const std::string request = Request();

  for (const Identity& identity :
       {Identity{"c2", "worker-1"}, Identity{"c1", "../coordinator"},
        Identity{"c1", "worker 1"}}) {
    CertificateOrder order;
    order.identity = identity;
    EXPECT_EQ(authority.Sign(request, order, kNow).status().code(),
              absl::StatusCode::kInvalidArgument)
        << identity.ToString();
  }
}

TEST(CertificateTest, TheHashOfARequestIsThatOfItsCertificate) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  const std::string request = Request();
  CertificateOrder order;
  order.identity = {"c1", "worker-1"};

  const auto leaf =
      Certificate::FromPem(authority.Sign(request, order, kNow).value());

  EXPECT_EQ(RequestedKeyHash(request).value(), leaf.value().public_key_hash());
}

TEST(CertificateTest, NamesOfServersAreInTheirCertificate) {
  const auto authority = CertificateAuthority::Create("c1", kNow).value();
  CertificateOrder order;
  order.identity = {"c1", ""};
  order.hosts = {"localhost", "10.77.0.1", "::1"};

  const auto leaf =
      Certificate::FromPem(authority.Sign(Request(), order, kNow).value())
          .value();

  EXPECT_EQ(X509_check_host(leaf.get(), "localhost", 0, 0, nullptr), 1);
  EXPECT_EQ(X509_check_ip_asc(leaf.get(), "10.77.0.1", 0), 1);
  EXPECT_EQ(X509_check_ip_asc(leaf.get(), "10.77.0.2", 0), 0);
  EXPECT_EQ(leaf.identity().value().ToString(), "deltapipe://c1/coordinator");
}

TEST(IdentityTest, OnlyWhatItWritesCanBeRead) {
  EXPECT_EQ(ParseIdentity("deltapipe://c1/worker/worker-1")->worker,
            "worker-1");
  EXPECT_FALSE(ParseIdentity("deltapipe://c1/coordinator")->is_worker());
  for (const char* uri :
       {"", "deltapipe://", "deltapipe://c1", "deltapipe://c1/worker/",
        "deltapipe://c1/worker/a/b", "deltapipe://C1/coordinator",
        "deltapipe:///coordinator", "https://c1/worker/worker-1",
        "deltapipe://c1/coordinator/", "deltapipe://-c/coordinator"}) {
    EXPECT_FALSE(ParseIdentity(uri).ok()) << uri;
  }
}

TEST(SecretTest, TokensDifferAndHashesAreThoseOfTheStandard) {
  EXPECT_EQ(RandomHex(32).value().size(), 64u);
  EXPECT_NE(RandomHex(32).value(), RandomHex(32).value());
  EXPECT_EQ(Sha256Hex("abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_TRUE(EqualInConstantTime("same", "same"));
  EXPECT_FALSE(EqualInConstantTime("same", "some"));
  EXPECT_FALSE(EqualInConstantTime("same", "same longer"));
}

}  // namespace
}  // namespace deltapipe
