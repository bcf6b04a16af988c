// YAML to fields of a JobSpec, by reflection over the proto.
//
// Called by SpecReading only. Types and names are checked here; ranges and the
// rest once the whole spec is known (validate.h). Proto JSON is YAML; names in
// its lowerCamelCase are understood too.
#ifndef DELTAPIPE_COORDINATOR_SPEC_YAML_FIELDS_H_
#define DELTAPIPE_COORDINATOR_SPEC_YAML_FIELDS_H_

#include <string>

#include "coordinator/spec/spec_reading.h"

namespace deltapipe {

/// Reads `text` into reading->spec and notes places and violations. False if it
/// is not YAML, or no mapping.
bool ReadYamlFields(const std::string& text, const std::string& origin,
                    SpecReading* reading);

/// Applies "train.batch=64". The value is YAML, except that a text field takes
/// it as it stands unless it begins with a quote. "groups[0].match" names an
/// element of a list; the first number beyond the last one adds an element.
/// `index` is its position among the --set, for the order of complaints.
void ReadOverride(const std::string& assignment, int index,
                  SpecReading* reading);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SPEC_YAML_FIELDS_H_
