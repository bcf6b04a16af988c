// Python's own safetensors, as tests hold our files against it: one process a
// call. scripts/test_tools fetches it; DELTAPIPE_TEST_TOOLS names the folder.
#ifndef DELTAPIPE_BASE_STOCK_SAFETENSORS_H_
#define DELTAPIPE_BASE_STOCK_SAFETENSORS_H_

#include <string>

namespace deltapipe {

/// Why there is none, for a test that is skipped; empty: there is one.
std::string WhyNoStockSafetensors();

/// What it reads in the file: "NAME DTYPE [SHAPE] BYTES" a line for each
/// tensor, the bytes in hexadecimal, in any order. Where it does not open the
/// file, what it says instead, and then "failed".
std::string StockSafetensorsText(const std::string& path);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_STOCK_SAFETENSORS_H_
