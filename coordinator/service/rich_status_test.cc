#include "coordinator/service/rich_status.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "coordinator/errors/error_details.h"
#include "third_party/googleapis/error_details.pb.h"
#include "third_party/googleapis/status.pb.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::EndsWith;

int CountErrorInfos(const grpc::Status& status) {
  google::rpc::Status rich;
  EXPECT_TRUE(rich.ParseFromString(status.error_details()));
  int count = 0;
  for (const auto& detail : rich.details()) {
    if (detail.type_url() == "type.googleapis.com/google.rpc.ErrorInfo") {
      ++count;
    }
  }
  return count;
}

TEST(RichStatusTest, OkIsOk) {
  EXPECT_TRUE(ToGrpcStatus(absl::OkStatus()).ok());
  EXPECT_TRUE(FromGrpcStatus(grpc::Status::OK).ok());
}

TEST(RichStatusTest, EveryErrorHasOneErrorInfo) {
  for (const absl::Status& status :
       {absl::NotFoundError("no job"), FieldViolationsError({{"a", "b"}}),
        WithResource(absl::NotFoundError("x"), "job", "text-1"),
        WithReason(absl::AbortedError("x"), {"ETAG_MISMATCH", {}})}) {
    EXPECT_EQ(CountErrorInfos(ToGrpcStatus(status)), 1) << status;
  }
}

TEST(RichStatusTest, AReasonIsMadeOfTheCodeWhereNoneIsGiven) {
  const absl::Status back =
      FromGrpcStatus(ToGrpcStatus(absl::FailedPreconditionError("no")));

  EXPECT_EQ(back.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(back.message()), "no");
  EXPECT_EQ(ReasonOf(back)->reason, "FAILED_PRECONDITION");
}

TEST(RichStatusTest, DetailsComeBack) {
  absl::Status status = FieldViolationsError({{"gradients", "bad"}});
  status = WithReason(status, {"INVALID_TUNING", {{"job", "text-1"}}});

  const absl::Status back = FromGrpcStatus(ToGrpcStatus(status));

  EXPECT_EQ(back, status);
  EXPECT_THAT(FieldViolationsOf(back),
              ElementsAre(FieldViolation{"gradients", "bad"}));
  EXPECT_EQ(ReasonOf(back)->metadata.at("job"), "text-1");
}

TEST(RichStatusTest, SizesAreCapped) {
  std::vector<FieldViolation> violations;
  for (int i = 0; i < 500; ++i) {
    violations.push_back({"field" + std::to_string(i), std::string(900, 'x')});
  }
  absl::Status status = WithPrecondition(
      WithResource(FieldViolationsError(violations), "job",
                   std::string(9000, 'n')),
      "WORKER", std::string(9000, 's'), std::string(9000, 'd'));

  const grpc::Status capped = ToGrpcStatus(status);

  EXPECT_LE(capped.error_message().size(), 4010u);
  EXPECT_THAT(capped.error_message(), EndsWith(" [cut]"));
  EXPECT_LE(capped.error_details().size(), 2600u);
  const absl::Status back = FromGrpcStatus(capped);
  const size_t kept = FieldViolationsOf(back).size();
  EXPECT_GE(kept, 1u);
  EXPECT_EQ(ReasonOf(back)->metadata.at("omitted_violations"),
            std::to_string(500 - kept));
}

TEST(RichStatusTest, AnotherDomainsDetailsAreDropped) {
  google::rpc::Status rich;
  rich.add_details()->set_type_url("type.example.com/x");
  const grpc::Status foreign(grpc::StatusCode::INTERNAL, "x",
                             rich.SerializeAsString());
  const grpc::Status damaged(grpc::StatusCode::INTERNAL, "x", "\xff\xff");

  EXPECT_EQ(FromGrpcStatus(foreign), absl::InternalError("x"));
  EXPECT_EQ(FromGrpcStatus(damaged), absl::InternalError("x"));
}

}  // namespace
}  // namespace deltapipe
