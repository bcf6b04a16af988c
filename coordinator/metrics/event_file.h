// The bytes of TensorBoard's event files, made without TensorFlow.
//
// A file is a sequence of records (length, masked CRC32C of the length,
// payload, masked CRC32C of the payload; little endian), each the encoding of a
// tensorflow.Event (tensorflow/core/util/event.proto), of which this knows the
// fields that scalars need. Pure.
#ifndef DELTAPIPE_COORDINATOR_METRICS_EVENT_FILE_H_
#define DELTAPIPE_COORDINATOR_METRICS_EVENT_FILE_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"

namespace deltapipe {

/// CRC-32C (Castagnoli): polynomial 0x1EDC6F41, reflected.
uint32_t Crc32c(absl::string_view bytes);

/// One record around `payload`.
std::string EventRecord(absl::string_view payload);

/// The file's first event: it names the format.
std::string VersionEvent(double wall_seconds);
/// Says that training goes on from `step`: what was written of it and of later
/// steps counts no more.
std::string RestartEvent(double wall_seconds, int64_t step);
/// Values of one step: tag, such as "train/loss", and value.
std::string ScalarsEvent(
    double wall_seconds, int64_t step,
    const std::vector<std::pair<std::string, float>>& scalars);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_METRICS_EVENT_FILE_H_
