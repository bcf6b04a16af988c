// The sample ledger of a job: which steps were done by which generation, and
// whether every sample that was drawn is accounted for exactly once:
//
//   applied + dropped + pending = consumed
//
// The coordinator keeps the ranges, `deltapipe job audit` prints the answer.
// Where a later generation begins before an earlier one has ended (it went back
// to a checkpoint), its steps replace the earlier ones. Samples are checked one
// by one against the order in which workers draw them (base/sample_order.h).
//
// A pure function; 10^7 samples take well under a second.
#ifndef DELTAPIPE_BASE_SAMPLE_LEDGER_H_
#define DELTAPIPE_BASE_SAMPLE_LEDGER_H_

#include <cstdint>
#include <string>
#include <vector>

#include "base/sample_order.h"

namespace deltapipe {

/// Steps [first_step, end_step) that a generation has done.
struct LedgerRange {
  uint64_t generation = 0;
  int64_t first_step = 0;
  int64_t end_step = 0;
  /// Of the samples of these steps; together all of them.
  int64_t samples_applied = 0;
  int64_t samples_dropped = 0;
  /// Dropped in all steps before first_step since the job's beginning, if it is
  /// known (a checkpoint's manifest has it), else -1.
  int64_t dropped_before = -1;
};

struct LedgerQuestion {
  SampleOrderOptions order;
  std::vector<LedgerRange> ranges;  // in any order
  /// Steps whose samples were handed out, those in flight included.
  int64_t num_steps_begun = 0;
  /// More samples than this are not looked at one by one.
  int64_t max_samples = int64_t{10} * 1000 * 1000 * 1000;
};

struct LedgerAudit {
  int64_t num_steps = 0;  // done and not replaced
  int64_t samples_per_step = 0;
  int64_t consumed = 0;
  int64_t applied = 0;
  int64_t dropped = 0;
  int64_t pending = 0;
  /// Samples of steps that a later generation has done again.
  int64_t replaced = 0;
  int64_t num_samples_checked = 0;  // one by one
  /// What is wrong, one sentence each; at most 100.
  std::vector<std::string> findings;
  /// What could not be told.
  std::vector<std::string> notes;

  bool is_sound() const { return findings.empty(); }
};

LedgerAudit AuditLedger(const LedgerQuestion& question);

}  // namespace deltapipe

#endif  // DELTAPIPE_BASE_SAMPLE_LEDGER_H_
