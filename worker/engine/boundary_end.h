// BoundaryEnd: one worker's end of the boundary to a neighbouring stage.
//
// The compute thread hands tensors out (Send) and takes tensors in (Expect,
// then Await); encoding, sending, receiving and decoding happen on this
// object's own threads and overlap with compute. Each direction has its codec;
// where it is a delta, this end holds half of a replicated state machine, and a
// record that is missing or stale is asked for as a keyframe.
//
// Thread rule: the public methods are called by one thread, Cancel by any,
// AwaitHashes by one that may be another.
// After an error every call returns it; it names the peer, the step and the
// micro-batch.
#ifndef DELTAPIPE_WORKER_ENGINE_BOUNDARY_END_H_
#define DELTAPIPE_WORKER_ENGINE_BOUNDARY_END_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "base/buffer.h"
#include "base/deadline.h"
#include "base/image_model.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "compression/delta/boundary_codec.h"
#include "compression/delta/record_set.h"
#include "worker/engine/shaped_codecs.h"
#include "worker/stage/stage.h"
#include "worker/transport/frame_channel.h"

namespace deltapipe {

struct BoundaryEndOptions {
  int boundary = 0;          // between stages boundary and boundary + 1
  bool is_upstream = false;  // this worker has stage `boundary`
  std::string peer;          // "worker-3 (stage 1, replica 0)"
  /// Of one sample's tensor; extents that codecs leave open are filled in. More
  /// than one where image sizes are mixed: the first is that of evaluation, and
  /// codecs remember nothing (shaped_codecs.h).
  std::vector<BoundaryShape> shapes;
  std::string activation_codec;
  std::string gradient_codec;
  uint64_t seed = 0;
  uint64_t generation = 1;
  uint32_t plan_revision = 1;
  uint32_t tuning_revision = 0;
  int64_t state_capacity_bytes = INT64_MAX;
  std::string state_folder;  // of BoundaryOptions
  /// The longest wait for a frame that has been expected.
  std::chrono::nanoseconds max_wait = std::chrono::seconds(60);
};

/// The state of both directions after a committed step.
struct BoundaryHashes {
  uint64_t sent = 0;      // of what this end encodes
  uint64_t received = 0;  // of what this end decodes
};

class BoundaryEnd {
 public:
  static absl::StatusOr<std::unique_ptr<BoundaryEnd>> Create(
      const BoundaryEndOptions& options, std::unique_ptr<FrameChannel> channel);
  ~BoundaryEnd();

  /// Queues a tensor for the peer, of one of the shapes; it is held until it
  /// has been encoded.
  void Send(uint32_t step, uint32_t microbatch,
            std::vector<BoundarySample> samples, TensorRef tensor,
            bool is_evaluation);
  /// Says which samples the next tensors sent are of, so that their records can
  /// be fetched from a disk meanwhile.
  void Announce(std::vector<uint64_t> keys);
  /// Announces the next tensor of the peer, which has `elements` per sample (0:
  /// those of the first shape). Tensors come in this order.
  void Expect(uint32_t step, uint32_t microbatch,
              std::vector<BoundarySample> samples, bool is_evaluation,
              int64_t elements = 0);
  struct Arrival {
    TensorRef tensor;
    /// The peer has ended the step before this micro-batch: no tensor comes.
    bool has_ended = false;
  };
  /// The tensor that was expected; each is taken once.
  absl::StatusOr<Arrival> Await(uint32_t step, uint32_t microbatch,
                                bool is_evaluation);
  /// Upstream: ends the step before this micro-batch (END(k)): in its place,
  /// and that of all later ones, no activation comes, and no gradient is
  /// expected.
  void EndStep(uint32_t step, uint32_t microbatch);
  /// Waits until at most `count` tensors wait to be sent.
  absl::Status WaitForQueue(size_t count);
  /// Makes the state of `step` permanent, after what was queued before.
  void CommitStep(uint32_t step) {
    CommitSent(step);
    CommitReceived(step);
  }
  /// The same for one direction each, where the next step begins before this
  /// one has ended: after the last Send, or Expect, of the step in it.
  void CommitSent(uint32_t step);
  void CommitReceived(uint32_t step);
  /// The hashes after the commits of `step`, once both directions are there.
  absl::StatusOr<BoundaryHashes> AwaitHashes(uint32_t step);

  void Cancel(const absl::Status& reason);

  // Between two steps only: after AwaitHashes, before the next Send or Expect.

  /// Counts records and copies none.
  absl::StatusOr<BoundaryState> TakeState();
  /// Before the first step: goes on as an end that had committed `step`. Of
  /// what other codecs kept it takes what SetCodecs would; adds to `left_out`
  /// (which may be null) what it forgets of the direction that it sends, a
  /// sentence. INVALID_ARGUMENT if records are of another size.
  absl::Status PutState(const BoundaryState& state, uint32_t step,
                        std::vector<std::string>* left_out);
  /// Changes the codecs from the next step on, at both ends. Records and
  /// residuals are kept where the other codec keeps them in the same form, and
  /// forgotten otherwise. `step` is the last one done. INVALID_ARGUMENT leaves
  /// all as it was.
  absl::Status SetCodecs(const std::string& activation_codec,
                         const std::string& gradient_codec, uint32_t revision,
                         uint32_t step);
  /// The records that arriving deltas are added to; null without a delta.
  StateStore* received_records() { return decoder().state(); }

