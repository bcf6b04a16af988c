// JSON as the lab prints it: one object a line, text that is not UTF-8
// replaced.
#ifndef DELTAPIPE_WORKER_LAB_JSON_LINE_H_
#define DELTAPIPE_WORKER_LAB_JSON_LINE_H_

#include <cmath>
#include <string>

#include "nlohmann/json.hpp"

namespace deltapipe {

inline std::string JsonLine(const nlohmann::ordered_json& object) {
  return object.dump(-1, ' ', /*ensure_ascii=*/false,
                     nlohmann::ordered_json::error_handler_t::replace) +
         "\n";
}

inline nlohmann::ordered_json FiniteOrNull(double value) {
  return std::isfinite(value) ? nlohmann::ordered_json(value)
                              : nlohmann::ordered_json(nullptr);
}

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_JSON_LINE_H_
