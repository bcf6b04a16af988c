// CompressionVerdict: whether compressing what replicas synchronise is faster
// than sending it in bf16, from what the links and kernels were measured to do.
//
// A transaction in two phases (gradient_sync.h) sends 2 (n - 1) / n of the
// elements per rank, in two messages to each peer one after the other, so that
//
//   seconds = 2 latency + 2 (n - 1) / n * elements * bits / 8 / rate + kernels;
//
// a ring in fp32 has 2 (n - 1) messages in turn and no kernels to speak of. Of
// that, the backward pass beside which a transaction goes on hides all but its
// last bucket; what is left holds up the step. The slowest rank of a group
// holds all of them up: each forecast is the largest of its ranks. What skew
// between ranks adds, it adds to all formats alike.
//
// Rounding to one bit costs accuracy, and has to bring something for it. The
// verdict goes to bf16 when the step would be no more than a hundredth longer
// with it, and back when bf16 makes it longer by `margin`, each once it was
// forecast `num_checks` times in a row; each change doubles how many checks it
// takes for the next: over N checks there are at most log2(N) changes. An
// observation that says nothing (nothing was sent, or the link tells no times)
// counts neither way.
//
// Pure. Not thread-safe.
//
//   const std::string change =
//       verdict.Update(ForecastSync(shape, observations_of_all_ranks));
//   if (!change.empty()) {
//     ... cast(bf16) or the codec: compresses() ...
//   }
#ifndef DELTAPIPE_COORDINATOR_TUNING_COMPRESSION_VERDICT_H_
#define DELTAPIPE_COORDINATOR_TUNING_COMPRESSION_VERDICT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace deltapipe {

struct SyncShape {
  int64_t num_elements = 0;
  int num_ranks = 1;
  /// Of the compressed form, scales included.
  double compressed_bits = 1;
};

/// Of one rank, means over some transactions of any format.
struct SyncObservation {
  double sent_bytes = 0;
  /// For which the link that was longest busy carried bytes; no latencies.
  double wire_seconds = 0;
  /// One way, of a message without content.
  double latency_seconds = 0;
  /// Encoding, decoding and averaging of one transaction in each format.
  double compressed_kernel_seconds = 0;
  double bf16_kernel_seconds = 0;
  /// For which the backward pass goes on beside the transaction, and the
  /// buckets of it.
  double early_seconds = 0;
  int num_buckets = 1;
};

struct SyncForecast {
  // Of one transaction.
  double compressed_seconds = 0;
  double bf16_seconds = 0;
  double fp32_seconds = 0;
  // Of these, for which the step waits.
  double compressed_exposed_seconds = 0;
  double bf16_exposed_seconds = 0;
  /// From one transaction to the next; 0 if it is not known. ForecastSync
  /// leaves it to its caller.
  double step_seconds = 0;
  // Of the rank that is slowest when it compresses, for people.
  double early_seconds = 0;
  double bytes_per_second = 0;
  double latency_seconds = 0;
  double compressed_kernel_seconds = 0;
};

/// Empty if a rank has sent nothing, a link tells no times, there is one rank
/// only, or a number is negative or not finite.
std::optional<SyncForecast> ForecastSync(
    const SyncShape& shape, absl::Span<const SyncObservation> by_rank);

struct CompressionVerdictOptions {
  /// Whether the job compresses now.
  bool compresses = true;
  /// By which share bf16 must make a step longer to be left again.
  double margin = 0.05;
  int num_checks = 3;
};

class CompressionVerdict {
 public:
  /// INVALID_ARGUMENT if margin is not in [0, 10] or num_checks below 1.
  static absl::StatusOr<CompressionVerdict> Create(
      const CompressionVerdictOptions& options = {});

  bool compresses() const { return compresses_; }

  /// Whether a step that compresses is shorter by more than a hundredth.
  static bool Helps(const SyncForecast& forecast);

  /// Takes another forecast. Returns a sentence with figures and reason if the
  /// verdict changes, else "".
  std::string Update(const std::optional<SyncForecast>& forecast);

 private:
  explicit CompressionVerdict(const CompressionVerdictOptions& options)
      : margin_(options.margin),
        num_needed_(options.num_checks),
        compresses_(options.compresses) {}

  double margin_;
  int64_t num_needed_;
  int64_t num_in_a_row_ = 0;
  bool compresses_;
};

/// "gradients take 12 ms a step, 80 ms in bf16 and 155 ms in fp32, of which the
/// backward pass hides up to 60 ms, at 100 Mbit/s with 1 ms a message and 4 ms
/// of encoding and decoding".
std::string ForecastText(const SyncForecast& forecast);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_TUNING_COMPRESSION_VERDICT_H_
