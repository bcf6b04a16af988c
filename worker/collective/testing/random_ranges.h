// Ranges of vectors, and what vectors hold there, drawn for tests.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TESTING_RANDOM_RANGES_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TESTING_RANDOM_RANGES_H_

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

#include "worker/optim/parameter_layout.h"

namespace deltapipe {

/// Cuts [0, num_elements) at random places and shuffles the pieces.
inline std::vector<ElementRange> RandomOrder(int64_t num_elements,
                                             std::mt19937_64* random) {
  std::vector<ElementRange> order;
  for (int64_t begin = 0; begin < num_elements;) {
    const int64_t size = 1 + static_cast<int64_t>((*random)() % 300);
    order.push_back({begin, std::min(begin + size, num_elements)});
    begin = order.back().end;
  }
  std::shuffle(order.begin(), order.end(), *random);
  return order;
}

/// The vector's indices in this order.
inline std::vector<size_t> Indices(const std::vector<ElementRange>& order) {
  std::vector<size_t> indices;
  for (const ElementRange& range : order) {
    for (int64_t i = range.begin; i < range.end; ++i) {
      indices.push_back(static_cast<size_t>(i));
    }
  }
  return indices;
}

/// Sorted and disjoint, of up to 40 elements.
inline std::vector<ElementRange> RandomRows(int64_t num_elements,
                                            std::mt19937_64* random) {
  std::vector<ElementRange> rows;
  int64_t at = 0;
  while (true) {
    at += static_cast<int64_t>((*random)() % 200);
    const int64_t end = at + 1 + static_cast<int64_t>((*random)() % 40);
    if (end > num_elements) return rows;
    rows.push_back({at, end});
    at = end;
  }
}

/// Clears `rows` in the vectors of all ranks, but for one value of one rank in
/// some of them: those whose flag in the result is 1.
inline std::vector<uint8_t> WakeSomeRows(
    const std::vector<ElementRange>& rows,
    std::vector<std::vector<float>>* values, std::mt19937_64* random) {
  std::vector<uint8_t> is_woken(rows.size());
  for (size_t row = 0; row < rows.size(); ++row) {
    for (std::vector<float>& vector : *values) {
      std::fill(vector.begin() + rows[row].begin,
                vector.begin() + rows[row].end, 0.0f);
    }
    if ((*random)() % 2 == 0) continue;
    is_woken[row] = 1;
    const int64_t length = rows[row].end - rows[row].begin;
    const uint64_t at = static_cast<uint64_t>(rows[row].begin) +
                        (*random)() % static_cast<uint64_t>(length);
    (*values)[(*random)() % values->size()][at] = 3;
  }
  return is_woken;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TESTING_RANDOM_RANGES_H_
