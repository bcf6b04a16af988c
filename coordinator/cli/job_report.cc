#include "coordinator/cli/job_report.h"

#include <ctime>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "base/units.h"
#include "coordinator/cli/progress.h"
#include "coordinator/cli/saved_text.h"
#include "coordinator/cli/table.h"
#include "coordinator/store/job_state.h"

namespace deltapipe {
namespace {

std::string LossText(double loss) {
  return loss > 0 ? absl::StrFormat("%.4f", loss) : "-";
}

void AddTraffic(const std::string& what, int64_t raw, int64_t wire,
                Table* table) {
  const double raw_bytes = static_cast<double>(raw);
  const double wire_bytes = static_cast<double>(wire);
  table->AddRow({what, FormatBytes(raw_bytes), FormatBytes(wire_bytes),
                 RatioText(raw_bytes, wire_bytes)});
}

/// "12 frames sent again, 3 bad checksums", or "" where nothing happened.
std::string FaultsText(const v1::FaultCounters& faults) {
  std::vector<std::string> parts;
  const auto add = [&](int64_t count, const char* what) {
    if (count > 0) parts.push_back(absl::StrCat(FormatCount(count), " ", what));
  };
  add(faults.frames_resent(), "sent again");
  add(faults.bad_checksums(), "with a bad checksum");
  add(faults.keyframes(), "healed by keyframes");
  add(faults.refused(), "refused");
  return absl::StrJoin(parts, ", ");
}

}  // namespace

std::string EmulationText(const v1::JobSpec& spec) {
  const v1::LinkSpec& link = spec.network().emulate();
  const auto bandwidth = ParseBandwidth(link.bandwidth());
  const auto latency = ParseDuration(link.latency());
  const double bits = bandwidth.ok() ? *bandwidth : 0;
  const Nanos delay = latency.ok() ? *latency : Nanos(0);
  if (bits == 0 && delay.count() == 0) return "";
  std::string text = absl::StrCat("emulated links: ", FormatBandwidth(bits));
  if (delay.count() > 0) {
    absl::StrAppend(&text, ", ", FormatDuration(delay), " each way");
  }
  return text + " (network.emulate)";
}

std::string JobBanner(const v1::JobSpec& spec) {
  const v1::ModelSpec& model = spec.model();
  std::string text = absl::StrCat(
      spec.name(), ": ", model.kind(), ", ", Plural(model.layers(), "layer"),
      ", width ", model.width(), ", ",
      Plural(spec.parallel().stages(), "stage"), " x ",
      Plural(spec.parallel().replicas(), "replica"), ", ",
      Plural(spec.train().steps(), "step"), " of ", spec.train().batch(),
      " samples, ", spec.train().optimizer().kind());
  const std::string emulation = EmulationText(spec);
  return emulation.empty() ? text : absl::StrCat(text, "; ", emulation);
}

std::string SummaryTable(const v1::Job& job) {
  const v1::JobResult& result = job.result();
  Table traffic({"", "raw", "on the wire", "ratio"},
                {Align::kLeft, Align::kRight, Align::kRight, Align::kRight});
  AddTraffic("activations", result.activation_raw_bytes(),
             result.activation_wire_bytes(), &traffic);
  AddTraffic("gradients", result.gradient_raw_bytes(),
             result.gradient_wire_bytes(), &traffic);
  traffic.AddRow(
      {"evaluation", "",
       FormatBytes(static_cast<double>(result.evaluation_wire_bytes()))});
  traffic.AddRow({"other", "",
                  FormatBytes(static_cast<double>(result.other_wire_bytes()))});

  Table facts({"", ""});
  facts.AddRow({"state", StateName(job.state())});
  facts.AddRow(
      {"steps", absl::StrCat(FormatCount(result.steps()), " of ",
                             FormatCount(job.spec().train().steps()))});
  facts.AddRow({"train loss", LossText(result.train_loss())});
  facts.AddRow({"validation loss", LossText(result.validation_loss())});
  if (result.has_validation_accuracy()) {
    facts.AddRow(
        {"accuracy",
         absl::StrFormat("%.2f %%", 100 * result.validation_accuracy())});
  }
  facts.AddRow({"tokens/s",
                FormatCount(static_cast<int64_t>(result.tokens_per_second()))});
  facts.AddRow(
      {"s/step (median)", absl::StrFormat("%.3f", result.seconds_per_step())});
  facts.AddRow({"wall time", ClockText(result.wall_seconds())});
  if (result.samples_dropped() > 0) {
    facts.AddRow({"samples dropped",
                  absl::StrCat(FormatCount(result.samples_dropped()), " of ",
                               FormatCount(result.samples_applied() +
                                           result.samples_dropped()))});
  }
  const auto saved_raw = static_cast<double>(result.saved_raw_bytes());
  const auto saved_stored = static_cast<double>(result.saved_stored_bytes());
  if (saved_raw > 0 && saved_stored > 0) {
    facts.AddRow({"saved", SavedText(saved_raw, saved_stored)});
  }
  const std::string faults = FaultsText(result.faults());
  if (!faults.empty()) facts.AddRow({"link faults", faults});
  return absl::StrCat(traffic.ToString(), "\n", facts.ToString());
}

Json ResultJson(const v1::Job& job) {
  const v1::JobResult& result = job.result();
  Json object;
  object["event"] = "result";
  object["schema"] = "deltapipe.v1.JobResult";
  object["job"] = job.id();
  object["state"] = StateName(job.state());
  object["reason"] = job.reason();
  object["steps"] = result.steps();
  object["train_loss"] = result.train_loss();
  object["validation_loss"] = result.validation_loss();
  if (result.has_validation_accuracy()) {
    object["validation_accuracy"] = result.validation_accuracy();
  }
  object["tokens_per_second"] = result.tokens_per_second();
  object["seconds_per_step"] = result.seconds_per_step();
  object["wall_seconds"] = result.wall_seconds();
  object["activation_raw_bytes"] = result.activation_raw_bytes();
  object["activation_wire_bytes"] = result.activation_wire_bytes();
  object["gradient_raw_bytes"] = result.gradient_raw_bytes();
  object["gradient_wire_bytes"] = result.gradient_wire_bytes();
  object["evaluation_wire_bytes"] = result.evaluation_wire_bytes();
  object["other_wire_bytes"] = result.other_wire_bytes();
  object["samples_applied"] = result.samples_applied();
  object["samples_dropped"] = result.samples_dropped();
  object["saved_raw_bytes"] = result.saved_raw_bytes();
  object["saved_stored_bytes"] = result.saved_stored_bytes();
  object["faults"] = FaultsJson(result.faults());
  object["run_folder"] = ModelFolder(job);
  return object;
}

Json EventJson(const v1::JobEvent& event) {
  if (event.kind() == "step") return StepJson(event.step());
  Json object;
  object["event"] = event.kind();
  object["schema"] = "deltapipe.v1.JobEvent";
  object["sequence"] = event.sequence();
  object["time_millis"] = event.time_millis();
  if (event.state() != v1::JOB_STATE_UNSPECIFIED) {
    object["state"] = StateName(event.state());
  }
  object["text"] = event.text();
  if (event.has_step()) {
    object["step"] = StepsDone(event.step());
    if (event.step().validation_loss() > 0) {
      object["validation_loss"] = event.step().validation_loss();
    }
    if (event.step().has_validation_accuracy()) {
      object["validation_accuracy"] = event.step().validation_accuracy();
    }
  }
  return object;
}

std::string TimeText(int64_t unix_millis) {
  if (unix_millis == 0) return "-";
  const std::time_t seconds = static_cast<std::time_t>(unix_millis / 1000);
  std::tm parts;
  localtime_r(&seconds, &parts);
  char text[32];
  std::strftime(text, sizeof(text), "%Y-%m-%d %H:%M:%S", &parts);
  return text;
}

std::string ModelFolder(const v1::Job& job) {
  return job.model_folder().empty() ? job.run_folder() : job.model_folder();
}

}  // namespace deltapipe
