// The first record of a job, the same in every store.
#ifndef DELTAPIPE_COORDINATOR_STORE_NEW_JOB_RECORD_H_
#define DELTAPIPE_COORDINATOR_STORE_NEW_JOB_RECORD_H_

#include <cstdint>

#include "coordinator/store/job_store.h"

namespace deltapipe {

struct NewJobRecord {
  v1::Job job;
  v1::JobEvent event;  // without a sequence
};

NewJobRecord MakeNewJobRecord(const NewJob& job, int64_t number);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_STORE_NEW_JOB_RECORD_H_
