#include "worker/engine/boundary_end.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <new>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "compression/delta/boundary_spec.h"
#include "compression/delta/held_rows.h"
#include "worker/transport/frame_wire.h"

namespace deltapipe {
namespace {

ByteSpan AsBytes(absl::Span<const uint64_t> values) {
  return {reinterpret_cast<const uint8_t*>(values.data()), values.size() * 8};
}

BoundaryOptions DirectionOptions(const BoundaryEndOptions& options,
                                 bool activations) {
  BoundaryOptions made;
  made.codec = activations ? options.activation_codec : options.gradient_codec;
  made.seed = options.seed;
  made.boundary_id = static_cast<uint32_t>(options.boundary);
  made.direction = activations ? 0 : 1;
  made.state_capacity_bytes = options.state_capacity_bytes;
  made.state_folder = options.state_folder;
  return made;
}

double SecondsFrom(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin)
      .count();
}

struct EndCodecs {
  ShapedCodecs<BoundaryEncoder> encoders;
  ShapedCodecs<BoundaryDecoder> decoders;
};

absl::StatusOr<EndCodecs> MakeCodecs(const BoundaryEndOptions& options) {
  EndCodecs made;
  DP_ASSIGN_OR_RETURN(
      made.encoders,
      ShapedCodecs<BoundaryEncoder>::Create(
          DirectionOptions(options, options.is_upstream), options.shapes));
  DP_ASSIGN_OR_RETURN(
      made.decoders,
      ShapedCodecs<BoundaryDecoder>::Create(
          DirectionOptions(options, !options.is_upstream), options.shapes));
  return {std::move(made)};
}

/// Of a sample, in what a codec keeps; 0 if it keeps nothing.
absl::StatusOr<int64_t> RecordBytes(const std::string& codec, bool activations,
                                    int64_t num_elements) {
  DP_ASSIGN_OR_RETURN(const BoundarySpec spec,
                      ParseBoundarySpec(codec, activations ? 0 : 1));
  return spec.RecordBytes(num_elements);
}

/// Whether records or residuals of `former` can be taken over by `codec`. Of a
/// text that this build does not know they cannot.
bool KeepsAs(const std::string& former, const std::string& codec,
             bool activations) {
  const auto then = ParseBoundarySpec(former, activations ? 0 : 1);
  const auto now = ParseBoundarySpec(codec, activations ? 0 : 1);
  return then.ok() && now.ok() && now->KeepsAs(*then);
}

/// Runs `work`; a tensor for which there is no memory is an error, too.
template <typename Work>
absl::Status OrOutOfMemory(const Work& work) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return absl::ResourceExhaustedError(
        "memory is exhausted: lower train.microbatch or "
        "compression.state_memory, or use more stages");
  }
}

}  // namespace

absl::StatusOr<std::unique_ptr<BoundaryEnd>> BoundaryEnd::Create(
    const BoundaryEndOptions& options, std::unique_ptr<FrameChannel> channel) {
  DP_ASSIGN_OR_RETURN(EndCodecs codecs, MakeCodecs(options));
  return std::unique_ptr<BoundaryEnd>(
      new BoundaryEnd(options, std::move(channel), std::move(codecs.encoders),
                      std::move(codecs.decoders)));
}

BoundaryEnd::BoundaryEnd(const BoundaryEndOptions& options,
                         std::unique_ptr<FrameChannel> channel,
                         ShapedCodecs<BoundaryEncoder> encoders,
                         ShapedCodecs<BoundaryDecoder> decoders)
    : options_(options),
      outgoing_kind_(options.is_upstream ? FrameKind::kActivation
                                         : FrameKind::kActivationGradient),
      incoming_kind_(options.is_upstream ? FrameKind::kActivationGradient
                                         : FrameKind::kActivation),
      channel_(std::move(channel)),
      tuning_revision_(options.tuning_revision),
      encoders_(std::move(encoders)),
      decoders_(std::move(decoders)) {
  const std::string id = absl::StrCat(options.boundary);
  send_thread_ = Thread("send-b" + id, [this] { SendLoop(); });
  route_thread_ = Thread("route-b" + id, [this] { RouteLoop(); });
  decode_thread_ = Thread("decode-b" + id, [this] { DecodeLoop(); });
}

