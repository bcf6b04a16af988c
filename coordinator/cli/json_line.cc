#include "coordinator/cli/json_line.h"

#include "google/protobuf/util/json_util.h"

namespace deltapipe {

Json ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  Json object;
  object["schema"] = message.GetDescriptor()->full_name();
  const bool is_printed =
      google::protobuf::util::MessageToJsonString(message, &text, options).ok();
  const Json body = is_printed
                        ? Json::parse(text, nullptr, /*allow_exceptions=*/false)
                        : Json();
  if (!body.is_object()) return object;
  for (const auto& [name, value] : body.items()) object[name] = value;
  return object;
}

std::string JsonLine(const Json& object) {
  return object.dump(-1, ' ', /*ensure_ascii=*/false,
                     Json::error_handler_t::replace) +
         "\n";
}

}  // namespace deltapipe