  struct Counters {
    BoundaryCounters sent;
    BoundaryCounters received;
    int64_t wire_bytes = 0;             // sent through the socket
    int64_t evaluation_wire_bytes = 0;  // of them, for evaluation
    int64_t keyframes_requested = 0;
    int64_t state_bytes = 0;  // of both directions
    double busy_seconds = 0;  // for which the link was busy with what is sent
    double round_trip_seconds = 0;  // 0: not known
    // Of training, by the threads of this object: of codecs, and until the
    // channel had taken what was encoded.
    double encode_seconds = 0;
    double decode_seconds = 0;
    double send_wait_seconds = 0;
    FrameCounters frames;
  };
  Counters counters() const;
  /// Between two steps only, as above.
  const std::string& outgoing_codec() const { return encoders_.text(); }

 private:
  struct Outgoing {
    enum class Kind {
      kTensor,
      kEnd,
      kCommit,
      kPrefetch,
      kKeyframeRequest,
      kKeyframes
    } kind;
    uint32_t step = 0;
    uint32_t microbatch = 0;
    std::vector<BoundarySample> samples;
    TensorRef tensor;
    bool is_evaluation = false;
    std::vector<uint64_t> keys;
  };
  struct Incoming {
    bool is_commit = false;
    uint32_t step = 0;
    uint32_t microbatch = 0;
    std::vector<BoundarySample> samples;
    bool is_evaluation = false;
    int64_t elements = 0;  // per sample
  };
  using TensorKey = std::pair<std::pair<bool, uint32_t>, uint32_t>;

  BoundaryEnd(const BoundaryEndOptions& options,
              std::unique_ptr<FrameChannel> channel,
              ShapedCodecs<BoundaryEncoder> encoders,
              ShapedCodecs<BoundaryDecoder> decoders);

  // Those that may keep state, of the first shape.
  BoundaryEncoder& encoder() const { return *encoders_.first().coder; }
  BoundaryDecoder& decoder() const { return *decoders_.first().coder; }

  void Fail(const absl::Status& status);
  absl::Status error() const;
  std::string Describe(uint32_t step, uint32_t microbatch) const;

  void SendLoop();
  absl::Status SendOne(Outgoing item);
  /// The codec for the tensor of `item`, and of the first shape for others.
  absl::StatusOr<const ShapedCodecs<BoundaryEncoder>::Entry*> EncoderOf(
      const Outgoing& item) const;
  void RouteLoop();
  absl::Status Route(Frame frame);
  void DecodeLoop();
  absl::Status DecodeOne(const Incoming& item, Frame frame);
  void TakeEnd(uint32_t step, uint32_t microbatch);
  /// Whether the peer has ended the step before this micro-batch.
  bool HasEnded(uint32_t step, uint32_t microbatch) const DP_REQUIRES(mutex_) {
    return ended_.has_value() && ended_->first == step &&
           microbatch >= ended_->second;
  }
  absl::StatusOr<Frame> NextKeyframe();
  absl::Status CheckHeader(const FrameHeader& header,
                           const Incoming& item) const;
  void PushOutgoing(Outgoing item);

  const BoundaryEndOptions options_;
  const FrameKind outgoing_kind_;
  const FrameKind incoming_kind_;
  const std::unique_ptr<FrameChannel> channel_;
  // Changed between steps, when both threads are idle.
  uint32_t tuning_revision_;
  ShapedCodecs<BoundaryEncoder> encoders_;  // send thread
  Buffer send_body_;                        // send thread; keeps its memory
  ShapedCodecs<BoundaryDecoder> decoders_;  // decode thread
  BoundaryCounters sent_before_;            // of former codecs
  BoundaryCounters received_before_;

  mutable Mutex mutex_;
  CondVar changed_;
  absl::Status error_ DP_GUARDED_BY(mutex_);
  std::deque<Outgoing> outgoing_ DP_GUARDED_BY(mutex_);
  bool is_sending_ DP_GUARDED_BY(mutex_) = false;
  std::deque<Incoming> expected_ DP_GUARDED_BY(mutex_);
  std::deque<Frame> data_frames_ DP_GUARDED_BY(mutex_);
  std::deque<Frame> keyframes_ DP_GUARDED_BY(mutex_);
  std::map<TensorKey, TensorRef> decoded_ DP_GUARDED_BY(mutex_);
  // The last step that the peer has ended, and before which micro-batch.
  std::optional<std::pair<uint32_t, uint32_t>> ended_ DP_GUARDED_BY(mutex_);
  std::map<uint32_t, uint64_t> sent_hashes_ DP_GUARDED_BY(mutex_);
  std::map<uint32_t, uint64_t> received_hashes_ DP_GUARDED_BY(mutex_);
  Counters counters_ DP_GUARDED_BY(mutex_);
  int64_t sent_state_bytes_ DP_GUARDED_BY(mutex_) = 0;
  int64_t received_state_bytes_ DP_GUARDED_BY(mutex_) = 0;

  Thread send_thread_;
  Thread route_thread_;
  Thread decode_thread_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_ENGINE_BOUNDARY_END_H_