BoundaryEnd::~BoundaryEnd() {
  Cancel(absl::CancelledError("the boundary was closed"));
  send_thread_.Join();
  route_thread_.Join();
  decode_thread_.Join();
}

void BoundaryEnd::Send(uint32_t step, uint32_t microbatch,
                       std::vector<BoundarySample> samples, TensorRef tensor,
                       bool is_evaluation) {
  Outgoing item;
  item.kind = Outgoing::Kind::kTensor;
  item.step = step;
  item.microbatch = microbatch;
  item.samples = std::move(samples);
  item.tensor = std::move(tensor);
  item.is_evaluation = is_evaluation;
  PushOutgoing(std::move(item));
}

void BoundaryEnd::PushOutgoing(Outgoing item) {
  {
    MutexLock lock(&mutex_);
    // An answer to a request must not wait behind tensors whose turn depends on
    // it.
    if (item.kind == Outgoing::Kind::kKeyframeRequest ||
        item.kind == Outgoing::Kind::kKeyframes) {
      outgoing_.push_front(std::move(item));
    } else {
      outgoing_.push_back(std::move(item));
    }
  }
  changed_.NotifyAll();
}

void BoundaryEnd::Expect(uint32_t step, uint32_t microbatch,
                         std::vector<BoundarySample> samples,
                         bool is_evaluation, int64_t elements) {
  if (elements == 0) {
    elements = options_.shapes[0].rows * options_.shapes[0].columns;
  }
  {
    MutexLock lock(&mutex_);
    if (!is_evaluation && HasEnded(step, microbatch)) return;
    expected_.push_back(
        {false, step, microbatch, std::move(samples), is_evaluation, elements});
  }
  changed_.NotifyAll();
}

void BoundaryEnd::Announce(std::vector<uint64_t> keys) {
  if (options_.state_folder.empty()) return;
  Outgoing item;
  item.kind = Outgoing::Kind::kPrefetch;
  item.keys = std::move(keys);
  PushOutgoing(std::move(item));
}

void BoundaryEnd::CommitSent(uint32_t step) {
  Outgoing item;
  item.kind = Outgoing::Kind::kCommit;
  item.step = step;
  PushOutgoing(std::move(item));
}

void BoundaryEnd::CommitReceived(uint32_t step) {
  {
    MutexLock lock(&mutex_);
    expected_.push_back({true, step, 0, {}, false, 0});
  }
  changed_.NotifyAll();
}

void BoundaryEnd::EndStep(uint32_t step, uint32_t microbatch) {
  Outgoing item;
  item.kind = Outgoing::Kind::kEnd;
  item.step = step;
  item.microbatch = microbatch;
  PushOutgoing(std::move(item));
  MutexLock lock(&mutex_);
  expected_.erase(std::remove_if(expected_.begin(), expected_.end(),
                                 [&](const Incoming& expected) {
                                   return !expected.is_commit &&
                                          expected.step == step &&
                                          !expected.is_evaluation &&
                                          expected.microbatch >= microbatch;
                                 }),
                  expected_.end());
}

absl::StatusOr<BoundaryEnd::Arrival> BoundaryEnd::Await(uint32_t step,
                                                        uint32_t microbatch,
                                                        bool is_evaluation) {
  const TensorKey key = {{is_evaluation, step}, microbatch};
  MutexLock lock(&mutex_);
  const auto has_ended = [&]() {
    return !is_evaluation && HasEnded(step, microbatch);
  };
  const bool is_ready = changed_.WaitUntil(
      lock, Deadline::After(options_.max_wait),
      [&] { return !error_.ok() || decoded_.count(key) != 0 || has_ended(); });
  const auto found = decoded_.find(key);
  if (found != decoded_.end()) {
    Arrival arrival{std::move(found->second)};
    decoded_.erase(found);
    return arrival;
  }
  if (!error_.ok()) return error_;
  if (has_ended()) return Arrival{{}, /*has_ended=*/true};
  if (!is_ready) {
    return absl::DeadlineExceededError(absl::StrCat(
        "no tensor from ", options_.peer, " within ",
        std::chrono::duration_cast<std::chrono::seconds>(options_.max_wait)
            .count(),
        " s at ", Describe(step, microbatch)));
  }
  return absl::InternalError("the wait ended without a cause");
}

