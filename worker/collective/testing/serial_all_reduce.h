// A plain transcription of DeepSpeed's compressed_allreduce for all ranks at
// once, in double, element by element: what the compressed collective is
// compared with. Written from the description of the algorithm; shares no code
// with it.
#ifndef DELTAPIPE_WORKER_COLLECTIVE_TESTING_SERIAL_ALL_REDUCE_H_
#define DELTAPIPE_WORKER_COLLECTIVE_TESTING_SERIAL_ALL_REDUCE_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <vector>

namespace deltapipe {

/// Signs that an implementation sent, to be used in place of the own ones:
/// true for +. Those that differ are measured against their scale.
struct ReplayedSigns {
  std::vector<std::vector<bool>> worker;  // [rank][element]
  std::vector<bool> server;               // [element], of the shard's owner
};

class SerialCompressedAllReduce {
 public:
  SerialCompressedAllReduce(int num_ranks, int64_t num_elements)
      : num_ranks_(num_ranks),
        num_elements_(num_elements),
        worker_error_(static_cast<size_t>(num_ranks),
                      std::vector<double>(static_cast<size_t>(num_elements))),
        server_error_(static_cast<size_t>(num_elements)) {}

  /// values[rank] are what each rank brings; returns what all of them get.
  /// `replay` may be null.
  std::vector<double> Run(const std::vector<std::vector<double>>& values,
                          const ReplayedSigns* replay = nullptr) {
    const size_t d = static_cast<size_t>(num_elements_);
    std::vector<double> mean(d, 0.0);
    for (int rank = 0; rank < num_ranks_; ++rank) {
      std::vector<double>& error = worker_error_[static_cast<size_t>(rank)];
      std::vector<double> x(d);
      double squares = 0;
      for (size_t i = 0; i < d; ++i) {
        x[i] = values[static_cast<size_t>(rank)][i] + error[i];
        squares += x[i] * x[i];
      }
      const double scale = d == 0 ? 0 : std::sqrt(squares / double(d));
      for (size_t i = 0; i < d; ++i) {
        bool is_positive = x[i] >= 0;
        if (replay != nullptr) {
          const bool other = replay->worker[static_cast<size_t>(rank)][i];
          if (other != is_positive) NoteDifference(x[i], scale);
          is_positive = other;
        }
        const double sent = is_positive ? scale : -scale;
        error[i] = x[i] - sent;
        mean[i] += sent / num_ranks_;
      }
    }

    const int64_t shard =
        (num_elements_ + 8 * num_ranks_ - 1) / (8 * num_ranks_) * 8;
    std::vector<double> result(d);
    for (int64_t begin = 0; begin < num_elements_; begin += shard) {
      const int64_t end = std::min(begin + shard, num_elements_);
      double squares = 0;
      for (int64_t i = begin; i < end; ++i) {
        const size_t at = static_cast<size_t>(i);
        mean[at] += server_error_[at];
        squares += mean[at] * mean[at];
      }
      const double scale = std::sqrt(squares / double(end - begin));
      for (int64_t i = begin; i < end; ++i) {
        const size_t at = static_cast<size_t>(i);
        bool is_positive = mean[at] >= 0;
        if (replay != nullptr) {
          if (replay->server[at] != is_positive) {
            NoteDifference(mean[at], scale);
          }
          is_positive = replay->server[at];
        }
        result[at] = is_positive ? scale : -scale;
        server_error_[at] = mean[at] - result[at];
      }
    }
    return result;
  }

  const std::vector<double>& worker_error(int rank) const {
    return worker_error_[static_cast<size_t>(rank)];
  }
  const std::vector<double>& server_error() const { return server_error_; }

  /// The signs that the replay had otherwise, and how far from zero the worst
  /// of them lay, as a fraction of its scale.
  int64_t num_differing_signs() const { return num_differing_signs_; }
  double worst_difference() const { return worst_difference_; }

 private:
  void NoteDifference(double value, double scale) {
    ++num_differing_signs_;
    worst_difference_ = std::max(worst_difference_, std::abs(value) / scale);
  }

  const int num_ranks_;
  const int64_t num_elements_;
  std::vector<std::vector<double>> worker_error_;
  std::vector<double> server_error_;
  int64_t num_differing_signs_ = 0;
  double worst_difference_ = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_COLLECTIVE_TESTING_SERIAL_ALL_REDUCE_H_
