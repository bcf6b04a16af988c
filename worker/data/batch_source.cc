#include "worker/data/batch_source.h"

#include <cerrno>
#include <cstdio>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/file.h"
#include "base/philox.h"
#include "base/status_macros.h"

namespace deltapipe {
namespace {

/// The first `limit` bytes of a file.
absl::StatusOr<std::vector<uint8_t>> ReadPrefix(const std::string& path,
                                                int64_t limit) {
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(
      std::fopen(path.c_str(), "rb"), &std::fclose);
  if (file == nullptr) return FileError("open", path, errno);
  std::vector<uint8_t> bytes;
  constexpr size_t kPiece = size_t{1} << 20;
  while (static_cast<int64_t>(bytes.size()) < limit) {
    const size_t wanted = static_cast<size_t>(
        std::min<int64_t>(kPiece, limit - static_cast<int64_t>(bytes.size())));
    const size_t before = bytes.size();
    bytes.resize(before + wanted);
    const size_t got = std::fread(bytes.data() + before, 1, wanted, file.get());
    bytes.resize(before + got);
    if (got < wanted) {
      if (std::ferror(file.get())) return FileError("read", path, errno);
      break;
    }
  }
  return bytes;
}

}  // namespace

absl::StatusOr<std::unique_ptr<BatchSource>> BatchSource::Create(
    const BatchSourceOptions& options) {
  std::unique_ptr<BatchSource> source(new BatchSource(options));
  if (options.path.empty()) {
    source->num_train_samples_ = options.synthetic_samples;
    source->data_hash_ = static_cast<uint64_t>(options.synthetic_samples);
  } else {
    DP_ASSIGN_OR_RETURN(source->bytes_,
                        ReadPrefix(options.path, options.limit_bytes));
    source->data_hash_ = Checksum(source->bytes_);
    const int64_t size = static_cast<int64_t>(source->bytes_.size());
    const int64_t held_out =
        static_cast<int64_t>(options.validation * static_cast<double>(size));
    source->validation_begin_ = size - held_out;
    // A sample needs the byte after it as its last target.
    source->num_train_samples_ =
        std::max<int64_t>(0, (source->validation_begin_ - 1) / options.context);
    source->num_validation_samples_ =
        std::max<int64_t>(0, (held_out - 1) / options.context);
  }
  const int64_t per_step = options.num_slots * options.microbatch;
  source->rounds_per_epoch_ = source->num_train_samples_ / per_step;
  if (source->rounds_per_epoch_ < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.path.empty() ? "synthetic data" : options.path, " has ",
        source->num_train_samples_, " training samples of ", options.context,
        " bytes, but one step takes ", per_step,
        ": use more data, a smaller train.batch or a smaller model.context"));
  }
  source->orders_.resize(static_cast<size_t>(options.num_slots));
  return source;
}

const std::vector<uint32_t>& BatchSource::Order(int64_t epoch, int64_t slot) {
  CachedOrder& cached = orders_[static_cast<size_t>(slot)];
  if (cached.epoch == epoch) return cached.order;
  const int64_t shard_size =
      (num_train_samples_ - slot + options_.num_slots - 1) / options_.num_slots;
  cached.order.resize(static_cast<size_t>(shard_size));
  std::iota(cached.order.begin(), cached.order.end(), 0u);
  // Fisher and Yates' shuffle; the bias of a 64-bit product is below 2^-32.
  const std::array<uint32_t, 2> key = {
      static_cast<uint32_t>(options_.seed),
      static_cast<uint32_t>(options_.seed >> 32)};
  for (uint32_t i = static_cast<uint32_t>(shard_size); i > 1; --i) {
    const PhiloxBlock words =
        Philox4x32({i, static_cast<uint32_t>(epoch),
                    static_cast<uint32_t>(slot), 0x6F726472u},
                   key);
    const uint32_t j = static_cast<uint32_t>((uint64_t{words[0]} * i) >> 32);
    std::swap(cached.order[i - 1], cached.order[j]);
  }
  cached.epoch = epoch;
  return cached.order;
}

void BatchSource::AppendSample(int64_t first_byte,
                               Microbatch* microbatch) const {
  const auto begin = bytes_.begin() + first_byte;
  microbatch->tokens.insert(microbatch->tokens.end(), begin,
                            begin + options_.context);
  microbatch->targets.insert(microbatch->targets.end(), begin + 1,
                             begin + 1 + options_.context);
  BoundarySample sample;
  // The position takes part: equal passages elsewhere are other samples.
  sample.key =
      Checksum(absl::MakeConstSpan(bytes_.data() + first_byte,
                                   static_cast<size_t>(options_.context)),
               static_cast<uint64_t>(first_byte));
  microbatch->samples.push_back(sample);
}

Microbatch BatchSource::Train(int64_t step, int64_t slot) {
  const std::vector<uint32_t>& order = Order(step / rounds_per_epoch_, slot);
  const int64_t first = step % rounds_per_epoch_ * options_.microbatch;
  Microbatch microbatch;
  for (int64_t k = 0; k < options_.microbatch; ++k) {
    const int64_t index =
        int64_t{order[static_cast<size_t>(first + k)]} * options_.num_slots +
        slot;
    if (bytes_.empty()) {
      microbatch.samples.push_back({static_cast<uint64_t>(index) + 1, 0});
    } else {
      AppendSample(index * options_.context, &microbatch);
    }
    microbatch.samples.back().slot =
        static_cast<uint32_t>(slot * options_.microbatch + k);
  }
  return microbatch;
}

int64_t BatchSource::num_validation_microbatches() const {
  return (num_validation_samples_ + options_.microbatch - 1) /
         options_.microbatch;
}

Microbatch BatchSource::Validation(int64_t index) const {
  const int64_t first = index * options_.microbatch;
  const int64_t end =
      std::min(first + options_.microbatch, num_validation_samples_);
  Microbatch microbatch;
  for (int64_t i = first; i < end; ++i) {
    AppendSample(validation_begin_ + i * options_.context, &microbatch);
    microbatch.samples.back().slot = static_cast<uint32_t>(i - first);
  }
  return microbatch;
}

}  // namespace deltapipe