absl::Status BoundaryEnd::WaitForQueue(size_t count) {
  MutexLock lock(&mutex_);
  const bool is_ready =
      changed_.WaitUntil(lock, Deadline::After(options_.max_wait), [&] {
        return !error_.ok() ||
               outgoing_.size() + (is_sending_ ? 1 : 0) <= count;
      });
  if (!error_.ok()) return error_;
  if (is_ready) return absl::OkStatus();
  return absl::DeadlineExceededError(absl::StrCat(
      outgoing_.size(), " tensors still wait to be sent to ", options_.peer));
}

absl::StatusOr<BoundaryHashes> BoundaryEnd::AwaitHashes(uint32_t step) {
  MutexLock lock(&mutex_);
  const bool is_ready =
      changed_.WaitUntil(lock, Deadline::After(options_.max_wait), [&] {
        return !error_.ok() || (sent_hashes_.count(step) != 0 &&
                                received_hashes_.count(step) != 0);
      });
  if (!error_.ok()) return error_;
  if (!is_ready) {
    return absl::DeadlineExceededError(
        absl::StrCat("the state of step ", step, " was not committed in time"));
  }
  const BoundaryHashes hashes = {sent_hashes_[step], received_hashes_[step]};
  sent_hashes_.erase(sent_hashes_.begin(), sent_hashes_.upper_bound(step));
  received_hashes_.erase(received_hashes_.begin(),
                         received_hashes_.upper_bound(step));
  return hashes;
}

absl::StatusOr<BoundaryState> BoundaryEnd::TakeState() {
  // Evaluation may have left tensors that are just being sent.
  DP_RETURN_IF_ERROR(WaitForQueue(0));
  BoundaryState state;
  state.sent_codec = encoders_.text();
  state.received_codec = decoders_.text();
  if (encoder().state() != nullptr) {
    state.sent = TakeRecords(*encoder().state());
  }
  if (decoder().state() != nullptr) {
    state.received = TakeRecords(*decoder().state());
  }
  if (encoder().memory() != nullptr) {
    state.memory = encoder().memory()->Take();
  }
  return state;
}

absl::Status BoundaryEnd::PutState(const BoundaryState& state, uint32_t step,
                                   std::vector<std::string>* left_out) {
  const auto put = [&](const RecordSet& set, const std::string& former,
                       const std::string& codec, bool activations,
                       StateStore* store) -> absl::Status {
    if (!former.empty() && !KeepsAs(former, codec, activations)) {
      // The peer tells of what it sends.
      if (left_out != nullptr && activations == options_.is_upstream &&
          !set.records.empty()) {
        left_out->push_back(absl::StrCat(
            "boundary ", options_.boundary, ": what ", former, " kept of ",
            set.records.size(), activations ? " activations" : " gradients",
            " is left out, since ", codec, " does not keep it so"));
      }
      return absl::OkStatus();
    }
    if (store == nullptr) {
      if (set.records.empty()) return absl::OkStatus();
      return absl::InvalidArgumentError(
          absl::StrCat("boundary ", options_.boundary, ": ", set.records.size(),
                       " records for codec ", codec, ", which keeps none"));
    }
    DP_ASSIGN_OR_RETURN(
        const int64_t record_bytes,
        RecordBytes(codec, activations, encoders_.first().elements));
    return Annotate(PutRecords(set, record_bytes, step, store),
                    absl::StrCat("boundary ", options_.boundary));
  };
  DP_RETURN_IF_ERROR(put(state.sent, state.sent_codec, encoders_.text(),
                         options_.is_upstream, encoder().state()));
  DP_RETURN_IF_ERROR(put(state.received, state.received_codec, decoders_.text(),
                         !options_.is_upstream, decoder().state()));
  if (!state.sent_codec.empty() && state.sent_codec != encoders_.text()) {
    return absl::OkStatus();
  }
  if (encoder().memory() != nullptr) {
    encoder().memory()->Put(state.memory, step);
  } else if (state.memory != ChannelMemory::State()) {
    return absl::InvalidArgumentError(absl::StrCat(
        "boundary ", options_.boundary, ": something remembered for codec ",
        encoders_.text(), ", which remembers nothing"));
  }
  return absl::OkStatus();
}

