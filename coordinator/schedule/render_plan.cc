#include "coordinator/schedule/render_plan.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "base/units.h"
#include "coordinator/schedule/pipeline_model.h"
#include "coordinator/schedule/schedule.h"
#include "coordinator/schedule/simulate.h"

namespace deltapipe {
namespace {

std::string Seconds(double seconds) {
  return FormatDuration(std::chrono::duration_cast<std::chrono::nanoseconds>(
      std::chrono::duration<double>(seconds)));
}

/// Rows of cells as lines; columns as wide as their widest cell, to the right,
/// except those in `left`.
std::string Table(const std::vector<std::vector<std::string>>& rows,
                  const std::vector<size_t>& left) {
  std::vector<size_t> widths(rows[0].size(), 0);
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) {
      widths[c] = std::max(widths[c], row[c].size());
    }
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      const bool is_left = std::count(left.begin(), left.end(), c) > 0;
      const std::string pad(widths[c] - row[c].size(), ' ');
      absl::StrAppend(&line, c > 0 ? "  " : "", is_left ? "" : pad, row[c],
                      is_left ? pad : "");
    }
    line.erase(line.find_last_not_of(' ') + 1);
    absl::StrAppend(&text, line, "\n");
  }
  return text;
}

std::string Layers(const v1::StagePlan& stage) {
  return stage.end_layer() - stage.first_layer() == 1
             ? absl::StrCat(stage.first_layer())
             : absl::StrCat(stage.first_layer(), "-", stage.end_layer() - 1);
}

std::string StageTable(const v1::Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"stage", "layers", "parameters", "forward", "backward", "in flight",
       "memory"}};
  for (const v1::StagePlan& stage : plan.stages()) {
    rows.push_back(
        {absl::StrCat(stage.stage()), Layers(stage),
         FormatCount(stage.parameters()), Seconds(stage.forward_seconds()),
         Seconds(stage.backward_seconds()), absl::StrCat(stage.max_in_flight()),
         FormatBytes(static_cast<double>(stage.memory_bytes()))});
  }
  return Table(rows, {});
}

/// Of the stage with most of it, with and without train.optimizer.shard_state.
std::string OptimizerLine(const v1::Plan& plan) {
  const v1::StagePlan* most = &plan.stages(0);
  for (const v1::StagePlan& stage : plan.stages()) {
    if (stage.optimizer_bytes() > most->optimizer_bytes()) most = &stage;
  }
  const auto bytes = [](int64_t count) {
    return FormatBytes(static_cast<double>(count));
  };
  std::string text =
      absl::StrCat("optimizer state: ", bytes(most->optimizer_bytes()),
                   " of a worker's memory");
  const int64_t replicated = most->optimizer_replicated_bytes();
  const int64_t sharded = most->optimizer_sharded_bytes();
  if (plan.num_replicas() == 1 || sharded == 0) return text + "\n";
  if (most->optimizer_bytes() == sharded) {
    absl::StrAppend(&text, ", shared out; ", bytes(replicated),
                    " if each replica kept it all\n");
  } else {
    absl::StrAppend(&text, "; ", bytes(sharded),
                    " with train.optimizer.shard_state: on\n");
  }
  return text;
}

/// "210 MB -> 27.1 MB (7.75x)".
std::string Shrunk(double raw, double wire) {
  std::string text = absl::StrCat(FormatBytes(raw), " -> ", FormatBytes(wire));
  if (wire > 0 && raw > 0) absl::StrAppendFormat(&text, " (%.3gx)", raw / wire);
  return text;
}

std::string LinkTable(const v1::Plan& plan) {
  std::vector<std::vector<std::string>> rows = {
      {"link", "activations", "their gradients", "first visit", "state"}};
  for (const v1::LinkPlan& link : plan.links()) {
    rows.push_back(
        {absl::StrCat(link.boundary(), " - ", link.boundary() + 1),
         Shrunk(link.activation_raw_bytes(), link.activation_wire_bytes()),
         Shrunk(link.gradient_raw_bytes(), link.gradient_wire_bytes()),
         FormatBytes(link.first_visit_wire_bytes()),
         link.state_bytes() > 0 ? FormatBytes(link.state_bytes()) : "none"});
  }
  return Table(rows, {0, 1, 2});
}

