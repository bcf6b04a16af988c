#include "coordinator/tuning/link_meter.h"

#include <algorithm>

namespace deltapipe {

void LinkMeter::Add(int rank, const v1::StepReport& report) {
  for (const v1::LinkReport& link : report.links()) {
    const Direction direction(link.boundary(), link.is_gradient());
    Counters& last = last_[direction][rank];
    const bool continues =
        last.codec == link.codec() && last.wire_bytes <= link.wire_bytes();
    if (continues && report.steps() > 0) {
      Window& window = windows_[direction][rank];
      if (window.codec != link.codec()) window = Window{link.codec()};
      window.steps += report.steps();
      window.wire_bytes += link.wire_bytes() - last.wire_bytes;
      window.send_seconds +=
          std::max(0.0, link.send_seconds() - last.send_seconds);
      window.relative_error = link.relative_error();
    } else {
      windows_[direction].erase(rank);
    }
    last = {link.codec(), link.wire_bytes(), link.send_seconds()};
  }
}

std::vector<LinkSample> LinkMeter::Take(int num_replicas) {
  std::vector<LinkSample> samples;
  for (auto& [direction, windows] : windows_) {
    if (static_cast<int>(windows.size()) < num_replicas) continue;
    LinkSample sample;
    sample.boundary = direction.first;
    sample.is_gradient = direction.second;
    sample.codec = windows.begin()->second.codec;
    sample.steps = windows.begin()->second.steps;
    double slowest_seconds_per_bit = 0;
    double errors = 0;
    int num_errors = 0;
    bool is_uniform = true;
    for (const auto& [rank, window] : windows) {
      is_uniform = is_uniform && window.codec == sample.codec;
      sample.steps = std::min(sample.steps, window.steps);
      sample.wire_bytes_per_step += static_cast<double>(window.wire_bytes) /
                                    static_cast<double>(window.steps);
      if (window.wire_bytes > 0) {
        slowest_seconds_per_bit =
            std::max(slowest_seconds_per_bit,
                     window.send_seconds /
                         (8.0 * static_cast<double>(window.wire_bytes)));
      }
      if (window.relative_error > 0) {
        errors += window.relative_error;
        ++num_errors;
      }
    }
    windows.clear();
    if (!is_uniform) continue;
    if (slowest_seconds_per_bit > 0) {
      sample.bits_per_second = 1 / slowest_seconds_per_bit;
    }
    if (num_errors > 0) sample.relative_error = errors / num_errors;
    samples.push_back(sample);
  }
  return samples;
}

void LinkMeter::Clear() {
  last_.clear();
  windows_.clear();
}

}  // namespace deltapipe
