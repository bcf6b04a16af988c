// Feeds bodies and keyframes to the receiving end of a boundary: any bytes, and
// damaged ones of real micro-batches, with the checksum that fits. The first
// two bytes choose the codec, the rest is a trial of
// compression/testing/boundary_trial.h.
//
//   bazel run --config=fuzz //compression/delta:boundary_decoder_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "compression/testing/boundary_trial.h"
#include "compression/testing/trial_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const codecs =
      new std::vector<std::string>(deltapipe::BoundarySettings());
  deltapipe::TrialInput input({data, size});
  const std::string& codec = (*codecs)[input.Index(codecs->size())];
  const absl::Status status = deltapipe::TryBoundaryDecoder(codec, input);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::abort();
  }
  return 0;
}
