// Feeds payloads to the decoder of every codec in several settings: any bytes,
// and damaged ones of real encodings. The first two bytes choose the setting,
// the rest is a trial of compression/testing/decoder_trial.h.
//
//   bazel run --config=fuzz //compression:codec_decoder_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "compression/codec.h"
#include "compression/testing/codec_settings.h"
#include "compression/testing/decoder_trial.h"
#include "compression/testing/trial_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto* const codecs = [] {
    auto* made = new std::vector<std::unique_ptr<deltapipe::Codec>>;
    for (const std::string& text : deltapipe::AllCodecSettings()) {
      made->push_back(deltapipe::MakeCodec(text).value());
    }
    return made;
  }();
  deltapipe::TrialInput input({data, size});
  const deltapipe::Codec& codec = *(*codecs)[input.Index(codecs->size())];
  const absl::Status status = deltapipe::TryDecoder(codec, input);
  if (!status.ok()) {
    std::fprintf(stderr, "%s\n", status.ToString().c_str());
    std::abort();
  }
  return 0;
}
