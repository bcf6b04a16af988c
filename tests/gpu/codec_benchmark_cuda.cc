// codec_benchmark_cuda: the speed of the kernels of compression/cuda, in input
// bytes, as a share of the same GPU's copy of as many bytes from device to
// device.
//
//   bazel run --config=cuda //tests/gpu:codec_benchmark_cuda
//
// Prints a line per codec and size: GB/s and share of encoding and decoding;
// for delta(...) of a delta, its record's update included. Exit code 77, and
// why, where there is no GPU. Can be carried like codec_suite.
#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <functional>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "base/status_macros.h"
#include "compression/cuda/device_codec.h"
#include "compression/cuda/device_memory.h"
#include "compression/cuda/testing/carried_codec.h"
#include "compression/testing/codec_conformance.h"

namespace deltapipe {
namespace {

constexpr int kSkipped = 77;
constexpr int kCallsPerRound = 20;
constexpr int kRounds = 7;

const char* const kCodecs[] = {"int(4)",
                               "int(4,clip=minmax)",
                               "int(4,round=stochastic)",
                               "int(8)",
                               "int(2,round=stochastic)",
                               "int(4,block=256,round=stochastic,levels=affine,"
                               "scale=bf16)",
                               "sign",
                               "luq",
                               "fp(4,3)",
                               "fp(2,1,round=stochastic)",
                               "cast(bf16)",
                               "delta(int(4))",
                               "delta(int(4,clip=minmax))",
                               "delta(int(4,round=stochastic))"};

/// What all measurements of one size use.
struct Bench {
  DeviceMemory* memory;
  int64_t count;
  DeviceBytes values;
  DeviceBytes restored;
  DeviceBytes record;  // bf16
  DeviceBytes next;
  DeviceBytes payload;
  DeviceBytes outcome;
  DeviceBytes problem;

  static absl::StatusOr<Bench> Create(DeviceMemory* memory, int64_t count) {
    const auto allocate = [&](int64_t bytes) {
      return DeviceBytes::Create(memory, bytes);
    };
    DP_ASSIGN_OR_RETURN(auto values, allocate(4 * count));
    DP_ASSIGN_OR_RETURN(auto restored, allocate(4 * count));
    DP_ASSIGN_OR_RETURN(auto record, allocate(2 * count));
    DP_ASSIGN_OR_RETURN(auto next, allocate(2 * count));
    DP_ASSIGN_OR_RETURN(auto payload, allocate(5 * count));
    DP_ASSIGN_OR_RETURN(auto outcome, allocate(sizeof(cuda::EncodeOutcome)));
    DP_ASSIGN_OR_RETURN(auto problem, allocate(sizeof(uint32_t)));
    return Bench{memory,
                 count,
                 std::move(values),
                 std::move(restored),
                 std::move(record),
                 std::move(next),
                 std::move(payload),
                 std::move(outcome),
                 std::move(problem)};
  }

