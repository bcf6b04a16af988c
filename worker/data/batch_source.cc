#include "worker/data/batch_source.h"

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/checksum.h"
#include "base/file.h"
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
  std::string unit = absl::StrCat(" of ", options.context, " bytes");
  std::string remedy = ", a smaller train.batch or a smaller model.context";
  if (options.path.empty()) {
    source->num_train_samples_ = options.synthetic_samples;
    source->data_hash_ = static_cast<uint64_t>(options.synthetic_samples);
  } else if (options.images.has_value()) {
    DP_RETURN_IF_ERROR(source->OpenImages());
    unit = "";
    remedy = ", fewer data.views or a smaller train.batch";
  } else {
    DP_RETURN_IF_ERROR(source->OpenBytes());
  }
  source->order_ =
      SampleOrder({source->num_train_samples_, options.num_slots,
                   options.microbatch / source->views(), options.seed});
  if (source->steps_per_epoch() < 1) {
    return absl::InvalidArgumentError(absl::StrCat(
        options.path.empty() ? "synthetic data" : options.path, " has ",
        source->num_train_samples_, " training samples", unit,
        ", but one step takes ", source->order_.samples_per_step(),
        ": use more data", remedy));
  }
  return source;
}

absl::Status BatchSource::OpenBytes() {
  DP_ASSIGN_OR_RETURN(bytes_, ReadPrefix(options_.path, options_.limit_bytes));
  data_hash_ = Checksum(bytes_);
  const int64_t size = static_cast<int64_t>(bytes_.size());
  const int64_t held_out =
      static_cast<int64_t>(options_.validation * static_cast<double>(size));
  validation_begin_ = size - held_out;
  // A sample needs the byte after it as its last target.
  num_train_samples_ =
      std::max<int64_t>(0, (validation_begin_ - 1) / options_.context);
  num_validation_samples_ =
      std::max<int64_t>(0, (held_out - 1) / options_.context);
  return absl::OkStatus();
}

absl::Status BatchSource::OpenImages() {
  if (options_.microbatch % views() != 0) {
    return absl::InvalidArgumentError(
        absl::StrCat("expected micro-batches of a multiple of data.views (",
                     views(), "), got ", options_.microbatch));
  }
  DP_ASSIGN_OR_RETURN(images_,
                      ImageSamples::Open(options_.path, options_.validation,
                                         options_.seed, *options_.images));
  data_hash_ = images_->data_hash();
  num_train_samples_ = images_->num_train();
  num_validation_samples_ = images_->num_validation();
  return absl::OkStatus();
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
  Microbatch microbatch;
  const std::vector<int64_t> indices = order_.Indices(step, slot);
  if (images_ != nullptr) {
    microbatch = images_->Train(indices, step / steps_per_epoch(), step, slot);
  }
  for (const int64_t index : indices) {
    if (images_ != nullptr) break;
    if (bytes_.empty()) {
      microbatch.samples.push_back({static_cast<uint64_t>(index) + 1, 0});
    } else {
      AppendSample(index * options_.context, &microbatch);
    }
  }
  for (size_t i = 0; i < microbatch.samples.size(); ++i) {
    microbatch.samples[i].slot = static_cast<uint32_t>(
        slot * options_.microbatch + static_cast<int64_t>(i));
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
    if (images_ != nullptr) {
      images_->AppendValidation(i, &microbatch);
    } else {
      AppendSample(validation_begin_ + i * options_.context, &microbatch);
    }
    microbatch.samples.back().slot = static_cast<uint32_t>(i - first);
  }
  return microbatch;
}

}  // namespace deltapipe
