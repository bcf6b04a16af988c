// deltapipe-lab: codecs and optimizers on files, one command an experiment.
// `deltapipe lab ...` runs this program.
//
//   deltapipe-lab codec --codec "int(4)" --in x.safetensors --out y.safetensors
//   deltapipe-lab codecs --json
//   deltapipe-lab sweep --in x.safetensors --plot x.svg
//   deltapipe-lab optimizer --algorithm onebit_lamb --ranks 4
//       --gradients g.safetensors --parameters w.safetensors
//       --set compress_after_step=100 --out after.safetensors
//
// Data goes to `out`; errors, one sentence each, to `err`.
#ifndef DELTAPIPE_WORKER_LAB_LAB_H_
#define DELTAPIPE_WORKER_LAB_LAB_H_

#include <ostream>

namespace deltapipe {

/// Runs one command line. Returns the exit code: 0, or 2 for a usage error, a
/// text with a mistake or a bad file.
int RunLab(int argc, const char* const* argv, std::ostream& out,
           std::ostream& err);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_LAB_LAB_H_
