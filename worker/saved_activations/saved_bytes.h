// What the saved tensors of a stage take, and how they are kept.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_BYTES_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_BYTES_H_

#include <algorithm>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace deltapipe {

/// Sums over tensors, since a stash was made or its report taken.
struct SavedBytes {
  /// Tensors that autograd saved, and those of them that share what was kept
  /// for another.
  int64_t num_tensors = 0;
  int64_t num_shared = 0;
  /// Of non-finite values, and so kept as they are.
  int64_t num_not_finite = 0;
  /// As if each save were a copy; each element once; what is kept of it, packed
  /// and as it is; what keeping track of it takes.
  int64_t raw = 0;
  int64_t unique = 0;
  int64_t packed = 0;
  int64_t passed = 0;
  /// What was packed to host memory, beside `packed`, which is where the
  /// tensors are, and the most of it that was alive at a time.
  int64_t offloaded = 0;
  int64_t offloaded_peak = 0;
  int64_t metadata = 0;
  /// The largest that was alive at a time (packed, passed and metadata, and
  /// what layers that are just computed again save), the most of these layers
  /// alone, and the largest scratch memory of packing or unpacking one tensor.
  int64_t live_peak = 0;
  int64_t recomputed_peak = 0;
  int64_t scratch_peak = 0;

  void Add(const SavedBytes& other) {
    num_tensors += other.num_tensors;
    num_shared += other.num_shared;
    num_not_finite += other.num_not_finite;
    raw += other.raw;
    unique += other.unique;
    packed += other.packed;
    passed += other.passed;
    offloaded += other.offloaded;
    metadata += other.metadata;
    offloaded_peak = std::max(offloaded_peak, other.offloaded_peak);
    live_peak = std::max(live_peak, other.live_peak);
    recomputed_peak = std::max(recomputed_peak, other.recomputed_peak);
    scratch_peak = std::max(scratch_peak, other.scratch_peak);
  }
};

/// A layer's input, in a pass that keeps everything as it is.
struct LayerInput {
  std::string layer;
  int64_t bytes = 0;
  /// By the layer itself, and by none before it.
  bool is_saved = false;
};

/// What probes found.
struct SavedFindings {
  struct Error {
    std::string op;
    /// ||g' - g|| / ||g|| of the stage's parameters, where the tensors of `op`
    /// are packed and all others kept as they are.
    double relative_error = 0;
  };
  std::vector<Error> errors;
  std::vector<std::string> changes;
};

/// One saved tensor of one forward pass, for people.
struct SavedTensorReport {
  std::string name;
  std::string layer;
  std::string op;
  std::vector<int64_t> shape;  // as in memory, the slowest extent first
  std::string dtype;
  std::string tensor_class;
  /// The treatment's, or why it is kept as it is.
  std::string reason;
  /// Saves beyond the first that share it.
  int num_aliases = 0;
  int64_t raw_bytes = 0;     // each element once
  int64_t stored_bytes = 0;  // 0 of what is held anyway (weights)
  int64_t host_bytes = 0;    // of what was offloaded
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_SAVED_BYTES_H_
