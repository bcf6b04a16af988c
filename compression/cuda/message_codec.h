// DeviceCodec by launches of kernels, for whatever launches them: CUDA, or the
// host, where tests run the same kernels in the same sequence.
//
// A Launcher has
//   absl::Status Launch(const Body& body, int64_t num_half_warps,
//                       DeviceStream stream);
// which calls body(index, memory) for every index once, in any order, after all
// launches before it on the stream.
#ifndef DELTAPIPE_COMPRESSION_CUDA_MESSAGE_CODEC_H_
#define DELTAPIPE_COMPRESSION_CUDA_MESSAGE_CODEC_H_

#include <algorithm>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/status_macros.h"
#include "compression/cuda/affine_kernels.h"
#include "compression/cuda/channel_kernels.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/int_kernels.h"
#include "compression/cuda/kernel_plan.h"
#include "compression/cuda/message.h"
#include "compression/cuda/minifloat_kernels.h"
#include "compression/cuda/narrow_kernels.h"
#include "compression/cuda/prune_kernels.h"
#include "compression/cuda/prune_threshold_kernels.h"
#include "compression/cuda/row_kernels.h"
#include "compression/cuda/sign_kernels.h"
#include "compression/cuda/survey_kernels.h"
#include "compression/cuda/zero_words.h"
#include "compression/delta/boundary_spec.h"
#include "compression/kernels/random_stream.h"

namespace deltapipe {
namespace cuda {

/// What MessageCodec works by: the kernels of `spec` and of its `first`.
struct MessagePlans {
  BoundarySpec spec;
  KernelPlan codec;
  KernelPlan first;  // of delta(...) only

