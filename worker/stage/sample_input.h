// A micro-batch of a model without a data set: bytes of a text without sense,
// or images of it, to measure and to explain what a stage does.
#ifndef DELTAPIPE_WORKER_STAGE_SAMPLE_INPUT_H_
#define DELTAPIPE_WORKER_STAGE_SAMPLE_INPUT_H_

#include <cstdint>
#include <vector>

#include "proto/deltapipe/v1/job.pb.h"
#include "worker/stage/stage.h"

namespace deltapipe {

class SampleInput {
 public:
  SampleInput(const v1::ModelSpec& model, int64_t num_samples);

  /// Tokens and targets; borrowed from this object.
  StageInput input() const;

 private:
  int64_t num_samples_;
  std::vector<uint8_t> tokens_;
  std::vector<uint8_t> targets_;
  std::vector<uint64_t> keys_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_STAGE_SAMPLE_INPUT_H_
