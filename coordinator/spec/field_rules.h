// Field rules: what one field of a job spec may hold, read off the proto
// (options.proto) by reflection.
//
// Called by the YAML reader and by the validation, from any thread; nothing
// here keeps state. Field paths are dotted names: "train.optimizer.kind",
// "train.optimizer.groups[0].match".
#ifndef DELTAPIPE_COORDINATOR_SPEC_FIELD_RULES_H_
#define DELTAPIPE_COORDINATOR_SPEC_FIELD_RULES_H_

#include <functional>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/message.h"

namespace deltapipe {

/// Sets the scalar `field` of `message` from `text`, as written in YAML.
/// Returns what is wrong with its type ("expected a number, got 'abc'"), or "".
/// A range is not checked here, except that of the type. `is_quoted`: the text
/// stood in quotes, which only texts and 64-bit numbers (proto JSON) may.
std::string SetScalarFromText(const std::string& text, bool is_quoted,
                              const google::protobuf::FieldDescriptor& field,
                              google::protobuf::Message* message);

/// What `field` of `message` breaks of its own rule, or "": range, choice,
/// unit, codec text.
std::string CheckField(const google::protobuf::FieldDescriptor& field,
                       const google::protobuf::Message& message);

/// The value of `message`'s kind that leaves `field` without a meaning (rule
/// `kinds`), or "".
std::string KindThatIgnores(const google::protobuf::FieldDescriptor& field,
                            const google::protobuf::Message& message);

/// "onebit_adam or onebit_lamb": the kinds beside which `field` means
/// something.
std::string KindsThatUse(const google::protobuf::FieldDescriptor& field);

/// Calls `visit(path, field, message)` for every scalar field below `message`,
/// in the order of the proto.
void ForEachScalar(
    const google::protobuf::Message& message,
    const std::function<void(const std::string& path,
                             const google::protobuf::FieldDescriptor& field,
                             const google::protobuf::Message& owner)>& visit);

/// "unknown field (did you mean 'steps'?)" for `name` in `message`.
std::string UnknownFieldMessage(absl::string_view name,
                                const google::protobuf::Descriptor& message);

/// "train" and "steps" as "train.steps"; "" and "train" as "train".
std::string JoinPath(const std::string& parent, absl::string_view name);

/// "groups" and 0 as "groups[0]": the path of an element of a list.
std::string ElementPath(const std::string& list, int index);

/// Whether `field` holds messages, one or a list of them.
bool HoldsMessages(const google::protobuf::FieldDescriptor& field);

/// Calls `visit(path, held)` for each message that `field` of `message` holds,
/// `path` being the field's: for each element of a list, or for the one, set or
/// not.
void ForEachMessageIn(
    const std::string& path, const google::protobuf::FieldDescriptor& field,
    const google::protobuf::Message& message,
    const std::function<void(const std::string& path,
                             const google::protobuf::Message& held)>& visit);

/// The shortest decimal text that reads back as `value`.
std::string ShortestNumber(double value);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_FIELD_RULES_H_
