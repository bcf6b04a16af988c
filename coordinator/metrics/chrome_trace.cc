#include "coordinator/metrics/chrome_trace.h"

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <utility>

#include "absl/strings/str_cat.h"
#include "nlohmann/json.hpp"

namespace deltapipe {
namespace {

using Json = nlohmann::ordered_json;

Json Named(const char* what, int process, int thread, const Json& arguments) {
  return Json{{"ph", "M"},
              {"name", what},
              {"pid", process},
              {"tid", thread},
              {"args", arguments}};
}

double Micros(int64_t nanos) { return static_cast<double>(nanos) / 1e3; }

}  // namespace

std::string ChromeTrace(const std::vector<RankTrace>& traces) {
  int64_t begin = std::numeric_limits<int64_t>::max();
  std::map<std::pair<int, int>, int> processes;  // stage, replica
  for (const RankTrace& rank : traces) {
    processes[{rank.stage, rank.replica}] = 0;
    for (const v1::TraceSpan& span : rank.trace.spans()) {
      begin = std::min(begin, span.begin_nanos());
    }
  }
  Json events = Json::array();
  int next = 0;
  for (auto& [place, process] : processes) {
    process = next++;
    events.push_back(Named(
        "process_name", process, 0,
        {{"name",
          absl::StrCat("stage ", place.first, ", replica ", place.second)}}));
    events.push_back(
        Named("process_sort_index", process, 0, {{"sort_index", process}}));
  }
  std::map<std::pair<int, std::string>, int> threads;
  std::map<int, int> num_threads;  // by process
  for (const RankTrace& rank : traces) {
    const int process = processes[{rank.stage, rank.replica}];
    for (const v1::TraceSpan& span : rank.trace.spans()) {
      const auto [thread, is_first] =
          threads.try_emplace({process, span.thread()}, num_threads[process]);
      if (is_first) {
        events.push_back(Named("thread_name", process, thread->second,
                               {{"name", span.thread()}}));
        ++num_threads[process];
      }
      events.push_back(
          {{"ph", "X"},
           {"name", span.name()},
           {"cat", "step"},
           {"pid", process},
           {"tid", thread->second},
           {"ts", Micros(span.begin_nanos() - begin)},
           {"dur", Micros(std::max<int64_t>(
                       0, span.end_nanos() - span.begin_nanos()))},
           {"args",
            {{"step", rank.trace.step()}, {"microbatch", span.microbatch()}}}});
    }
  }
  const Json document = {{"displayTimeUnit", "ms"},
                         {"traceEvents", std::move(events)}};
  // Names come from workers: invalid UTF-8 becomes the replacement character.
  return document.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace deltapipe
