// GradientMeter: what the bits of a saved tensor are decided by.
//
// Notes the squared ranges of tensors as they are saved, and the gradients that
// come into the nodes that read them in the backward pass: the variance that a
// rounded tensor adds to the gradient of a weight is proportional to both
// (ActNN, arXiv 2104.14129, section 4). Hooks on all nodes of a graph, so it is
// used for single passes.
//
//   GradientMeter meter;
//   stash.SetMeter(&meter);  ... forward ...  meter.Watch(graph's root);
//   ... backward ...  stash.SetMeter(nullptr);
//   meter.Take();
//
// One thread: on the CPU autograd runs on the thread that calls it.
#ifndef DELTAPIPE_WORKER_SAVED_ACTIVATIONS_GRADIENT_METER_H_
#define DELTAPIPE_WORKER_SAVED_ACTIVATIONS_GRADIENT_METER_H_

#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "compression/bit_plan/saved_policy.h"
#include "torch/csrc/autograd/edge.h"
#include "torch/csrc/autograd/function.h"

namespace deltapipe {

class GradientMeter {
 public:
  /// A tensor that may be packed was saved; `values` in their order in memory.
  void NoteSaved(const SavedTensor& tensor, absl::Span<const float> values);
  /// The node that runs now reads it.
  void NoteRead(const std::string& name);
  /// Watches all nodes from here on down.
  void Watch(const torch::autograd::Edge& root);

  /// In the order of their saves. What no node read has no gradient (NaN).
  std::vector<SavedMeasurement> Take();

 private:
  friend class GradientWatch;
  /// What a convolution's node knows; else 0.
  struct NodeFacts {
    double taps = 0;  // of the kernel, over groups
    int64_t channels = 0;
  };
  static NodeFacts FactsOf(const torch::autograd::Node& node);
  struct Incoming {
    std::string node;
    double squares = 0;
    double mean_abs = 0;
    int64_t elements = 0;
    // Of the first extent, which is that of samples or rows; empty where there
    // is more than one gradient.
    std::vector<double> row_squares;
    NodeFacts facts;
  };

  Incoming current_;
  std::vector<SavedMeasurement> measurements_;
  // Of each, their parts of range_squares by the first extent.
  std::vector<std::vector<double>> row_ranges_;
  std::map<std::string, size_t> by_name_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_SAVED_ACTIVATIONS_GRADIENT_METER_H_
