// deltapipe lab saved [SPEC]: what the backward passes of a job keep in memory.
#ifndef DELTAPIPE_COORDINATOR_CLI_LAB_SAVED_H_
#define DELTAPIPE_COORDINATOR_CLI_LAB_SAVED_H_

#include <string>
#include <vector>

namespace deltapipe {

/// `words` are what follows `deltapipe lab saved`. Without a spec it lists the
/// policies; with one it has deltapipe-worker, beside this program, run a
/// micro-batch of the stage. Returns the exit code.
int RunLabSaved(std::vector<std::string> words);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_CLI_LAB_SAVED_H_
