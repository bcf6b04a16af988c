// JSON for --json: one object a line, with the names of the proto and a
// `schema` that says what the object is.
#ifndef DELTAPIPE_COORDINATOR_CLI_JSON_LINE_H_
#define DELTAPIPE_COORDINATOR_CLI_JSON_LINE_H_

#include <string>

#include "google/protobuf/message.h"
#include "nlohmann/json.hpp"

namespace deltapipe {

using Json = nlohmann::ordered_json;

/// The fields of `message` by their names in the proto, after "schema": its
/// full name, such as "deltapipe.v1.Job". Not proto JSON: 64-bit integers are
/// numbers, and enum values lose the prefix of their type ("RUNNING" of
/// JOB_STATE_RUNNING). Fields with presence that are absent are left out.
Json ToJson(const google::protobuf::Message& message);

/// `object` on one line, with its '\n'. Numbers that JSON cannot hold become
/// null, invalid UTF-8 the replacement character.
std::string JsonLine(const Json& object);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_JSON_LINE_H_
