#include "base/delay_stability.h"

#include <cmath>
#include <cstddef>
#include <vector>

namespace deltapipe {
namespace {

constexpr double kPi = 3.14159265358979323846;

/// Whether all roots of sum a[i] z^i lie inside the unit circle (Schur-Cohn):
/// the constant term is smaller than the leading one, and so it is for the
/// polynomial of a degree less that remains.
bool IsStable(std::vector<double> a) {
  while (a.size() > 1) {
    const double first = a.front();
    const double last = a.back();
    if (std::abs(first) >= std::abs(last)) return false;
    const size_t degree = a.size() - 1;
    std::vector<double> next(degree);
    for (size_t i = 0; i < degree; ++i) {
      next[i] = a[i + 1] - first / last * a[degree - 1 - i];
    }
    a = std::move(next);
  }
  return true;
}

std::vector<double> CharacteristicPolynomial(double rate, int delay,
                                             double momentum,
                                             MomentumDelay form,
                                             double look_ahead) {
  const size_t tau = static_cast<size_t>(delay);
  std::vector<double> a(tau + 3);
  if (form == MomentumDelay::kShifted) {
    // z^(tau+2) - z^(tau+1) + (rate - m) z + m
    a[tau + 2] += 1;
    a[tau + 1] -= 1;
    a[1] += rate - momentum;
    a[0] += momentum;
  } else {
    // z^(tau+2) - (1+m) z^(tau+1) + m z^tau + rate ((1+s) z - s)
    a[tau + 2] += 1;
    a[tau + 1] -= 1 + momentum;
    a[tau] += momentum;
    a[1] += rate * (1 + look_ahead);
    a[0] -= rate * look_ahead;
  }
  return a;
}

}  // namespace

double LargestStableRate(int delay, double momentum, MomentumDelay form,
                         double look_ahead) {
  // No threshold is larger than that without delay and look-ahead, 2 (1 + m)
  // < 4.
  double stable = 0;
  double unstable = 4;
  for (int i = 0; i < 60; ++i) {
    const double rate = (stable + unstable) / 2;
    (IsStable(CharacteristicPolynomial(rate, delay, momentum, form, look_ahead))
         ? stable
         : unstable) = rate;
  }
  return stable;
}

double DefaultLookAhead(std::string_view optimizer_kind, int delay) {
  const bool has_one = optimizer_kind == "adam" || optimizer_kind == "adamw";
  return has_one && delay > 0 ? delay + 1 : 0;
}

double DelayRateFactor(int delay) {
  return std::sin(kPi / (2.0 * (2.0 * delay + 1)));
}

}  // namespace deltapipe