absl::Status BoundaryEnd::SetCodecs(const std::string& activation_codec,
                                    const std::string& gradient_codec,
                                    uint32_t revision, uint32_t step) {
  DP_RETURN_IF_ERROR(WaitForQueue(0));
  BoundaryEndOptions changed = options_;
  changed.activation_codec = activation_codec;
  changed.gradient_codec = gradient_codec;
  DP_ASSIGN_OR_RETURN(EndCodecs codecs, MakeCodecs(changed));
  ShapedCodecs<BoundaryEncoder>& encoders = codecs.encoders;
  ShapedCodecs<BoundaryDecoder>& decoders = codecs.decoders;
  const bool sends_other = encoders.text() != encoders_.text();
  const bool receives_other = decoders.text() != decoders_.text();
  const auto carry = [&](const std::string& old_codec,
                         const std::string& new_codec, bool activations,
                         StateStore* from, StateStore* to) -> absl::Status {
    if (from == nullptr || to == nullptr) return absl::OkStatus();
    // Else every sample is new to it.
    if (!KeepsAs(old_codec, new_codec, activations)) return absl::OkStatus();
    DP_ASSIGN_OR_RETURN(
        const int64_t record_bytes,
        RecordBytes(new_codec, activations, encoders_.first().elements));
    return PutRecords(TakeRecords(*from), record_bytes, step, to);
  };
  if (sends_other) {
    DP_RETURN_IF_ERROR(carry(encoders_.text(), encoders.text(),
                             options_.is_upstream, encoder().state(),
                             encoders.first().coder->state()));
  }
  if (receives_other) {
    DP_RETURN_IF_ERROR(carry(decoders_.text(), decoders.text(),
                             !options_.is_upstream, decoder().state(),
                             decoders.first().coder->state()));
  }
  // Nothing fails from here on. The threads see it with their next item.
  MutexLock lock(&mutex_);
  if (sends_other) {
    sent_before_ = sent_before_ + encoders_.counters();
    encoders_ = std::move(encoders);
  }
  if (receives_other) {
    received_before_ = received_before_ + decoders_.counters();
    decoders_ = std::move(decoders);
  }
  tuning_revision_ = revision;
  return absl::OkStatus();
}

void BoundaryEnd::Cancel(const absl::Status& reason) { Fail(reason); }

void BoundaryEnd::Fail(const absl::Status& status) {
  {
    MutexLock lock(&mutex_);
    if (error_.ok()) error_ = status;
  }
  changed_.NotifyAll();
  channel_->Cancel(status);
}

absl::Status BoundaryEnd::error() const {
  MutexLock lock(&mutex_);
  return error_;
}

std::string BoundaryEnd::Describe(uint32_t step, uint32_t microbatch) const {
  // As people count steps; frames count them from 0.
  return absl::StrCat("boundary ", options_.boundary, ", step ", step + 1,
                      ", micro-batch ", microbatch);
}

void BoundaryEnd::SendLoop() {
  while (true) {
    Outgoing item;
    {
      MutexLock lock(&mutex_);
      changed_.Wait(lock, [&] { return !error_.ok() || !outgoing_.empty(); });
      if (!error_.ok()) return;
      item = std::move(outgoing_.front());
      outgoing_.pop_front();
      is_sending_ = true;
    }
    const uint32_t step = item.step;
    const uint32_t microbatch = item.microbatch;
    const absl::Status status =
        OrOutOfMemory([&] { return SendOne(std::move(item)); });
    {
      MutexLock lock(&mutex_);
      is_sending_ = false;
    }
    changed_.NotifyAll();
    if (!status.ok()) {
      Fail(Annotate(status, absl::StrCat("send to ", options_.peer, ", ",
                                         Describe(step, microbatch))));
      return;
    }
  }
}

