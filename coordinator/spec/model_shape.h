// The shape of a spec's model, for base/model_parameters.h.
#ifndef DELTAPIPE_COORDINATOR_SPEC_MODEL_SHAPE_H_
#define DELTAPIPE_COORDINATOR_SPEC_MODEL_SHAPE_H_

#include "base/model_parameters.h"
#include "proto/deltapipe/v1/job.pb.h"

namespace deltapipe {

inline ModelShape ModelShapeOf(const v1::ModelSpec& model) {
  ModelShape shape;
  shape.kind = model.kind();
  shape.layers = model.layers();
  shape.width = model.width();
  shape.context = model.context();
  shape.is_tied = model.tied() == "on";
  shape.norm = model.norm();
  return shape;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_MODEL_SHAPE_H_