  /// INVALID_ARGUMENT as ParseBoundarySpec, UNIMPLEMENTED as PlanKernels and
  /// for records kept by a codec.
  static absl::StatusOr<MessagePlans> Parse(absl::string_view text);
};

/// Memory of the device that calls share, sized for the largest message.
class Scratch {
 public:
  static absl::StatusOr<std::unique_ptr<Scratch>> Create(
      std::unique_ptr<DeviceMemory> memory, const MessagePlans& plans,
      int64_t max_elements);
  ~Scratch() { memory_->Free(start_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  /// Of the delta's codec (0) and of first values (1).
  uint32_t* histogram(int which) {
    return histograms_ + which * kHistogramSize;
  }
  uint32_t* window(int which) { return words_ + which; }
  uint32_t* is_delta() { return words_ + 2; }
  /// For problems of payloads of our own, which have none unless it was not
  /// their turn to be written.
  uint32_t* unheeded() { return words_ + 3; }
  /// One word, or one per channel.
  uint32_t* maxima() { return maxima_; }
  double* norms() { return norms_; }
  double* sums() { return sums_; }
  /// Of prune: its state, tiles twice, and a mark and an excess per value.
  PruneState* prune() { return prune_; }
  TileCounts* tiles(int which) { return tiles_ + which * num_tiles_; }
  uint8_t* marks() { return marks_; }
  float* excesses() { return excesses_; }

 private:
  explicit Scratch(std::unique_ptr<DeviceMemory> memory)
      : memory_(std::move(memory)) {}

  const std::unique_ptr<DeviceMemory> memory_;
  void* start_ = nullptr;
  uint32_t* histograms_ = nullptr;
  uint32_t* words_ = nullptr;
  uint32_t* maxima_ = nullptr;
  double* norms_ = nullptr;
  double* sums_ = nullptr;
  PruneState* prune_ = nullptr;
  TileCounts* tiles_ = nullptr;
  int64_t num_tiles_ = 0;  // of each of the two
  uint8_t* marks_ = nullptr;
  float* excesses_ = nullptr;
};

template <class Launcher>
class MessageCodec final : public DeviceCodec {
 public:
  /// `max_elements` is at least 0.
  static absl::StatusOr<std::unique_ptr<DeviceCodec>> Create(
      MessagePlans plans, int64_t max_elements,
      std::unique_ptr<DeviceMemory> memory) {
    DP_ASSIGN_OR_RETURN(
        std::unique_ptr<Scratch> scratch,
        Scratch::Create(std::move(memory), plans, max_elements));
    return std::unique_ptr<DeviceCodec>(
        new MessageCodec(std::move(plans), max_elements, std::move(scratch)));
  }

  std::string text() const override { return plans_.spec.Text(); }

  int64_t MaxPayloadBytes(int64_t count) const override {
    const int64_t bytes = plans_.codec.PayloadBytes(count);
    return IsDelta() ? std::max(bytes, plans_.first.PayloadBytes(count))
                     : bytes;
  }

  absl::Status Encode(const float* values, int64_t count, const RandomKey& key,
                      uint8_t* payload, EncodeOutcome* outcome,
                      DeviceStream stream) override {
    DP_RETURN_IF_ERROR(Check(BoundarySpec::Kind::kStateless, count));
    EncodeMessage message;
    message.values = values;
    message.count = count;
    const Sink sink{payload, outcome, stream};
    return EncodeWith(plans_.codec, message, Turn(), key, 0, sink);
  }

  absl::Status Decode(const DevicePayload& payload, float* values,
                      int64_t count, DeviceStream stream) override {
    // Of ef(...) the receiver knows nothing.
    if (plans_.spec.kind == BoundarySpec::Kind::kDelta) {
      DP_RETURN_IF_ERROR(Check(BoundarySpec::Kind::kStateless, count));
    }
    DP_RETURN_IF_ERROR(CheckCount(count));
    DecodeMessage message;
    message.values = values;
    message.count = count;
    return DecodeWith(plans_.codec, message, payload, stream);
  }

  absl::Status EncodeDelta(const DeviceSample& sample, const RandomKey& key,
                           uint8_t* payload, EncodeOutcome* outcome,
                           DeviceStream stream) override {
    DP_RETURN_IF_ERROR(Check(BoundarySpec::Kind::kDelta, sample.count));
    EncodeMessage message;
    message.prediction = Prediction::kValue;
    message.values = sample.values;
    message.count = sample.count;
    message.state = StateOf(sample);
    const Sink sink{payload, outcome, stream};
    if (sample.before == nullptr) {
      return EncodeWith(plans_.first, message, Turn(), key, 1, sink);
    }
    const Turn value_turn{scratch_->is_delta(), 0};
    const Turn delta_turn{scratch_->is_delta(), 1};
    DP_RETURN_IF_ERROR(SurveyDelta(message, value_turn, stream));
    DP_RETURN_IF_ERROR(
        EncodeSurveyed(plans_.first, message, value_turn, key, 1, sink));
    message.prediction = Prediction::kRecord;
    return EncodeSurveyed(plans_.codec, message, delta_turn, key, 0, sink);
  }

  absl::Status DecodeDelta(const DevicePayload& payload, bool is_delta,
                           const DeviceSample& state, float* values,
                           DeviceStream stream) override {
    DP_RETURN_IF_ERROR(Check(BoundarySpec::Kind::kDelta, state.count));
    if (is_delta && state.before == nullptr) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", text(), " failed: a delta without a record"));
    }
    DecodeMessage message;
    message.prediction = is_delta ? Prediction::kRecord : Prediction::kValue;
    message.values = values;
    message.count = state.count;
    message.state = StateOf(state);
    return DecodeWith(is_delta ? plans_.codec : plans_.first, message, payload,
                      stream);
  }

  absl::Status EncodeFeedback(const DeviceSample& sample, const RandomKey& key,
                              uint8_t* payload, EncodeOutcome* outcome,
                              DeviceStream stream) override {
    DP_RETURN_IF_ERROR(Check(BoundarySpec::Kind::kErrorFeedback, sample.count));
    EncodeMessage message;
    message.prediction = Prediction::kResidual;
    message.values = sample.values;
    message.count = sample.count;
    message.state = StateOf(sample);
    const Sink sink{payload, outcome, stream};
    return EncodeWith(plans_.codec, message, Turn(), key, 0, sink);
  }

 private:
  using Family = KernelPlan::Family;

  struct Sink {
    uint8_t* payload;
    EncodeOutcome* outcome;
    DeviceStream stream;
  };

  MessageCodec(MessagePlans plans, int64_t max_elements,
               std::unique_ptr<Scratch> scratch)
      : plans_(std::move(plans)),
        max_elements_(max_elements),
        scratch_(std::move(scratch)) {}

  bool IsDelta() const {
    return plans_.spec.kind == BoundarySpec::Kind::kDelta;
  }

  absl::Status CheckCount(int64_t count) const {
    if (count >= 0 && count <= max_elements_) return absl::OkStatus();
    return absl::InvalidArgumentError(
        absl::StrCat("codec ", text(), " on the GPU: ", count,
                     " values, expected 0..", max_elements_));
  }
  absl::Status Check(BoundarySpec::Kind kind, int64_t count) const {
    if (kind != plans_.spec.kind) {
      return absl::FailedPreconditionError(
          absl::StrCat("codec ", text(), " on the GPU: this call is for ",
                       kind == BoundarySpec::Kind::kDelta ? "delta(...)"
                       : kind == BoundarySpec::Kind::kErrorFeedback
                           ? "ef(...)"
                           : "codecs without state"));
    }
    return CheckCount(count);
  }

  StateView StateOf(const DeviceSample& sample) const {
    StateView state;
    state.before = sample.before;
    state.after = sample.after;
    state.is_float32 = plans_.spec.store == BoundarySpec::Store::kFloat32;
    return state;
  }

  static int64_t Groups(int64_t count) { return (count + 63) / 64; }

  /// Norms, the choice, and the windows of both codecs where they have one.
  /// `message` is that of the value.
  absl::Status SurveyDelta(const EncodeMessage& message, const Turn& value_turn,
                           DeviceStream stream) {
    const bool codec_is_int = plans_.codec.family == Family::kInt;
    const bool first_is_int = plans_.first.family == Family::kInt;
    Survey survey;
    survey.message = message;
    survey.message.prediction = Prediction::kRecord;
    survey.norms = scratch_->norms();
    if (codec_is_int) {
      survey.block = plans_.codec.integer.block;
      survey.of_inputs = scratch_->histogram(0);
    } else if (first_is_int) {
      survey.block = plans_.first.integer.block;
    }
    const bool has_both =
        first_is_int && plans_.first.integer.block == survey.block;
    if (has_both) survey.of_values = scratch_->histogram(1);
    const int64_t num_runs = Survey::NumRuns(survey.block, message.count);
    DP_RETURN_IF_ERROR(launcher_.Launch(survey, num_runs, stream));
    DP_ASSIGN_OR_RETURN(const double* const pair, SumRuns(num_runs, stream));
    ChooseDelta choose;
    choose.norms = pair;
    choose.is_delta = scratch_->is_delta();
    DP_RETURN_IF_ERROR(launcher_.Launch(choose, 1, stream));
    if (codec_is_int) DP_RETURN_IF_ERROR(Window(plans_.codec, 0, stream));
    if (has_both) DP_RETURN_IF_ERROR(Window(plans_.first, 1, stream));
    return first_is_int && !has_both
               ? SurveyInt(plans_.first, message, value_turn, 1, stream)
               : absl::OkStatus();
  }

  /// Where the sum of that many pairs of the scratch's norms is.
  absl::StatusOr<const double*> SumRuns(int64_t num_pairs,
                                        DeviceStream stream) {
    const double* pairs = scratch_->norms();
    double* next = scratch_->norms() + 2 * num_pairs;
    while (num_pairs != 1) {
      constexpr int64_t kPairsPerSum = 256;
      SumPairs sum;
      sum.in = pairs;
      sum.num_in = num_pairs;
      sum.per_sum = kPairsPerSum;
      sum.out = next;
      // No values at all have sums of 0.
      num_pairs =
          std::max<int64_t>((num_pairs + kPairsPerSum - 1) / kPairsPerSum, 1);
      DP_RETURN_IF_ERROR(launcher_.Launch(sum, num_pairs, stream));
      pairs = next;
      next += 2 * num_pairs;
    }
    return pairs;
  }

  absl::Status Window(const KernelPlan& plan, int which, DeviceStream stream) {
    ChooseWindow choose;
    choose.format = plan.integer;
    choose.histogram = scratch_->histogram(which);
    choose.window = scratch_->window(which);
    return launcher_.Launch(choose, 1, stream);
  }

  absl::Status SurveyInt(const KernelPlan& plan, const EncodeMessage& message,
                         const Turn& turn, int which, DeviceStream stream) {
    Survey survey;
    survey.message = message;
    survey.turn = turn;
    survey.block = plan.integer.block;
    survey.of_inputs = scratch_->histogram(which);
    DP_RETURN_IF_ERROR(launcher_.Launch(
        survey, Survey::NumRuns(survey.block, message.count), stream));
    return Window(plan, which, stream);
  }

  /// `which` is that of the scratch.
  absl::Status EncodeWith(const KernelPlan& plan, const EncodeMessage& message,
                          const Turn& turn, const RandomKey& key, int which,
                          const Sink& sink) {
    if (plan.family == Family::kInt) {
      DP_RETURN_IF_ERROR(SurveyInt(plan, message, turn, which, sink.stream));
    }
    return EncodeSurveyed(plan, message, turn, key, which, sink);
  }

  absl::Status EncodeSurveyed(const KernelPlan& plan,
                              const EncodeMessage& message, const Turn& turn,
                              const RandomKey& key, int which,
                              const Sink& sink) {
    // An empty payload is that of none, whatever the codec.
    switch (message.count == 0 ? Family::kPlain : plan.family) {
      case Family::kPlain: {
        const PlainEncode body{plan.plain, message, turn, sink.payload,
                               sink.outcome};
        return launcher_.Launch(
            body, std::max<int64_t>(Groups(message.count), 1), sink.stream);
      }
      case Family::kInt: {
        const IntEncode body{plan.integer,
                             message,
                             turn,
                             RandomWords(key),
                             scratch_->window(which),
                             sink.payload,
                             sink.outcome};
        return launcher_.Launch(body, IntNumBlocks(plan.integer, message.count),
                                sink.stream);
      }
      case Family::kAffine: {
        const AffineEncode body{plan.affine,      message,      turn,
                                RandomWords(key), sink.payload, sink.outcome};
        return launcher_.Launch(body, plan.affine.NumBlocks(message.count),
                                sink.stream);
      }
      case Family::kSign:
        return EncodeSigns(plan, message, turn, sink);
      case Family::kMinifloat:
        return EncodeMinifloats(plan, message, turn, key, sink);
      case Family::kRows: {
        const RowEncode body{plan.row, message, turn, sink.payload,
                             sink.outcome};
        return launcher_.Launch(body, (message.count + plan.row - 1) / plan.row,
                                sink.stream);
      }
      case Family::kChannels: {
        DP_RETURN_IF_ERROR(
            ZeroMaxima(plan.channel.NumChannels(message.count), sink.stream));
        const ChannelMaxima maxima{plan.channel, message, turn,
                                   scratch_->maxima()};
        DP_RETURN_IF_ERROR(launcher_.Launch(
            maxima, ChannelMaxima::NumParts(plan.channel, message.count),
            sink.stream));
        const ChannelEncode body{plan.channel, message,
                                 turn,         scratch_->maxima(),
                                 sink.payload, sink.outcome};
        return launcher_.Launch(body, Groups(message.count), sink.stream);
      }
      case Family::kPrune:
        return EncodePruned(plan, message, turn, key, sink);
    }
    return absl::OkStatus();
  }

  /// Leaves the threshold in the state.
  absl::Status FindPruneThreshold(const KernelPlan& plan,
                                  const EncodeMessage& message,
                                  DeviceStream stream) {
    PruneState* const state = scratch_->prune();
    const int64_t num_runs = Tiles(message.count);
    DP_RETURN_IF_ERROR(ZeroPruneState(stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneCensus{message, state, scratch_->norms()}, num_runs, stream));
    DP_ASSIGN_OR_RETURN(const double* pair, SumRuns(num_runs, stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneFit{plan.prune_model, plan.sparsity, message.count, pair, state},
        1, stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneCheck{message, state, scratch_->norms()}, num_runs, stream));
    DP_ASSIGN_OR_RETURN(pair, SumRuns(num_runs, stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneDecide{plan.sparsity, message.count, pair, state}, 1, stream));
    for (const bool is_of_steps : {false, true}) {
      DP_RETURN_IF_ERROR(launcher_.Launch(
          PruneHistogram{message, is_of_steps, state}, num_runs, stream));
      DP_RETURN_IF_ERROR(
          launcher_.Launch(PruneChoose{is_of_steps, state}, 1, stream));
    }
    return absl::OkStatus();
  }

  absl::Status EncodePruned(const KernelPlan& plan,
                            const EncodeMessage& message, const Turn& turn,
                            const RandomKey& key, const Sink& sink) {
    const DeviceStream stream = sink.stream;
    PruneState* const state = scratch_->prune();
    TileCounts* const tiles = scratch_->tiles(0);
    const int64_t num_tiles = Tiles(message.count);
    DP_RETURN_IF_ERROR(FindPruneThreshold(plan, message, stream));
    const PruneRule rule{message, RandomWords(key)};
    DP_RETURN_IF_ERROR(
        launcher_.Launch(PruneCount{rule, state, tiles}, num_tiles, stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneConclude{message, turn, plan.prune_values, num_tiles, tiles, state,
                      sink.payload, sink.outcome},
        1, stream));
    DP_RETURN_IF_ERROR(
        launcher_.Launch(PruneWrite{rule, turn, state, tiles, sink.payload,
                                    scratch_->marks(), scratch_->excesses()},
                         num_tiles, stream));
    DP_RETURN_IF_ERROR(
        launcher_.Launch(PrunePackMarks{turn, message.count, state,
                                        scratch_->marks(), sink.payload},
                         Groups(message.count), stream));
    DP_RETURN_IF_ERROR(EncodeExcesses(plan.prune_values, message.count, turn,
                                      StreamKey(key, kNestedCodecStream),
                                      sink.payload, stream));
    if (!message.KeepsState()) return absl::OkStatus();
    DP_RETURN_IF_ERROR(DecodeExcesses(plan.prune_values, message.count,
                                      sink.payload, scratch_->unheeded(),
                                      stream));
    const PruneFinish<EncodeMessage> finish{
        message, turn,  {message.count, sink.payload},
        state,   tiles, scratch_->excesses()};
    return launcher_.Launch(finish, num_tiles, stream);
  }

  absl::Status EncodeExcesses(const PruneValues& values, int64_t max_count,
                              const Turn& turn, const RandomKey& key,
                              uint8_t* payload, DeviceStream stream) {
    EncodeMessage message;
    message.values = scratch_->excesses();
    if (!values.is_minifloat) {
      const PlainEncode body{values.plain, message, turn, payload, nullptr};
      return launcher_.Launch(Placed<PlainEncode>{body, scratch_->prune()},
                              Groups(max_count), stream);
    }
    const MinifloatEncode body{values.minifloat, message, turn,
                               RandomWords(key), nullptr, payload,
                               nullptr};
    const int64_t block = values.minifloat.block;
    return launcher_.Launch(Placed<MinifloatEncode>{body, scratch_->prune()},
                            (max_count + block - 1) / block, stream);
  }

  absl::Status DecodeExcesses(const PruneValues& values, int64_t max_count,
                              const uint8_t* payload, uint32_t* problem,
                              DeviceStream stream) {
    DecodeMessage message;
    message.values = scratch_->excesses();
    if (!values.is_minifloat) {
      const PlainDecode body{values.plain, message, payload};
      return launcher_.Launch(Placed<PlainDecode>{body, scratch_->prune()},
                              Groups(max_count), stream);
    }
    const MinifloatDecode body{values.minifloat, message, payload, problem};
    return launcher_.Launch(Placed<MinifloatDecode>{body, scratch_->prune()},
                            Groups(max_count), stream);
  }

  absl::Status DecodePruned(const KernelPlan& plan,
                            const DecodeMessage& message,
                            const DevicePayload& payload, DeviceStream stream) {
    PruneState* const state = scratch_->prune();
    const int64_t num_tiles = Tiles(message.count);
    const PruneReader reader{message.count, payload.bytes};
    DP_RETURN_IF_ERROR(ZeroPruneState(stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneCountKept{reader, scratch_->tiles(0)}, num_tiles, stream));
    PruneCheckPayload check{reader,       plan.prune_values, false,
                            payload.size, num_tiles,         scratch_->tiles(0),
                            state,        payload.problem};
    DP_RETURN_IF_ERROR(launcher_.Launch(check, 1, stream));
    DP_RETURN_IF_ERROR(launcher_.Launch(
        PruneCountLarge{reader, num_tiles, state, scratch_->tiles(0),
                        scratch_->tiles(1)},
        num_tiles, stream));
    check.is_second = true;
    check.tiles = scratch_->tiles(1);
    DP_RETURN_IF_ERROR(launcher_.Launch(check, 1, stream));
    DP_RETURN_IF_ERROR(DecodeExcesses(plan.prune_values, message.count,
                                      payload.bytes, payload.problem, stream));
    const PruneFinish<DecodeMessage> finish{message,
                                            Turn(),
                                            reader,
                                            state,
                                            scratch_->tiles(1),
                                            scratch_->excesses()};
    return launcher_.Launch(finish, num_tiles, stream);
  }

  static int64_t Tiles(int64_t count) {
    return (count + kPruneRun - 1) / kPruneRun;
  }

  absl::Status ZeroPruneState(DeviceStream stream) {
    constexpr int64_t kWords = sizeof(PruneState) / sizeof(uint32_t);
    const ZeroWords zero{reinterpret_cast<uint32_t*>(scratch_->prune()),
                         kWords};
    return launcher_.Launch(zero, Groups(kWords), stream);
  }

  absl::Status ZeroMaxima(int64_t count, DeviceStream stream) {
    const ZeroWords zero{scratch_->maxima(), count};
    return launcher_.Launch(zero, Groups(count), stream);
  }

  absl::Status EncodeSigns(const KernelPlan& plan, const EncodeMessage& message,
                           const Turn& turn, const Sink& sink) {
    const bool has_blocks = plan.sign.block != 0;
    const int64_t size = has_blocks ? plan.sign.block : kSignRun;
    const int64_t num_runs = (message.count + size - 1) / size;
    const SignEncode body{plan.sign,    message,          turn,
                          sink.payload, scratch_->sums(), sink.outcome};
    DP_RETURN_IF_ERROR(launcher_.Launch(body, num_runs, sink.stream));
    if (has_blocks) return absl::OkStatus();
    const SignConclude conclude{plan.sign,    message,          turn,
                                sink.payload, scratch_->sums(), sink.outcome};
    DP_RETURN_IF_ERROR(launcher_.Launch(conclude, 1, sink.stream));
    if (!message.KeepsState()) return absl::OkStatus();
    const SignKeep keep{message, turn, sink.payload};
    return launcher_.Launch(keep, num_runs, sink.stream);
  }

  absl::Status EncodeMinifloats(const KernelPlan& plan,
                                const EncodeMessage& message, const Turn& turn,
                                const RandomKey& key, const Sink& sink) {
    const bool has_blocks = plan.minifloat.block != 0;
    const int64_t size = has_blocks ? plan.minifloat.block : kMinifloatRun;
    const int64_t num_runs = (message.count + size - 1) / size;
    if (!has_blocks) {
      DP_RETURN_IF_ERROR(ZeroMaxima(1, sink.stream));
      const LargestInput largest{message, turn, scratch_->maxima()};
      DP_RETURN_IF_ERROR(launcher_.Launch(largest, num_runs, sink.stream));
    }
    const MinifloatEncode body{
        plan.minifloat,     message,      turn,        RandomWords(key),
        scratch_->maxima(), sink.payload, sink.outcome};
    return launcher_.Launch(body, num_runs, sink.stream);
  }

  absl::Status DecodeWith(const KernelPlan& plan, const DecodeMessage& message,
                          const DevicePayload& payload, DeviceStream stream) {
    const int64_t expected = plan.PayloadBytes(message.count);
    if (plan.family == Family::kPrune && message.count > 0) {
      if (payload.size >= PruneMapEnd(message.count)) {
        return DecodePruned(plan, message, payload, stream);
      }
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", plan.text, " failed: payload of ", payload.size,
          " bytes, expected at least ", PruneMapEnd(message.count), " for ",
          message.count, " elements"));
    }
    if (payload.size != expected) {
      return absl::InvalidArgumentError(absl::StrCat(
          "decode with ", plan.text, " failed: payload of ", payload.size,
          " bytes, expected ", expected, " for ", message.count, " elements"));
    }
    if (message.count == 0) return absl::OkStatus();
    const int64_t groups = Groups(message.count);
    const uint8_t* const bytes = payload.bytes;
    uint32_t* const problem = payload.problem;
    switch (plan.family) {
      case Family::kPlain:
        return launcher_.Launch(PlainDecode{plan.plain, message, bytes}, groups,
                                stream);
      case Family::kInt:
        return launcher_.Launch(
            IntDecode{plan.integer, message, bytes, problem}, groups, stream);
      case Family::kAffine:
        return launcher_.Launch(
            AffineDecode{plan.affine, message, bytes, problem}, groups, stream);
      case Family::kSign:
        return launcher_.Launch(SignDecode{plan.sign, message, bytes, problem},
                                groups, stream);
      case Family::kMinifloat:
        return launcher_.Launch(
            MinifloatDecode{plan.minifloat, message, bytes, problem}, groups,
            stream);
      case Family::kRows:
        return launcher_.Launch(RowDecode{plan.row, message, bytes, problem},
                                (message.count + plan.row - 1) / plan.row,
                                stream);
      case Family::kChannels:
        return launcher_.Launch(
            ChannelDecode{plan.channel, message, bytes, problem}, groups,
            stream);
      case Family::kPrune:
        break;  // above
    }
    return absl::OkStatus();
  }

  const MessagePlans plans_;
  const int64_t max_elements_;
  const std::unique_ptr<Scratch> scratch_;
  Launcher launcher_;
};

}  // namespace cuda
}  // namespace deltapipe

#endif  // DELTAPIPE_COMPRESSION_CUDA_MESSAGE_CODEC_H_