absl::StatusOr<const ShapedCodecs<BoundaryEncoder>::Entry*>
BoundaryEnd::EncoderOf(const Outgoing& item) const {
  if (item.kind != Outgoing::Kind::kTensor || item.samples.empty()) {
    return &encoders_.first();
  }
  const size_t num_values = item.tensor.values.size();
  const size_t num_samples = item.samples.size();
  const auto* const entry =
      num_values % num_samples == 0
          ? encoders_.Find(static_cast<int64_t>(num_values / num_samples))
          : nullptr;
  if (entry != nullptr) return entry;
  return absl::InvalidArgumentError(absl::StrCat(
      "a tensor of ", num_values, " values for ", num_samples,
      " samples, expected ", encoders_.KnownElements(), " for each"));
}

absl::Status BoundaryEnd::SendOne(Outgoing item) {
  DP_ASSIGN_OR_RETURN(const auto* const codec, EncoderOf(item));
  FrameHeader header;
  header.kind = outgoing_kind_;
  header.direction = options_.is_upstream ? 0 : 1;
  header.generation = options_.generation;
  header.plan_revision = options_.plan_revision;
  header.tuning_revision = tuning_revision_;
  header.step = item.step;
  header.microbatch = item.microbatch;
  header.boundary = static_cast<uint32_t>(options_.boundary);
  header.codec_hash = codec->codec_hash;
  header.num_rows = static_cast<uint32_t>(item.samples.size());
  header.row_elements = static_cast<uint32_t>(codec->elements);
  Buffer& body = send_body_;
  std::chrono::steady_clock::time_point encode_begin;
  switch (item.kind) {
    case Outgoing::Kind::kCommit: {
      encoders_.CommitStep(item.step);
      const uint64_t hash = encoder().StateHash();
      MutexLock lock(&mutex_);
      sent_hashes_[item.step] = hash;
      sent_state_bytes_ = encoder().StateBytes();
      return absl::OkStatus();
    }
    case Outgoing::Kind::kPrefetch:
      encoder().Prefetch(item.keys);
      return absl::OkStatus();
    case Outgoing::Kind::kEnd:
      header.flags |= kFrameEnd;
      return channel_->Send(header, {}, Deadline::After(options_.max_wait));
    case Outgoing::Kind::kKeyframeRequest:
      header.kind = FrameKind::kKeyframeRequest;
      return channel_->Send(header, {AsBytes(item.keys)},
                            Deadline::After(options_.max_wait));
    case Outgoing::Kind::kKeyframes:
      header.kind = FrameKind::kKeyframe;
      DP_RETURN_IF_ERROR(encoder().EncodeKeyframes(item.keys, &body));
      break;
    case Outgoing::Kind::kTensor:
      if (item.is_evaluation) header.flags |= kFrameEvaluation;
      encode_begin = std::chrono::steady_clock::now();
      DP_RETURN_IF_ERROR(codec->coder->Encode(item.step, item.samples,
                                              item.tensor.values,
                                              item.is_evaluation, &body));
      item.tensor = TensorRef();
      break;
  }
  const auto send_begin = std::chrono::steady_clock::now();
  DP_RETURN_IF_ERROR(channel_->Send(header, {body.span()},
                                    Deadline::After(options_.max_wait)));
  const double send_seconds = SecondsFrom(send_begin);
  MutexLock lock(&mutex_);
  counters_.sent = sent_before_ + encoders_.counters();
  if (item.is_evaluation) {
    counters_.evaluation_wire_bytes += body.size() + kFrameHeaderBytes;
  } else {
    counters_.send_wait_seconds += send_seconds;
    if (item.kind == Outgoing::Kind::kTensor) {
      counters_.encode_seconds +=
          std::chrono::duration<double>(send_begin - encode_begin).count();
    }
  }
  return absl::OkStatus();
}

