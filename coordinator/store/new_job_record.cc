#include "coordinator/store/new_job_record.h"

#include "absl/strings/str_cat.h"

namespace deltapipe {

NewJobRecord MakeNewJobRecord(const NewJob& job, int64_t number) {
  NewJobRecord record;
  v1::Job& stored = record.job;
  stored.set_id(absl::StrCat(job.spec.name().empty() ? "job" : job.spec.name(),
                             "-", number));
  *stored.mutable_spec() = job.spec;
  stored.set_state(v1::JOB_STATE_PENDING);
  stored.set_reason(job.event_text);
  stored.set_create_time_millis(job.time_millis);
  stored.set_run_folder(job.run_folder);
  stored.set_resume(job.resume);
  record.event.set_time_millis(job.time_millis);
  record.event.set_kind("state");
  record.event.set_state(v1::JOB_STATE_PENDING);
  record.event.set_text(job.event_text);
  return record;
}

}  // namespace deltapipe
