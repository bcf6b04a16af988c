// TuningService over gRPC: every method is one handler of coordinator/rpc.
//
// Synchronous: an update holds a thread of the server's pool until it is in
// force, for a minute at most.
#ifndef DELTAPIPE_COORDINATOR_SERVICE_TUNING_SERVICE_H_
#define DELTAPIPE_COORDINATOR_SERVICE_TUNING_SERVICE_H_

#include <functional>
#include <string>

#include "coordinator/rpc/tuning_control.h"
#include "proto/deltapipe/v1/tuning.grpc.pb.h"

namespace deltapipe {

class TuningServiceImpl : public v1::TuningService::Service {
 public:
  /// Names the caller of an RPC for the event log.
  using PrincipalOf = std::function<std::string(const grpc::ServerContext&)>;

  /// `control` outlives the server that serves this.
  explicit TuningServiceImpl(TuningControl* control,
                             PrincipalOf principal_of = PeerName)
      : control_(control), principal_of_(std::move(principal_of)) {}

  grpc::Status GetTuning(grpc::ServerContext* context,
                         const v1::GetTuningRequest* request,
                         v1::Tuning* response) override;
  grpc::Status UpdateTuning(grpc::ServerContext* context,
                            const v1::UpdateTuningRequest* request,
                            v1::Tuning* response) override;
  grpc::Status SetBudget(grpc::ServerContext* context,
                         const v1::SetBudgetRequest* request,
                         v1::Tuning* response) override;

  /// The first identity that TLS has established, else "127.0.0.1" of
  /// "ipv4:127.0.0.1:41233".
  static std::string PeerName(const grpc::ServerContext& context);

 private:
  TuningCaller CallerOf(grpc::ServerContext* context) const;

  TuningControl* const control_;
  const PrincipalOf principal_of_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_TUNING_SERVICE_H_
