// What the fields of a filled-in job spec demand of themselves and of each
// other.
//
// Called by ValidateJobSpec and by the reader, which names the fields that it
// could not read: rules about those are left out, so that one mistake is
// reported once.
#ifndef DELTAPIPE_COORDINATOR_SPEC_VALIDATE_H_
#define DELTAPIPE_COORDINATOR_SPEC_VALIDATE_H_

#include <set>
#include <string>
#include <vector>

#include "coordinator/spec/job_spec.h"

namespace deltapipe {

/// Violations in the order of the proto, own rules before mutual ones.
std::vector<SpecViolation> FindViolations(
    const v1::JobSpec& spec, const std::set<std::string>& unreadable_fields);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_VALIDATE_H_