/// Something that a step keeps busy, and for how long.
struct Load {
  std::string name;
  double seconds = 0;
};

Load BusiestOf(const PipelineModel& model, const Simulation& simulation) {
  Load busiest;
  const auto consider = [&busiest](const std::string& name, double seconds) {
    if (seconds > busiest.seconds) busiest = {name, seconds};
  };
  for (size_t r = 0; r < model.stages.size(); ++r) {
    consider(absl::StrCat("compute of stage ", r),
             simulation.stages[r].busy_seconds);
    consider(absl::StrCat("gradient synchronisation of stage ", r),
             model.stages[r].reduce_seconds);
  }
  for (size_t b = 0; b < simulation.links.size(); ++b) {
    const std::string link = absl::StrCat("link ", b, " - ", b + 1, ", ");
    consider(absl::StrCat(link, "activations"),
             simulation.links[b].activation_busy_seconds);
    consider(absl::StrCat(link, "their gradients"),
             simulation.links[b].gradient_busy_seconds);
  }
  return busiest;
}

/// How long a step takes while its samples are new, if that is longer.
std::string FirstVisitLine(const v1::Plan& plan, const v1::JobSpec& spec,
                           double later_seconds) {
  const auto model = ModelOfPlan(plan, spec, Visit::kFirst);
  if (!model.ok()) return "";
  const auto simulation = Simulate(NominalProgramsOf(plan), *model);
  if (!simulation.ok() || simulation->step_seconds < 1.01 * later_seconds) {
    return "";
  }
  return absl::StrCat("           ", Seconds(simulation->step_seconds),
                      " while samples are on their first visit\n");
}

std::string StepLines(const v1::Plan& plan, const v1::JobSpec& spec) {
  const double seconds = plan.predicted_step_seconds();
  std::string text =
      absl::StrCat("step       ", Seconds(seconds), " predicted");
  if (seconds > 0) {
    const double rate = spec.train().batch() / seconds;
    absl::StrAppend(&text, ", ",
                    rate < 1000 ? absl::StrFormat("%.3g", rate)
                                : FormatCount(std::llround(rate)),
                    " samples/s");
  }
  const auto model = ModelOfPlan(plan, spec);
  if (!model.ok()) return text + "\n";
  const auto simulation = Simulate(NominalProgramsOf(plan), *model);
  if (!simulation.ok() || simulation->step_seconds <= 0) return text + "\n";
  const Load busiest = BusiestOf(*model, *simulation);
  absl::StrAppendFormat(&text, ", stages idle %.0f %% of it\n",
                        100 * simulation->bubble);
  absl::StrAppend(&text, FirstVisitLine(plan, spec, seconds));
  absl::StrAppendFormat(&text, "busiest    %s, %.0f %% of the step\n",
                        busiest.name,
                        100 * busiest.seconds / simulation->step_seconds);
  if (!model->links.empty()) {
    const LinkModel& link = model->links[0];
    absl::StrAppend(&text, "links      ",
                    FormatBandwidth(link.bits_per_second));
    if (link.latency_seconds > 0) {
      absl::StrAppend(&text, ", ", Seconds(link.latency_seconds), " one way");
    }
    absl::StrAppend(&text, "\n");
  }
  return text;
}

/// Of pinned host memory; empty where there is none.
std::string HostMemoryLine(const std::vector<SavedMemory>& saved,
                           int num_replicas) {
  double all = 0;
  double most = 0;
  for (const SavedMemory& stage : saved) {
    const double bytes = static_cast<double>(stage.host_bytes) *
                         static_cast<double>(stage.in_flight);
    all += bytes * num_replicas;
    most = std::max(most, bytes);
  }
  const size_t num_workers = saved.size() * static_cast<size_t>(num_replicas);
  if (all == 0) return "";
  std::string text = absl::StrCat(
      "host memory beside a device: ", FormatBytes(most), " of a worker");
  if (num_workers > 1) {
    absl::StrAppend(&text, " at most, ", FormatBytes(all), " of all ",
                    num_workers, " workers");
  }
  return text + "\n";
}

