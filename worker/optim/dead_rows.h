// DeadRows: the rows of a stage's tensors that never had a gradient, found from
// the variance, and how they come to life.
//
// One bit per element cannot say zero: a row without a gradient (of an
// embedding, for a token that the data lacks) would get a step of full size in
// every compressed step, and error feedback would never stop to owe. A
// compressing optimizer therefore marks, when its variance freezes, each row
// whose variance is all zero; marked rows are excluded from synchronisation and
// update, so that their weights stay as they are, to the bit, without weight
// decay too. A row is a slice of the first dimension of a tensor with two or
// more, and any other tensor as a whole.
//
// A row wakes when some rank brings a value other than zero: it is live from
// the next step on (what was brought, the synchronisation keeps as residual).
// Its momentum is then zero and its variance, of which nothing is known, the
// mean over the live elements of its tensor; over those of all tensors, if its
// own has none; or 1.
#ifndef DELTAPIPE_WORKER_OPTIM_DEAD_ROWS_H_
#define DELTAPIPE_WORKER_OPTIM_DEAD_ROWS_H_

#include <cstdint>
#include <vector>

#include "absl/types/span.h"
#include "worker/optim/optimizer.h"
#include "worker/optim/parameter_layout.h"

namespace deltapipe {

template <typename Real>
class DeadRows {
 public:
  /// No row is dead.
  explicit DeadRows(const ParameterLayout& layout);

  /// Marks the rows whose variance is all zero, and those alone.
  void Find(absl::Span<const Real> variance);
  void Clear();

  /// One range a dead row, in order.
  absl::Span<const ElementRange> excluded() const { return excluded_; }
  /// What is left of a segment, as few ranges as that takes, in order.
  absl::Span<const ElementRange> live(size_t segment_index) const;
  int64_t num_live_elements(size_t segment_index) const;

  /// One flag for each of excluded(); kept until Join or Forget.
  void SetWoken(absl::Span<const uint8_t> is_woken);
  void Forget() { woken_.clear(); }
  struct JoinedRow {
    size_t segment_index = 0;
    ElementRange range;
    bool was_tensor_dead = false;
  };
  /// Makes the woken rows live, sets their part of both vectors and returns
  /// them.
  std::vector<JoinedRow> Join(absl::Span<Real> momentum,
                              absl::Span<Real> variance);

  /// For checkpoints: one value a row, 1 if dead. After it was replaced,
  /// Rebuild.
  std::vector<Real>* flags() { return &flags_; }
  void Rebuild();

 private:
  struct Row {
    size_t segment_index;
    ElementRange range;
  };
  Real MeanVariance(size_t begin_segment, size_t end_segment,
                    absl::Span<const Real> variance) const;

  const size_t num_segments_;
  std::vector<Row> rows_;
  std::vector<Real> flags_;
  std::vector<ElementRange> excluded_;
  std::vector<size_t> excluded_rows_;  // of each range, its row
  std::vector<ElementRange> live_;
  std::vector<size_t> live_begin_;  // of each segment, in live_; and the end
  std::vector<uint8_t> woken_;
};

extern template class DeadRows<float>;
extern template class DeadRows<double>;

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_OPTIM_DEAD_ROWS_H_
