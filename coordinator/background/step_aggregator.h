// StepAggregator: from every worker's report of a step to one summary of it,
// and from those to the result of the job.
//
// Called by one job, on its thread; does no I/O. A step is complete when all
// ranks have reported it; steps complete in order. rank = stage * replicas +
// replica.
#ifndef DELTAPIPE_COORDINATOR_BACKGROUND_STEP_AGGREGATOR_H_
#define DELTAPIPE_COORDINATOR_BACKGROUND_STEP_AGGREGATOR_H_

#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/admin.pb.h"
#include "proto/deltapipe/v1/control.pb.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

struct AggregatorShape {
  int num_stages = 1;
  int num_replicas = 1;
  int64_t total_steps = 0;
  int64_t batch_samples = 0;
  /// By rank, for messages: "worker-3".
  std::vector<std::string> worker_ids;
};

struct ValidationSummary {
  int64_t step = 0;
  double loss = 0;  // mean over tokens
  int64_t tokens = 0;
  /// Share of targets that were predicted, where stages predict.
  std::optional<double> accuracy;
};

class StepAggregator {
 public:
  /// Reports that ranks may be apart; a worker that runs further ahead is
  /// broken.
  static constexpr size_t kMaxOpenReports = 4096;
  /// The last steps of which it remembers what was done (ListExecuted).
  static constexpr size_t kMaxExecutedSteps = 16384;
  /// The last steps that the median of their times is over.
  static constexpr size_t kMaxTimedSteps = 4096;

  explicit StepAggregator(AggregatorShape shape);

  /// The step's summary once all ranks have reported it. DATA_LOSS: the
  /// replicas of a stage have different weights (names them). INTERNAL: a
  /// report that no correct worker sends, such as a second one of the same
  /// step.
  absl::StatusOr<std::optional<v1::StepSummary>> Add(
      int rank, const v1::StepReport& report);
  /// The mean over the replicas' shares, weighted by tokens, once all replicas
  /// of the last stage have reported it.
  std::optional<ValidationSummary> AddValidation(
      int rank, const v1::ValidationReport& report);
  /// The final byte counts of a rank.
  void SetBytes(int rank, const v1::ByteCounters& bytes);

  /// The job goes back to where `step` steps are done, on these workers, whose
  /// counters begin at 0. What went through the sockets before stays counted.
  void GoBackTo(int64_t step, int64_t samples_dropped,
                std::vector<std::string> worker_ids);

  /// What each replica did in steps that may be done again; of jobs that may
  /// leave out or move work only. Done again, they shall do the same.
  void ListExecuted(
      google::protobuf::RepeatedPtrField<v1::ExecutedStep>* steps) const;
  /// Steps before this one are never done again.
  void ForgetExecutedBefore(int64_t step);

  void Save(v1::JobProgress* progress) const;
  /// Goes on as the one that was saved. INTERNAL if that had another shape.
  absl::Status Load(const v1::JobProgress& progress);

  /// Steps that all ranks have reported.
  int64_t num_complete() const { return num_complete_; }
  /// Figures of the complete steps; wall_seconds is the caller's.
  v1::JobResult Result() const;

 private:
  struct Step {
    std::vector<std::optional<v1::StepReport>> reports;
    int num_reports = 0;
  };
  absl::Status CompareWeights(const Step& step) const;
  v1::StepSummary Summarise(const Step& step);
  void NoteExecuted(const Step& step);
  v1::ByteCounters TotalBytes() const;
  v1::FaultCounters TotalFaults() const;
  int StageOf(int rank) const { return rank / shape_.num_replicas; }
  std::string Describe(int rank) const;

  AggregatorShape shape_;
  const int num_ranks_;
  std::map<int64_t, Step> open_;
  std::map<int64_t, std::vector<std::optional<v1::ValidationReport>>>
      validations_;
  std::vector<int64_t> last_steps_;
  std::vector<v1::ByteCounters> bytes_;    // by rank, of this generation
  std::vector<v1::FaultCounters> faults_;  // likewise
  v1::ByteCounters former_bytes_;          // of earlier ones
  v1::FaultCounters former_faults_;
  std::deque<float> step_seconds_;  // of complete reports, per step
  std::deque<int64_t> step_tokens_;
  int64_t num_complete_ = 0;
  int64_t last_complete_ = -1;
  int64_t samples_dropped_ = 0;
  std::map<int64_t, v1::ExecutedStep> executed_;  // by step
  int64_t total_tokens_ = 0;
  double total_seconds_ = 0;
  double train_loss_ = 0;
  double validation_loss_ = 0;
  std::optional<double> validation_accuracy_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_BACKGROUND_STEP_AGGREGATOR_H_
