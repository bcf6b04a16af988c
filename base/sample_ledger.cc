#include "base/sample_ledger.h"

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>

#include "absl/strings/str_cat.h"

namespace deltapipe {
namespace {

constexpr size_t kMaxFindings = 100;
constexpr int64_t kMaxSteps = int64_t{1} << 40;
constexpr int64_t kMaxSamplesPerStep = int64_t{1} << 20;

/// Steps that count: a range, or what later generations left of it.
struct Segment {
  uint64_t generation;
  int64_t first_step;
  int64_t end_step;
  int64_t applied;
  int64_t dropped;
};

/// Steps of one epoch, counted from its beginning.
struct Piece {
  int64_t epoch;
  int64_t first;
  int64_t end;
  uint64_t generation;
};

std::string Steps(int64_t first, int64_t end) {
  return end - first == 1 ? absl::StrCat("step ", first)
                          : absl::StrCat("steps ", first, " to ", end - 1);
}

class Auditor {
 public:
  explicit Auditor(const LedgerQuestion& question)
      : question_(question), order_(question.order) {
    audit_.samples_per_step = order_.samples_per_step();
  }

  LedgerAudit Run() {
    std::vector<LedgerRange> ranges = question_.ranges;
    std::sort(ranges.begin(), ranges.end(),
              [](const LedgerRange& a, const LedgerRange& b) {
                return std::tie(a.generation, a.first_step, a.end_step) <
                       std::tie(b.generation, b.first_step, b.end_step);
              });
    for (size_t i = 0; i < ranges.size(); ++i) {
      if (!IsReadable(ranges[i])) continue;
      if (!generation_ || *generation_ != ranges[i].generation) {
        Replace(ranges[i]);
      }
      generation_ = ranges[i].generation;
      // A generation may have ended before its first step was done.
      if (ranges[i].end_step == ranges[i].first_step) continue;
      Append(ranges[i]);
    }
    AddUp();
    CheckSamples();
    return std::move(audit_);
  }

 private:
  void Find(const std::string& what) {
    if (audit_.findings.size() < kMaxFindings) audit_.findings.push_back(what);
  }

  int64_t Samples(int64_t num_steps) const {
    return num_steps * audit_.samples_per_step;
  }
  int64_t EndStep() const {
    return segments_.empty() ? 0 : segments_.back().end_step;
  }

  bool IsReadable(const LedgerRange& range) {
    const std::string name =
        absl::StrCat("generation ", range.generation, ", ",
                     Steps(range.first_step, range.end_step));
    if (range.first_step < 0 || range.end_step < range.first_step ||
        range.end_step > kMaxSteps) {
      Find(absl::StrCat("generation ", range.generation, " has steps from ",
                        range.first_step, " until ", range.end_step,
                        ": that is no range"));
      return false;
    }
    const int64_t expected = Samples(range.end_step - range.first_step);
    if (range.samples_applied < 0 || range.samples_dropped < 0 ||
        range.samples_applied > expected || range.samples_dropped > expected) {
      Find(absl::StrCat(name, ": applied ", range.samples_applied,
                        " and dropped ", range.samples_dropped,
                        " samples, expected ", expected, " in all"));
      return false;
    }
    if (range.samples_applied + range.samples_dropped != expected) {
      Find(absl::StrCat(name, ": applied ", range.samples_applied,
                        " + dropped ", range.samples_dropped, " = ",
                        range.samples_applied + range.samples_dropped,
                        " samples, expected ", expected));
    }
    return true;
  }

  /// Takes away what the generation that begins with `range` has done again.
  void Replace(const LedgerRange& range) {
    while (!segments_.empty() &&
           segments_.back().first_step >= range.first_step) {
      const Segment& last = segments_.back();
      audit_.replaced += Samples(last.end_step - last.first_step);
      segments_.pop_back();
    }
    int64_t dropped = 0;
    for (const Segment& segment : segments_) dropped += segment.dropped;
    if (EndStep() > range.first_step) {
      dropped += Shorten(range, dropped - segments_.back().dropped);
    }
    if (range.dropped_before >= 0 && range.dropped_before != dropped) {
      Find(absl::StrCat("generation ", range.generation, " began at step ",
                        range.first_step, " with ", range.dropped_before,
                        " samples dropped, expected ", dropped));
    }
  }

  /// Ends the last segment where `range` begins; `dropped_earlier` is that of
  /// the segments before. Returns by how much what it dropped changes.
  int64_t Shorten(const LedgerRange& range, int64_t dropped_earlier) {
    Segment& last = segments_.back();
    const int64_t former = last.dropped;
    const int64_t cut = Samples(last.end_step - range.first_step);
    const int64_t kept = Samples(range.first_step - last.first_step);
    // Which of its steps dropped them is not recorded.
    const int64_t least = std::max<int64_t>(0, former - cut);
    const int64_t most = std::min(former, kept);
    last.dropped = least;
    if (range.dropped_before >= 0) {
      last.dropped =
          std::clamp(range.dropped_before - dropped_earlier, least, most);
    } else if (least < most) {
      audit_.notes.push_back(
          absl::StrCat("generation ", last.generation, " dropped ", former,
                       " samples; how many of them in steps that generation ",
                       range.generation,
                       " did again, is not recorded: counted as all of "
                       "them"));
    }
    last.end_step = range.first_step;
    last.applied = kept - last.dropped;
    audit_.replaced += cut;
    return last.dropped - former;
  }