  /// Also waits for all that was put on the stream.
  absl::StatusOr<cuda::EncodeOutcome> Outcome() const {
    cuda::EncodeOutcome result{};
    DP_RETURN_IF_ERROR(
        memory->CopyFromDevice(outcome.get(), sizeof(result), &result));
    return result;
  }
};

/// The median over rounds of seconds per call, after one round unmeasured.
absl::StatusOr<double> SecondsPerCall(
    const Bench& bench, const std::function<absl::Status()>& call) {
  std::vector<double> seconds;
  for (int round = 0; round <= kRounds; ++round) {
    DP_RETURN_IF_ERROR(bench.Outcome().status());
    const auto begin = std::chrono::steady_clock::now();
    for (int i = 0; i < kCallsPerRound; ++i) DP_RETURN_IF_ERROR(call());
    DP_RETURN_IF_ERROR(bench.Outcome().status());
    const std::chrono::duration<double> took =
        std::chrono::steady_clock::now() - begin;
    if (round > 0) seconds.push_back(took.count() / kCallsPerRound);
  }
  std::nth_element(seconds.begin(), seconds.begin() + kRounds / 2,
                   seconds.end());
  return seconds[kRounds / 2];
}

absl::Status Measure(const std::string& text, const Bench& bench,
                     double copy_seconds) {
  DP_ASSIGN_OR_RETURN(const auto codec, MakeDeviceCodec(text, bench.count));
  const bool is_delta = text.compare(0, 6, "delta(") == 0;
  const RandomKey key{1, 2, 3, 4, 0};
  uint8_t* const payload = bench.payload.as<uint8_t>();
  auto* const outcome = bench.outcome.as<cuda::EncodeOutcome>();
  DeviceSample sample{bench.values.as<float>(), bench.count, nullptr,
                      bench.record.get()};
  if (is_delta) {
    // The record of a first visit, which is near the values.
    DP_RETURN_IF_ERROR(
        codec->EncodeDelta(sample, key, payload, outcome, nullptr));
    sample.before = bench.record.get();
    sample.after = bench.next.get();
  }
  DP_ASSIGN_OR_RETURN(
      const double encode, SecondsPerCall(bench, [&] {
        return is_delta
                   ? codec->EncodeDelta(sample, key, payload, outcome, nullptr)
                   : codec->Encode(sample.values, bench.count, key, payload,
                                   outcome, nullptr);
      }));
  DP_ASSIGN_OR_RETURN(const cuda::EncodeOutcome result, bench.Outcome());
  if ((result.is_delta != 0) != is_delta) {
    return absl::InternalError("expected the outcome to be a delta");
  }
  const DevicePayload received{payload, result.payload_bytes,
                               bench.problem.as<uint32_t>()};
  DP_ASSIGN_OR_RETURN(
      const double decode, SecondsPerCall(bench, [&] {
        return is_delta
                   ? codec->DecodeDelta(received, true, sample,
                                        bench.restored.as<float>(), nullptr)
                   : codec->Decode(received, bench.restored.as<float>(),
                                   bench.count, nullptr);
      }));
  const double bytes = 4.0 * static_cast<double>(bench.count);
  std::printf("%-32s encode %8.1f GB/s %5.1f %%   decode %8.1f GB/s %5.1f %%\n",
              text.c_str(), bytes / encode / 1e9, 100 * copy_seconds / encode,
              bytes / decode / 1e9, 100 * copy_seconds / decode);
  return absl::OkStatus();
}

absl::Status Run(DeviceMemory* memory) {
  for (const int64_t mebibytes : {64, 256}) {
    const int64_t count = mebibytes << 18;
    DP_ASSIGN_OR_RETURN(const Bench bench, Bench::Create(memory, count));
    const std::vector<float> values =
        MakeTestData(TestData::kNormal, static_cast<size_t>(count), 1);
    DP_RETURN_IF_ERROR(
        memory->CopyToDevice(values.data(), 4 * count, bench.values.get()));
    DP_ASSIGN_OR_RETURN(const double copy, SecondsPerCall(bench, [&] {
                          return memory->CopyWithinDevice(bench.values.get(),
                                                          4 * count,
                                                          bench.restored.get());
                        }));
    std::printf("%d MiB of fp32; copy %.1f GB/s\n", static_cast<int>(mebibytes),
                4e-9 * static_cast<double>(count) / copy);
    for (const char* codec : kCodecs) {
      DP_RETURN_IF_ERROR(Measure(codec, bench, copy));
    }
  }
  return absl::OkStatus();
}

int Main() {
  const auto memory = MakeCudaMemory();
  if (!memory.ok()) {
    std::cout << "skipped: " << memory.status().message() << std::endl;
    return kSkipped;
  }
  const absl::Status status = Run(memory->get());
  if (status.ok()) return 0;
  std::cerr << status.message() << std::endl;
  return 1;
}

}  // namespace
}  // namespace deltapipe

int main() { return deltapipe::Main(); }
