// Many texts of one codec, made from its parameters: what suites and fuzzers
// run over so that a row of codecs.def is covered without being named in them.
#ifndef DELTAPIPE_COMPRESSION_TESTING_CODEC_SETTINGS_H_
#define DELTAPIPE_COMPRESSION_TESTING_CODEC_SETTINGS_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "compression/codec_registry.h"

namespace deltapipe {

/// ExampleCodecText(info) first, then texts in which one parameter has another
/// value: its ends, each of its choices, for extents some small odd ones, for
/// codecs one of each kind (lossless, blocks, a size that varies). Canonical,
/// each once; what MakeCodec refuses is left out. Of a wrapper: empty.
std::vector<std::string> CodecSettings(const CodecInfo& info);

/// Those of all rows, in the order of codecs.def.
std::vector<std::string> AllCodecSettings();

/// ExampleCodecText of all rows but wrappers, in the order of codecs.def.
std::vector<std::string> AllExampleCodecs();

/// A codec's text as part of a test's name.
std::string TestNameOfCodec(absl::string_view text);

}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_TESTING_CODEC_SETTINGS_H_
