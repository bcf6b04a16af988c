// Feeds texts to the reader of job specs (YAML and, within it, JSON) and to
// that of --set. What is accepted must be accepted again as proto JSON.
//
//   bazel run --config=fuzz //coordinator/spec:job_spec_fuzzer
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <vector>

#include "coordinator/spec/field_rules.h"
#include "coordinator/spec/job_spec.h"
#include "coordinator/spec/spec_reading.h"
#include "google/protobuf/util/json_util.h"

namespace {

using deltapipe::SpecReading;

void ClearIdleFields(google::protobuf::Message* message) {
  const auto& reflection = *message->GetReflection();
  for (int i = 0; i < message->GetDescriptor()->field_count(); ++i) {
    const auto& field = *message->GetDescriptor()->field(i);
    if (!deltapipe::KindThatIgnores(field, *message).empty()) {
      reflection.ClearField(message, &field);
    } else if (field.is_repeated()) {
      for (int e = 0; e < reflection.FieldSize(*message, &field); ++e) {
        ClearIdleFields(reflection.MutableRepeatedMessage(message, &field, e));
      }
    } else if (reflection.HasField(*message, &field) &&
               deltapipe::HoldsMessages(field)) {
      ClearIdleFields(reflection.MutableMessage(message, &field));
    }
  }
}

void Read(const std::string& text, const std::vector<std::string>& overrides) {
  const SpecReading reading = SpecReading::FromText(text, "input", overrides);
  if (!reading.status().ok()) {
    for (const auto& violation : reading.violations()) violation.ToString();
    return;
  }
  // Fields that mean nothing beside the chosen kind are refused where they are
  // written.
  deltapipe::v1::JobSpec spec = reading.spec;
  ClearIdleFields(&spec);
  std::string json;
  if (!google::protobuf::util::MessageToJsonString(spec, &json).ok()) {
    std::abort();
  }
  const auto again = deltapipe::ParseJobSpec(json, "again", {});
  if (!again.ok() ||
      again->SerializeAsString() != reading.spec.SerializeAsString()) {
    std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  Read(text, {});
  // A spec that is whole, so that what is tried is the only mistake.
  const std::string base = "name: a\ndata: {path: b}\n";
  Read(base + text, {});
  Read(base, {text});
  return 0;
}
