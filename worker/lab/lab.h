// deltapipe-lab: codecs on files, one command an experiment. `deltapipe lab
// ...` runs this program.
//
//   deltapipe-lab codec --codec "int(4)" --in x.safetensors --out y.safetensors
//   deltapipe-lab codecs --json
//
// Data goes to `out`; errors, one sentence each, to `err`.
#ifndef DELTAPIPE_WORKER_LAB_LAB_H_
#define DELTAPIPE_WORKER_LAB_LAB_H_

#include <ostream>

namespace deltapipe {

/// Runs one command line. Returns the exit code: 0, or 2 for a usage error, a
/// codec text with a mistake or a bad file.
int RunLab(int argc, const char* const* argv, std::ostream& out,
           std::ostream& err);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_LAB_H_
