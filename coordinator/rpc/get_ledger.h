// GetLedger: see proto/deltapipe/v1/admin.proto.
#ifndef DELTAPIPE_COORDINATOR_RPC_GET_LEDGER_H_
#define DELTAPIPE_COORDINATOR_RPC_GET_LEDGER_H_

#include "absl/status/statusor.h"
#include "coordinator/background/control_plane.h"
#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// As stored, at most a second old.
absl::StatusOr<v1::JobLedger> GetLedger(ControlPlane* plane,
                                        const v1::GetLedgerRequest& request);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_GET_LEDGER_H_
