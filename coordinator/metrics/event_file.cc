#include "coordinator/metrics/event_file.h"

#include <array>
#include <cstring>

#include "base/little_endian.h"

namespace deltapipe {
namespace {

constexpr std::array<uint32_t, 256> MakeCrcTable() {
  std::array<uint32_t, 256> table = {};
  for (uint32_t i = 0; i < 256; ++i) {
    uint32_t crc = i;
    for (int bit = 0; bit < 8; ++bit) {
      crc = (crc & 1) != 0 ? (crc >> 1) ^ 0x82F63B78u : crc >> 1;
    }
    table[i] = crc;
  }
  return table;
}
constexpr std::array<uint32_t, 256> kCrcTable = MakeCrcTable();

/// Rotated and shifted, so that a CRC over bytes that hold CRCs stays good.
uint32_t Masked(uint32_t crc) {
  return ((crc >> 15) | (crc << 17)) + 0xA282EAD8u;
}

template <typename Integer>
void Append(Integer value, std::string* out) {
  uint8_t bytes[sizeof(Integer)];
  StoreLittleEndian(value, bytes);
  out->append(reinterpret_cast<const char*>(bytes), sizeof(bytes));
}

// The wire format of Protobuf.
enum WireType { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

void AppendVarint(uint64_t value, std::string* out) {
  while (value >= 0x80) {
    out->push_back(static_cast<char>(value | 0x80));
    value >>= 7;
  }
  out->push_back(static_cast<char>(value));
}

void AppendTag(uint32_t field, WireType type, std::string* out) {
  AppendVarint(field << 3 | type, out);
}

void AppendBytes(uint32_t field, absl::string_view bytes, std::string* out) {
  AppendTag(field, kBytes, out);
  AppendVarint(bytes.size(), out);
  out->append(bytes.data(), bytes.size());
}

/// Fields 1 and 2 of every event.
std::string EventHead(double wall_seconds, int64_t step) {
  std::string event;
  uint64_t bits;
  std::memcpy(&bits, &wall_seconds, sizeof(bits));
  AppendTag(1, kFixed64, &event);
  Append(bits, &event);
  if (step != 0) {
    AppendTag(2, kVarint, &event);
    AppendVarint(static_cast<uint64_t>(step), &event);
  }
  return event;
}

}  // namespace

uint32_t Crc32c(absl::string_view bytes) {
  uint32_t crc = ~0u;
  for (const char byte : bytes) {
    crc = kCrcTable[(crc ^ static_cast<uint8_t>(byte)) & 0xFF] ^ (crc >> 8);
  }
  return ~crc;
}

std::string EventRecord(absl::string_view payload) {
  std::string record;
  Append(static_cast<uint64_t>(payload.size()), &record);
  Append(Masked(Crc32c(record)), &record);
  record.append(payload.data(), payload.size());
  Append(Masked(Crc32c(payload)), &record);
  return record;
}

std::string VersionEvent(double wall_seconds) {
  std::string event = EventHead(wall_seconds, 0);
  AppendBytes(3, "brain.Event:2", &event);  // file_version
  return event;
}

std::string RestartEvent(double wall_seconds, int64_t step) {
  std::string log;
  AppendTag(1, kVarint, &log);  // SessionLog.status
  AppendVarint(1, &log);        // START
  std::string event = EventHead(wall_seconds, step);
  AppendBytes(7, log, &event);  // session_log
  return event;
}

std::string ScalarsEvent(
    double wall_seconds, int64_t step,
    const std::vector<std::pair<std::string, float>>& scalars) {
  std::string summary;
  for (const auto& [tag, number] : scalars) {
    std::string value;
    AppendBytes(1, tag, &value);
    uint32_t bits;
    std::memcpy(&bits, &number, sizeof(bits));
    AppendTag(2, kFixed32, &value);  // simple_value
    Append(bits, &value);
    AppendBytes(1, value, &summary);
  }
  std::string event = EventHead(wall_seconds, step);
  AppendBytes(5, summary, &event);  // summary
  return event;
}

}  // namespace deltapipe
