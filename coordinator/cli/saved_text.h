// What people read of a job's saved activations: for `top`, `metrics` and the
// summary of a run. Plain text, pure.
#ifndef DELTAPIPE_COORDINATOR_CLI_SAVED_TEXT_H_
#define DELTAPIPE_COORDINATOR_CLI_SAVED_TEXT_H_

#include <string>

#include "proto/deltapipe/v1/admin.pb.h"

namespace deltapipe {

/// "1.2 GB -> 160 MB (0.13)": what autograd saved, each element once, and what
/// was kept of it.
std::string SavedText(double raw_bytes, double stored_bytes);

/// "saved 1.2 GB -> 160 MB (0.13), peak 40 MB on stage 0", bytes over all
/// workers since the start, the peak of the worker with the largest, and the
/// largest gradient error where a probe found one; empty where nothing is
/// packed.
std::string SavedLine(const v1::JobMetrics& metrics);

/// A row for each worker that packs; empty where none does.
std::string SavedTable(const v1::JobMetrics& metrics);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_SAVED_TEXT_H_