  void Append(const LedgerRange& range) {
    const int64_t end = EndStep();
    if (range.first_step > end) {
      Find(absl::StrCat(Steps(end, range.first_step),
                        " is in no range before generation ", range.generation,
                        " begins"));
    } else if (range.first_step < end) {
      Find(absl::StrCat("generation ", range.generation, " has done ",
                        Steps(range.first_step, std::min(end, range.end_step)),
                        " twice"));
    }
    segments_.push_back({range.generation, range.first_step, range.end_step,
                         range.samples_applied, range.samples_dropped});
  }

  void AddUp() {
    int64_t end = 0;
    for (const Segment& segment : segments_) {
      audit_.num_steps += segment.end_step - segment.first_step;
      audit_.applied += segment.applied;
      audit_.dropped += segment.dropped;
      end = std::max(end, segment.end_step);
    }
    if (question_.num_steps_begun < end ||
        question_.num_steps_begun > kMaxSteps) {
      Find(absl::StrCat("the ledger ends with step ", end - 1, ", but ",
                        question_.num_steps_begun, " steps were begun"));
      return;
    }
    audit_.consumed = Samples(question_.num_steps_begun);
    audit_.pending = Samples(question_.num_steps_begun - end);
    const int64_t sum = audit_.applied + audit_.dropped + audit_.pending;
    if (sum != audit_.consumed) {
      Find(absl::StrCat("applied ", audit_.applied, " + dropped ",
                        audit_.dropped, " + pending ", audit_.pending, " = ",
                        sum, " samples, expected ", audit_.consumed,
                        " consumed"));
    }
  }

  /// Cuts the segments where epochs end.
  std::vector<Piece> Pieces() const {
    const int64_t rounds = order_.steps_per_epoch();
    std::vector<Piece> pieces;
    for (const Segment& segment : segments_) {
      for (int64_t step = segment.first_step; step < segment.end_step;) {
        const int64_t epoch = step / rounds;
        const int64_t end = std::min(segment.end_step, (epoch + 1) * rounds);
        pieces.push_back({epoch, step - epoch * rounds, end - epoch * rounds,
                          segment.generation});
        step = end;
      }
    }
    std::stable_sort(
        pieces.begin(), pieces.end(),
        [](const Piece& a, const Piece& b) { return a.epoch < b.epoch; });
    return pieces;
  }

  void CheckSamples() {
    if (segments_.empty()) return;
    const int64_t rounds = order_.steps_per_epoch();
    if (rounds < 1) {
      Find(absl::StrCat(question_.order.num_samples,
                        " samples are in the data, but one step takes ",
                        audit_.samples_per_step));
      return;
    }
    // Each epoch that is touched costs at least its shuffle.
    const int64_t num_epochs =
        audit_.num_steps / rounds + 2 * static_cast<int64_t>(segments_.size());
    if (num_epochs > question_.max_samples / question_.order.num_samples &&
        Samples(audit_.num_steps) > question_.max_samples) {
      audit_.notes.push_back(
          absl::StrCat("samples were not looked at one by one: more than ",
                       question_.max_samples));
      return;
    }
    const std::vector<Piece> pieces = Pieces();
    std::vector<uint64_t> seen;
    for (size_t i = 0; i < pieces.size(); ++i) {
      if (i == 0 || pieces[i].epoch != pieces[i - 1].epoch) {
        seen.assign(static_cast<size_t>(question_.order.num_samples / 64 + 1),
                    0);
      }
      MarkPiece(pieces[i], &seen);
    }
  }

  void MarkPiece(const Piece& piece, std::vector<uint64_t>* seen) {
    const int64_t microbatch = question_.order.microbatch;
    const int64_t num_slots = question_.order.num_slots;
    int64_t num_repeated = 0;
    int64_t first_repeated = 0;
    for (int64_t slot = 0; slot < num_slots; ++slot) {
      const std::vector<uint32_t>& order = order_.ShardOrder(piece.epoch, slot);
      for (int64_t i = piece.first * microbatch; i < piece.end * microbatch;
           ++i) {
        const int64_t sample =
            int64_t{order[static_cast<size_t>(i)]} * num_slots + slot;
        uint64_t& word = (*seen)[static_cast<size_t>(sample / 64)];
        const uint64_t bit = uint64_t{1} << (sample % 64);
        if ((word & bit) != 0 && num_repeated++ == 0) first_repeated = sample;
        word |= bit;
      }
    }
    audit_.num_samples_checked += Samples(piece.end - piece.first);
    if (num_repeated > 0) {
      const int64_t begin = piece.epoch * order_.steps_per_epoch();
      Find(absl::StrCat(num_repeated, " samples were used twice in epoch ",
                        piece.epoch, ", sample ", first_repeated,
                        " among them: again by generation ", piece.generation,
                        " in ", Steps(begin + piece.first, begin + piece.end)));
    }
  }

  const LedgerQuestion& question_;
  SampleOrder order_;
  std::optional<uint64_t> generation_;  // of the range before
  std::vector<Segment> segments_;
  LedgerAudit audit_;
};

}  // namespace

LedgerAudit AuditLedger(const LedgerQuestion& question) {
  const SampleOrderOptions& order = question.order;
  if (order.num_slots < 1 || order.microbatch < 1 ||
      order.num_slots > kMaxSamplesPerStep ||
      order.microbatch > kMaxSamplesPerStep / order.num_slots ||
      order.num_samples < 0 || order.num_samples > UINT32_MAX) {
    LedgerAudit audit;
    audit.findings.push_back(absl::StrCat(
        "a data set of ", order.num_samples, " samples in ", order.num_slots,
        " slots of ", order.microbatch, " samples is none"));
    return audit;
  }
  return Auditor(question).Run();
}

}  // namespace deltapipe
