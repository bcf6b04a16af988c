#include "worker/engine/data_options.h"

#include "base/image_options.h"
#include "base/status_macros.h"
#include "base/units.h"

namespace deltapipe {

absl::StatusOr<BatchSourceOptions> MakeDataOptions(const v1::JobSpec& spec,
                                                   const v1::Plan& plan) {
  const v1::DataSpec& from = spec.data();
  BatchSourceOptions data;
  if (spec.model().kind() == "synthetic") {
    data.synthetic_samples = spec.model().synthetic().samples();
  } else {
    data.path = from.path();
    DP_ASSIGN_OR_RETURN(data.limit_bytes, ParseBytes(from.limit()));
  }
  if (from.kind() == "fashion_mnist") {
    ImageOptions images;
    if (from.samples() > 0) images.max_train = from.samples();
    DP_ASSIGN_OR_RETURN(images.views, ParseViewChoice(from.views()));
    DP_ASSIGN_OR_RETURN(images.sizes, ParseSizeShares(from.sizes()));
    data.images = std::move(images);
  }
  data.validation = from.validation();
  data.context = spec.model().context();
  data.microbatch = plan.microbatch_samples();
  data.num_slots = plan.num_microbatches() * plan.num_replicas();
  data.seed = spec.seed();
  return data;
}

}  // namespace deltapipe
