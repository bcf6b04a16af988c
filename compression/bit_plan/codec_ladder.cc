#include "compression/bit_plan/codec_ladder.h"

#include <algorithm>
#include <memory>

#include "base/status_macros.h"
#include "compression/bit_plan/bit_ladder.h"
#include "compression/codec.h"

namespace deltapipe {

absl::StatusOr<CodecLadder> CodecLadder::Create(const CodecSpec& codec) {
  DP_ASSIGN_OR_RETURN(const std::unique_ptr<Codec> made,
                      MakeCodecFromSpec(codec));
  const auto bits = static_cast<int>(made->traits().bits_per_element);
  return CodecLadder(made->text(), std::min(std::max(bits, 1), kExactBits - 1));
}

absl::StatusOr<CodecLadder> CodecLadder::OrAsItIs(const CodecSpec& codec) {
  DP_ASSIGN_OR_RETURN(CodecLadder ladder, Create(codec));
  if (ladder.text_ == "none") return CodecLadder("", kExactBits);
  return ladder;
}

std::string CodecLadder::CodecText(int times_raised) const {
  return times_raised == 0 ? text_
                           : GroupCodecText(RaisedBits(bits_, times_raised));
}

std::string CodecLadder::LevelText(int times_raised) const {
  if (times_raised == 0 && !text_.empty()) return text_;
  return BitsText(RaisedBits(bits_, times_raised));
}

}  // namespace deltapipe
