// What base/model_parameters.h says of a model, against the model.
#include "base/model_parameters.h"

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "worker/stage/models/model.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAreArray;
using ::testing::IsEmpty;

using Named = std::pair<std::string, std::vector<int64_t>>;

v1::ModelSpec Spec(const std::string& kind, int layers, bool is_tied,
                   const std::string& norm) {
  v1::ModelSpec spec;
  spec.set_kind(kind);
  spec.set_layers(layers);
  spec.set_width(8);
  spec.set_heads(2);
  spec.set_context(6);
  spec.set_tied(is_tied ? "on" : "off");
  spec.set_norm(norm);
  return spec;
}

std::vector<Named> OfTheModel(const v1::ModelSpec& spec, int first, int end) {
  std::vector<Named> parameters;
  for (const NamedParameter& parameter :
       MakeModel(spec, first, end)->Parameters()) {
    parameters.emplace_back(parameter.name, parameter.tensor.sizes().vec());
  }
  return parameters;
}

std::vector<Named> Described(const v1::ModelSpec& spec, int first, int end) {
  ModelShape shape;
  shape.kind = spec.kind();
  shape.layers = spec.layers();
  shape.width = spec.width();
  shape.context = spec.context();
  shape.is_tied = spec.tied() == "on";
  shape.norm = spec.norm();
  std::vector<Named> parameters;
  for (const ModelParameter& parameter : ModelParametersOf(shape, first, end)) {
    parameters.emplace_back(parameter.name, parameter.shape);
  }
  return parameters;
}

/// However it is cut.
void ExpectAlike(const v1::ModelSpec& spec) {
  for (int first = 0; first < spec.layers(); ++first) {
    for (int end = first + 1; end <= spec.layers(); ++end) {
      SCOPED_TRACE(absl::StrCat(spec.kind(), ", norm ", spec.norm(), ", tied ",
                                spec.tied(), ", layers ", first, " to ", end,
                                " of ", spec.layers()));
      EXPECT_THAT(Described(spec, first, end),
                  ElementsAreArray(OfTheModel(spec, first, end)));
    }
  }
}

TEST(ModelParametersTest, AreThoseOfEveryKindHoweverItIsCut) {
  for (const int layers : {1, 2, 5}) {
    for (const char* kind : {"gpt", "mlp", "image_mlp", "resnet"}) {
      for (const char* norm : {"batch", "group", "fixup"}) {
        ExpectAlike(Spec(kind, layers, /*is_tied=*/false, norm));
      }
    }
    ExpectAlike(Spec("gpt", layers, /*is_tied=*/true, "batch"));
  }
}

TEST(ModelParametersTest, OfNoModelThereAreNone) {
  EXPECT_THAT(Described(Spec("synthetic", 2, false, "batch"), 0, 2), IsEmpty());
}

}  // namespace
}  // namespace deltapipe
