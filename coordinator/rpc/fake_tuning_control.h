// FakeTuningControl: one job's knobs without workers: every change that can be
// is in force from step 10 on.
//
// Thread-compatible: tests call from one thread at a time.
#ifndef DELTAPIPE_COORDINATOR_RPC_FAKE_TUNING_CONTROL_H_
#define DELTAPIPE_COORDINATOR_RPC_FAKE_TUNING_CONTROL_H_

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "coordinator/rpc/tuning_control.h"
#include "coordinator/tuning/bit_budget.h"
#include "coordinator/tuning/tuning_answers.h"
#include "coordinator/tuning/tuning_state.h"

namespace deltapipe {

class FakeTuningControl : public TuningControl {
 public:
  /// `spec` has its defaults.
  FakeTuningControl(const std::string& job_id, const v1::JobSpec& spec,
                    const v1::Plan& plan)
      : spec_(spec), plan_(plan), tuning_(InitialTuning(job_id, spec, plan)) {}

  absl::StatusOr<v1::Tuning> Get(const std::string& job_id) override {
    if (!refusal.ok()) return refusal;
    if (job_id == tuning_.job_id()) return tuning_;
    return absl::NotFoundError(absl::StrCat("no job '", job_id, "'"));
  }

  absl::StatusOr<v1::Tuning> Update(const v1::UpdateTuningRequest& request,
                                    const TuningCaller& caller) override {
    const auto current = Get(request.tuning().job_id());
    if (!current.ok()) return current;
    TuningRequestKey key;
    if (!request.validate_only()) key = KeyOf(request);
    const auto known = answers_.Find(key);
    if (!known.ok()) return known.status();
    if (known->has_value()) return **known;
    const auto next = Adopt(ApplyUpdate(*current, request, spec_, plan_),
                            request.validate_only(), caller);
    if (next.ok()) answers_.Remember(key, *next);
    return next;
  }

  absl::StatusOr<v1::Tuning> SetBudget(const v1::SetBudgetRequest& request,
                                       const TuningCaller& caller) override {
    const auto current = Get(request.job_id());
    if (!current.ok()) return current;
    const absl::Status fresh = CheckEtag(*current, request.etag());
    if (!fresh.ok()) return fresh;
    return Adopt(ApplyBudget(*current, request.bytes_per_step(), plan_, {}),
                 false, caller);
  }

  /// What every call answers, unless it is OK.
  absl::Status refusal;
  /// Of the changes that were made.
  std::vector<std::string> principals;

 private:
  absl::StatusOr<v1::Tuning> Adopt(absl::StatusOr<v1::Tuning> next,
                                   bool validate_only,
                                   const TuningCaller& caller) {
    if (!next.ok() || next->revision() == tuning_.revision()) return next;
    if (validate_only) return next;
    next->set_effective_step(10);
    tuning_ = *next;
    principals.push_back(caller.principal);
    return next;
  }

  const v1::JobSpec spec_;
  const v1::Plan plan_;
  v1::Tuning tuning_;
  TuningAnswers answers_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_RPC_FAKE_TUNING_CONTROL_H_
