// TuningAnswers: what requests to change a job's knobs were answered, by their
// request_id, so that one that is sent again changes nothing (AIP-155).
//
// The last kMaxAnswers changes are kept, per job; refusals are not: who was
// refused may ask again. Kept by the job's actor, and by the job store as text,
// which survives the coordinator. A change that the workers were told to make
// but that is not in force yet is remembered as decided, without an answer.
// Plain data, thread-compatible.
//
//   DP_ASSIGN_OR_RETURN(std::optional<v1::Tuning> known, answers.Find(key));
//   answers.Decide(key, /*revision=*/2);      // store(answers.Text())
//   answers.Remember(key, tuning_in_force);   // store(answers.Text())
#ifndef DELTAPIPE_COORDINATOR_TUNING_TUNING_ANSWERS_H_
#define DELTAPIPE_COORDINATOR_TUNING_TUNING_ANSWERS_H_

#include <cstdint>
#include <deque>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "proto/deltapipe/v1/tuning.pb.h"

namespace deltapipe {

/// Tells requests apart.
struct TuningRequestKey {
  /// Empty: a request like no other, neither found nor remembered.
  std::string id;
  /// Of all that the request says but its id.
  uint64_t content = 0;
};

TuningRequestKey KeyOf(const v1::UpdateTuningRequest& request);

class TuningAnswers {
 public:
  static constexpr size_t kMaxAnswers = 64;

  /// What the request was answered; none if it is not known. INVALID_ARGUMENT:
  /// another request had this id.
  absl::StatusOr<std::optional<v1::Tuning>> Find(
      const TuningRequestKey& key) const;

  /// The change is on its way as `revision`, and not in force yet.
  void Decide(const TuningRequestKey& key, uint32_t revision);
  /// Whose change is on its way as `revision`; an empty key if nobody's is.
  TuningRequestKey DecidedAs(uint32_t revision) const;
  /// In place of the decision, if there was one; drops the oldest beyond
  /// kMaxAnswers.
  void Remember(const TuningRequestKey& key, const v1::Tuning& answer);
  /// Drops what was decided and came to nothing.
  void Drop(const TuningRequestKey& key);

  /// JSON; empty if nothing is known.
  std::string Text() const;
  /// DATA_LOSS: no such text.
  static absl::StatusOr<TuningAnswers> Read(const std::string& text);

 private:
  struct Answer {
    TuningRequestKey key;
    uint32_t revision = 0;
    std::optional<v1::Tuning> tuning;  // absent: decided
  };

  std::deque<Answer> answers_;  // oldest first
};

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_TUNING_ANSWERS_H_
