#include "coordinator/stragglers/straggler_memory.h"

#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

Json ScopeJson(const WorkerScope& scope) {
  return Json::array({scope.stage, scope.replica});
}

Json FindingJson(const StragglerFinding& finding, int64_t found_millis) {
  return Json{{"scope", ScopeJson(finding.scope)},
              {"cause", static_cast<int>(finding.cause)},
              {"shift", finding.shift},
              {"seconds_lost_per_step", finding.seconds_lost_per_step},
              {"since_step", finding.since_step},
              {"found_millis", found_millis}};
}

Json BaselineJson(const StragglerBaseline& baseline) {
  return Json{{"scope", ScopeJson(baseline.scope)},
              {"cause", static_cast<int>(baseline.cause)},
              {"seconds", baseline.seconds}};
}

Json ReportJson(const WhatIfReport& report) {
  return Json{{"step_seconds", report.step_seconds},
              {"ideal_seconds", report.ideal_seconds},
              {"slowdown", report.slowdown},
              {"stage_scores", report.stage_scores},
              {"replica_scores", report.replica_scores},
              {"worst", ScopeJson(report.worst)},
              {"worst_seconds_lost", report.worst_seconds_lost},
              {"last_stage_seconds_lost", report.last_stage_seconds_lost},
              {"last_stage_share", report.last_stage_share},
              {"best_fix", ScopeJson(report.best_fix)},
              {"best_fix_seconds", report.best_fix_seconds}};
}

/// Reads a text; after the first thing that does not fit, nothing more.
class Reader {
 public:
  Reader(int num_stages, int num_replicas)
      : num_stages_(num_stages), num_replicas_(num_replicas) {}

  absl::StatusOr<StragglerMemory> Read(const std::string& text) {
    const Json json = Json::parse(text, nullptr, /*allow_exceptions=*/false);
    StragglerMemory memory;
    memory.generation = static_cast<uint64_t>(Integer(json, "generation"));
    memory.last_step = Integer(json, "last_step");
    for (const Json& one : Array(json, "findings")) {
      StragglerFinding finding;
      finding.scope = Scope(one, "scope");
      finding.cause = Cause(one);
      finding.shift = Number(one, "shift");
      finding.seconds_lost_per_step = Number(one, "seconds_lost_per_step");
      finding.since_step = Integer(one, "since_step");
      memory.findings.push_back(finding);
      memory.found_millis.push_back(Integer(one, "found_millis"));
    }
    for (const Json& one : Array(json, "baselines")) {
      memory.baselines.push_back(
          {Scope(one, "scope"), Cause(one), Numbers(one, "seconds")});
    }
    if (json.is_object() && json.contains("report")) {
      memory.report = Report(json["report"]);
    }
    if (!wrong_.empty()) {
      return absl::DataLossError(
          absl::StrCat("what was stored of stragglers (", text.size(),
                       " bytes) cannot be read: ", wrong_));
    }
    return memory;
  }

 private:
  void Refuse(const char* field) {
    if (wrong_.empty()) wrong_ = absl::StrCat("its '", field, "'");
  }

  const Json& Member(const Json& json, const char* field) {
    static const Json* const none = new Json;
    if (json.is_object() && json.contains(field)) return json[field];
    Refuse(field);
    return *none;
  }
  int64_t Integer(const Json& json, const char* field) {
    const Json& value = Member(json, field);
    if (value.is_number_integer()) return value.get<int64_t>();
    Refuse(field);
    return 0;
  }
  double Number(const Json& json, const char* field) {
    const Json& value = Member(json, field);
    if (value.is_number()) return value.get<double>();
    Refuse(field);
    return 0;
  }
  const Json& Array(const Json& json, const char* field) {
    static const Json* const empty = new Json(Json::array());
    const Json& value = Member(json, field);
    if (value.is_array()) return value;
    Refuse(field);
    return *empty;
  }
  std::vector<double> Numbers(const Json& json, const char* field) {
    std::vector<double> numbers;
    for (const Json& value : Array(json, field)) {
      if (!value.is_number()) {
        Refuse(field);
        return {};
      }
      numbers.push_back(value.get<double>());
    }
    return numbers;
  }
  WorkerScope Scope(const Json& json, const char* field) {
    const Json& value = Array(json, field);
    const auto fits = [](const Json& number, int count) {
      return number.is_number_integer() && number.get<int64_t>() >= -1 &&
             number.get<int64_t>() < count;
    };
    if (value.size() == 2 && fits(value[0], num_stages_) &&
        fits(value[1], num_replicas_)) {
      return {value[0].get<int>(), value[1].get<int>()};
    }
    Refuse(field);
    return {};
  }
  StragglerCause Cause(const Json& json) {
    const int64_t cause = Integer(json, "cause");
    if (cause >= 0 &&
        cause <= static_cast<int64_t>(StragglerCause::kSequenceLength)) {
      return static_cast<StragglerCause>(cause);
    }
    Refuse("cause");
    return StragglerCause::kCompute;
  }
  WhatIfReport Report(const Json& json) {
    WhatIfReport report;
    report.step_seconds = Number(json, "step_seconds");
    report.ideal_seconds = Number(json, "ideal_seconds");
    report.slowdown = Number(json, "slowdown");
    report.stage_scores = Numbers(json, "stage_scores");
    report.replica_scores = Numbers(json, "replica_scores");
    report.worst = Scope(json, "worst");
    report.worst_seconds_lost = Number(json, "worst_seconds_lost");
    report.last_stage_seconds_lost = Number(json, "last_stage_seconds_lost");
    report.last_stage_share = Number(json, "last_stage_share");
    report.best_fix = Scope(json, "best_fix");
    report.best_fix_seconds = Number(json, "best_fix_seconds");
    if (report.stage_scores.size() != static_cast<size_t>(num_stages_)) {
      Refuse("stage_scores");
    }
    if (report.replica_scores.size() != static_cast<size_t>(num_replicas_)) {
      Refuse("replica_scores");
    }
    return report;
  }

  const int num_stages_;
  const int num_replicas_;
  std::string wrong_;  // empty: nothing
};

}  // namespace

std::string StragglerMemoryText(const StragglerMemory& memory) {
  if (memory.last_step < 0) return "";
  Json json = {{"generation", memory.generation},
               {"last_step", memory.last_step},
               {"findings", Json::array()},
               {"baselines", Json::array()}};
  for (size_t i = 0; i < memory.findings.size(); ++i) {
    const int64_t millis =
        i < memory.found_millis.size() ? memory.found_millis[i] : 0;
    json["findings"].push_back(FindingJson(memory.findings[i], millis));
  }
  for (const StragglerBaseline& baseline : memory.baselines) {
    json["baselines"].push_back(BaselineJson(baseline));
  }
  if (memory.report.has_value()) json["report"] = ReportJson(*memory.report);
  return json.dump();
}

absl::StatusOr<StragglerMemory> ReadStragglerMemory(const std::string& text,
                                                    int num_stages,
                                                    int num_replicas) {
  return Reader(num_stages, num_replicas).Read(text);
}

}  // namespace deltapipe