void BoundaryEnd::RouteLoop() {
  while (error().ok()) {
    absl::StatusOr<Frame> frame = channel_->Receive(Deadline::Infinite());
    const absl::Status status =
        frame.ok() ? Route(*std::move(frame)) : frame.status();
    if (!status.ok()) {
      Fail(Annotate(status, absl::StrCat("receive from ", options_.peer,
                                         ", boundary ", options_.boundary)));
      return;
    }
  }
}

absl::Status BoundaryEnd::Route(Frame frame) {
  switch (frame.header.kind) {
    case FrameKind::kKeyframeRequest: {
      Outgoing item;
      item.kind = Outgoing::Kind::kKeyframes;
      item.step = frame.header.step;
      item.microbatch = frame.header.microbatch;
      const ByteSpan payload = frame.payload();
      if (payload.empty() || payload.size() % 8 != 0) {
        return absl::DataLossError(
            absl::StrCat("a keyframe request of ", payload.size(),
                         " bytes, expected a multiple of 8"));
      }
      item.keys.resize(payload.size() / 8);
      std::memcpy(item.keys.data(), payload.data(), payload.size());
      PushOutgoing(std::move(item));
      return absl::OkStatus();
    }
    case FrameKind::kKeyframe: {
      MutexLock lock(&mutex_);
      keyframes_.push_back(std::move(frame));
      break;
    }
    default: {
      if (frame.header.kind != incoming_kind_) {
        return absl::DataLossError(absl::StrCat(
            "a frame that does not belong here: ", frame.header.ToString()));
      }
      MutexLock lock(&mutex_);
      data_frames_.push_back(std::move(frame));
      break;
    }
  }
  changed_.NotifyAll();
  return absl::OkStatus();
}

void BoundaryEnd::DecodeLoop() {
  while (true) {
    Incoming item;
    std::vector<uint64_t> next_keys;
    Frame frame;
    {
      MutexLock lock(&mutex_);
      // An expectation stays where it can be withdrawn until its frame is here.
      // No deadline: the compute thread's Await has it, and cancels.
      changed_.Wait(lock, [&] {
        return !error_.ok() ||
               (!expected_.empty() &&
                (expected_.front().is_commit || !data_frames_.empty()));
      });
      if (!error_.ok()) return;
      item = std::move(expected_.front());
      expected_.pop_front();
      if (!item.is_commit) {
        frame = std::move(data_frames_.front());
        data_frames_.pop_front();
      }
      if (!options_.state_folder.empty() && !expected_.empty()) {
        for (const BoundarySample& sample : expected_.front().samples) {
          next_keys.push_back(sample.key);
        }
      }
    }
    // While this one is decoded.
    decoder().Prefetch(next_keys);
    const absl::Status status =
        OrOutOfMemory([&] { return DecodeOne(item, std::move(frame)); });
    if (!status.ok()) {
      Fail(
          Annotate(status, absl::StrCat("decode from ", options_.peer, ", ",
                                        Describe(item.step, item.microbatch))));
      return;
    }
    changed_.NotifyAll();
  }
}

void BoundaryEnd::TakeEnd(uint32_t step, uint32_t microbatch) {
  MutexLock lock(&mutex_);
  ended_ = {step, microbatch};
  while (!expected_.empty() && !expected_.front().is_commit &&
         expected_.front().step == step) {
    expected_.pop_front();
  }
}

absl::StatusOr<Frame> BoundaryEnd::NextKeyframe() {
  MutexLock lock(&mutex_);
  // No deadline, as for data.
  changed_.Wait(lock, [&] { return !error_.ok() || !keyframes_.empty(); });
  if (!error_.ok()) return error_;
  Frame frame = std::move(keyframes_.front());
  keyframes_.pop_front();
  return frame;
}

