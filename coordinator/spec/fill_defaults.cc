#include "absl/strings/str_cat.h"
#include "coordinator/spec/field_rules.h"
#include "coordinator/spec/job_spec.h"
#include "proto/deltapipe/v1/options.pb.h"

namespace deltapipe {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

void FillMessage(Message* message) {
  const Descriptor& descriptor = *message->GetDescriptor();
  const auto& reflection = *message->GetReflection();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    if (HoldsMessages(field) && field.is_repeated()) {
      for (int e = 0; e < reflection.FieldSize(*message, &field); ++e) {
        FillMessage(reflection.MutableRepeatedMessage(message, &field, e));
      }
      continue;
    }
    if (HoldsMessages(field)) {
      FillMessage(reflection.MutableMessage(message, &field));
      continue;
    }
    const std::string& text =
        field.options().GetExtension(v1::rule).default_text();
    if (text.empty() || reflection.HasField(*message, &field)) continue;
    SetScalarFromText(text, /*is_quoted=*/false, field, message);
  }
}

}  // namespace

void FillDefaults(v1::JobSpec* spec) { FillMessage(spec); }

}  // namespace deltapipe