std::string GradientLine(const v1::Plan& plan) {
  std::string text = absl::StrCat(
      "parameter gradients: ", FormatBytes(plan.gradient_plain_bytes()),
      " sent per rank and step");
  if (plan.gradient_compressed_bytes() != plan.gradient_plain_bytes()) {
    absl::StrAppend(&text, ", once compressed ",
                    FormatBytes(plan.gradient_compressed_bytes()));
  }
  return text + "\n";
}

}  // namespace

std::string RenderPlan(const v1::Plan& plan, const v1::JobSpec& spec) {
  std::string text = absl::StrCat(
      spec.name().empty() ? "plan" : spec.name(), ": ",
      Plural(plan.num_stages(), "stage"), " x ",
      Plural(plan.num_replicas(), "replica"), ", ",
      absl::StrCat(plan.num_microbatches(), " micro-batch",
                   plan.num_microbatches() == 1 ? "" : "es"),
      " of ", Plural(plan.microbatch_samples(), "sample"),
      " per step and replica\n",
      plan.max_microbatches() > 0
          ? absl::StrCat("           up to ", plan.max_microbatches(),
                         " where a slow replica gets fewer\n")
          : "",
      "\n");
  absl::StrAppend(&text, "schedule   ", plan.schedule(), "\n",
                  StepLines(plan, spec));
  absl::StrAppend(&text, "codecs     activations ", plan.activation_codec(),
                  ", their gradients ", plan.activation_gradient_codec(),
                  "\n           parameter gradients ", plan.gradient_codec(),
                  "\n\n", StageTable(plan));
  if (plan.stages_size() > 0 && plan.stages(0).optimizer_bytes() > 0) {
    absl::StrAppend(&text, "\n", OptimizerLine(plan));
  }
  if (plan.links_size() > 0) {
    absl::StrAppend(&text, "\nbytes per step and replica; state at each end\n",
                    LinkTable(plan));
  }
  if (plan.num_replicas() > 1) {
    absl::StrAppend(&text, "\n", GradientLine(plan));
  }
  return text;
}

std::string RenderSavedMemory(const std::vector<SavedMemory>& saved,
                              const v1::JobSpec& spec) {
  if (saved.empty()) return "";
  std::vector<std::vector<std::string>> rows = {
      {"stage", "class", "a micro-batch", "in flight", "together"}};
  const auto add = [&rows](const SavedMemory& stage, const std::string& name,
                           int64_t raw, int64_t stored) {
    const auto before = static_cast<double>(raw);
    const auto after = static_cast<double>(stored);
    rows.push_back({absl::StrCat(stage.stage), name, Shrunk(before, after),
                    absl::StrCat(stage.in_flight),
                    Shrunk(before * stage.in_flight, after * stage.in_flight)});
  };
  for (const SavedMemory& stage : saved) {
    for (const v1::SavedClass& part : stage.classes) {
      add(stage, part.name(), part.raw_bytes(), part.stored_bytes());
    }
    if (stage.classes.size() > 1) {
      add(stage, "all", stage.raw_bytes, stage.stored_bytes);
    }
    if (stage.host_bytes > 0) {
      const auto host = static_cast<double>(stage.host_bytes);
      rows.push_back({absl::StrCat(stage.stage), "in host memory beside them",
                      FormatBytes(host), absl::StrCat(stage.in_flight),
                      FormatBytes(host * stage.in_flight)});
    }
    if (stage.recomputed_bytes > 0) {
      const std::string bytes =
          FormatBytes(static_cast<double>(stage.recomputed_bytes));
      rows.push_back({absl::StrCat(stage.stage), "computed again, on top",
                      bytes, "1", bytes});
    }
  }
  return absl::StrCat(
      "saved activations, packed by ", spec.compression().saved_activations(),
      "\n", Table(rows, {1, 2, 4}),
      HostMemoryLine(saved, std::max(spec.parallel().replicas(), 1)));
}

}  // namespace deltapipe