absl::Status BoundaryEnd::CheckHeader(const FrameHeader& header,
                                      const Incoming& item) const {
  const bool is_end = (header.flags & kFrameEnd) != 0;
  // The end of a step is sent with the first shape's, whichever comes not.
  const int64_t elements = is_end ? decoders_.first().elements : item.elements;
  const auto* const codec = decoders_.Find(elements);
  if (header.step == item.step && header.microbatch == item.microbatch &&
      header.boundary == static_cast<uint32_t>(options_.boundary) &&
      header.plan_revision == options_.plan_revision &&
      header.tuning_revision == tuning_revision_ && codec != nullptr &&
      header.codec_hash == codec->codec_hash &&
      header.num_rows == (is_end ? 0 : item.samples.size()) &&
      !(is_end && (options_.is_upstream || item.is_evaluation)) &&
      header.row_elements == elements &&
      ((header.flags & kFrameEvaluation) != 0) == item.is_evaluation) {
    return absl::OkStatus();
  }
  return absl::DataLossError(absl::StrCat(
      "got ", header.ToString(), " of ", header.num_rows, " x ",
      header.row_elements, " elements, expected step ", item.step + 1,
      ", micro-batch ", item.microbatch, " of ", item.samples.size(), " x ",
      elements, " in ", decoders_.text(), ", plan ", options_.plan_revision,
      ", tuning ", tuning_revision_,
      ": both workers must run the same plan, and it has plan ",
      header.plan_revision, ", tuning ", header.tuning_revision));
}

absl::Status BoundaryEnd::DecodeOne(const Incoming& item, Frame frame) {
  if (item.is_commit) {
    decoders_.CommitStep(item.step);
    const uint64_t hash = decoder().StateHash();
    MutexLock lock(&mutex_);
    received_hashes_[item.step] = hash;
    counters_.received = received_before_ + decoders_.counters();
    received_state_bytes_ = decoder().StateBytes();
    return absl::OkStatus();
  }
  DP_RETURN_IF_ERROR(CheckHeader(frame.header, item));
  if ((frame.header.flags & kFrameEnd) != 0) {
    TakeEnd(item.step, item.microbatch);
    return absl::OkStatus();
  }
  // The header's check has found it.
  BoundaryDecoder& decoder = *decoders_.Find(item.elements)->coder;
  auto values = std::make_shared<Buffer>(
      static_cast<int64_t>(item.samples.size() * sizeof(float)) *
      item.elements);
  const absl::Span<float> floats(
      reinterpret_cast<float*>(values->data()),
      static_cast<size_t>(values->size()) / sizeof(float));
  const auto begin = std::chrono::steady_clock::now();
  std::vector<uint64_t> missing;
  DP_RETURN_IF_ERROR(decoder.Decode(item.step, item.samples, frame.payload(),
                                    item.is_evaluation, floats, &missing));
  double seconds = SecondsFrom(begin);
  if (!missing.empty()) {
    Outgoing request;
    request.kind = Outgoing::Kind::kKeyframeRequest;
    request.step = item.step;
    request.microbatch = item.microbatch;
    request.keys = missing;
    {
      MutexLock lock(&mutex_);
      counters_.keyframes_requested += static_cast<int64_t>(missing.size());
    }
    PushOutgoing(std::move(request));
    DP_ASSIGN_OR_RETURN(const Frame answer, NextKeyframe());
    const auto again = std::chrono::steady_clock::now();
    DP_RETURN_IF_ERROR(decoder.ApplyKeyframes(
        item.step, item.samples, frame.payload(), answer.payload(), floats));
    seconds += SecondsFrom(again);
  }
  TensorRef tensor{floats, values, nullptr};
  if (!item.is_evaluation) {
    if (const auto held = decoder.Hold(item.samples)) {
      tensor.read_again = [held](absl::Span<float> again) {
        return held->Read(again);
      };
    }
  }
  MutexLock lock(&mutex_);
  if (!item.is_evaluation) counters_.decode_seconds += seconds;
  decoded_[{{item.is_evaluation, item.step}, item.microbatch}] =
      std::move(tensor);
  return absl::OkStatus();
}

BoundaryEnd::Counters BoundaryEnd::counters() const {
  MutexLock lock(&mutex_);
  Counters counters = counters_;
  const ChannelCounters channel = channel_->channel_counters();
  counters.wire_bytes = channel.bytes_sent;
  counters.busy_seconds = channel.busy_seconds;
  counters.round_trip_seconds = channel.round_trip_seconds;
  counters.frames = channel_->counters();
  counters.state_bytes = sent_state_bytes_ + received_state_bytes_;
  return counters;
}

}  // namespace deltapipe
