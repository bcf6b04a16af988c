// CheckCorpus: whether the file that a job spec trains on can be trained on.
//
// Called by the command line before anything is started, on the machine that
// has the file. Reads at most the first 4 MiB that the job would use.
#ifndef DELTAPIPE_COORDINATOR_SPEC_CORPUS_CHECK_H_
#define DELTAPIPE_COORDINATOR_SPEC_CORPUS_CHECK_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "coordinator/spec/job_spec.h"

namespace deltapipe {

/// What is wrong with data.path (missing, a folder, unreadable, empty, no text)
/// or with how little of it data.limit leaves for one batch. Empty for
/// synthetic models and for specs without a path. `spec` is filled in; a
/// relative path is looked up from the current folder.
std::vector<SpecViolation> CheckCorpus(const v1::JobSpec& spec);

/// "" if `bytes` look like text; else a sentence. Text has no NUL byte, and
/// more than half of it is printable UTF-8.
std::string TextProblem(absl::string_view bytes);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_CORPUS_CHECK_H_
