// nccl_smoke: three processes on one GPU send each other the same payloads over
// NCCL and over TCP, and compare them byte for byte, within a minute.
//
// Exit code 0: all were equal; 1: not, or not in time; 77: this machine cannot
// run it, and why is printed. NCCL does not support several ranks on one GPU,
// but takes them for several hosts if each has a host id of its own; so this is
// a smoke test and no benchmark. It needs no test framework and takes no
// arguments, so that it can be carried to another machine with the libraries
// that it was linked with:
//
//   ldd nccl_smoke | grep -o '/[^ ]*' | xargs cp -L -t lib
//   lib/ld-linux-x86-64.so.2 --library-path lib ./nccl_smoke
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/status_macros.h"
#include "base/thread.h"
#include "worker/engine/mesh.h"
#include "worker/engine/nccl_upgrade.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {
namespace {

constexpr int kRanks = 3;
constexpr int kSkipped = 77;
constexpr std::chrono::seconds kLimit(60);
constexpr std::chrono::seconds kLimitOfOne(50);
/// Below and above what goes inline, about a chunk, and many chunks.
constexpr int64_t kSizes[] = {1,       10'000,        100'000,
                              1 << 20, (1 << 20) + 1, 20'000'003};

std::vector<uint8_t> Payload(int from, int to, int64_t size) {
  std::vector<uint8_t> bytes(static_cast<size_t>(size));
  uint32_t state = static_cast<uint32_t>(size * 31 + from * 7 + to + 1);
  for (uint8_t& byte : bytes) {
    state = state * 1664525u + 1013904223u;
    byte = static_cast<uint8_t>(state >> 24);
  }
  return bytes;
}

absl::Status SendAll(int rank, int to, const std::vector<FrameChannel*>& all,
                     Deadline deadline) {
  for (const int64_t size : kSizes) {
    const std::vector<uint8_t> bytes = Payload(rank, to, size);
    for (FrameChannel* channel : all) {
      DP_RETURN_IF_ERROR(channel->Send({}, {ByteSpan(bytes)}, deadline));
    }
  }
  for (FrameChannel* channel : all) {
    DP_RETURN_IF_ERROR(channel->Flush(deadline));
  }
  return absl::OkStatus();
}

absl::Status ReceiveAll(int from, int rank, FrameChannel* nccl,
                        FrameChannel* tcp, Deadline deadline) {
  for (const int64_t size : kSizes) {
    DP_ASSIGN_OR_RETURN(const Frame over_nccl, nccl->Receive(deadline));
    DP_ASSIGN_OR_RETURN(const Frame over_tcp, tcp->Receive(deadline));
    if (over_nccl.payload() != over_tcp.payload() ||
        over_nccl.payload() != ByteSpan(Payload(from, rank, size))) {
      return absl::DataLossError(absl::StrCat(
          "a payload of ", size, " bytes from rank ", from, " to rank ", rank,
          " is not the same over NCCL and TCP"));
    }
  }
  return absl::OkStatus();
}

/// One process's part: a stage of kRanks replicas, whose gradients go over NCCL
/// and whose scalars over TCP.
absl::Status RunRank(int rank, const std::vector<std::string>& addresses,
                     ChannelUpgrade upgrade) {
  const Deadline deadline = Deadline::After(kLimitOfOne);
  DP_ASSIGN_OR_RETURN(const auto transport,
                      CreateTcpTransport(addresses[rank]));
  v1::Assignment assignment;
  assignment.set_job_id("smoke");
  assignment.set_generation(1);
  assignment.set_rank(rank);
  assignment.mutable_plan()->set_num_stages(1);
  assignment.mutable_plan()->set_num_replicas(kRanks);
  for (int i = 0; i < kRanks; ++i) {
    v1::Peer* const peer = assignment.add_peers();
    peer->set_rank(i);
    peer->set_replica(i);
    peer->set_worker_id(absl::StrCat("rank-", i));
    peer->set_data_address(addresses[i]);
  }
  MeshOptions options;
  options.upgrade = std::move(upgrade);
  const std::atomic<bool> is_cancelled{false};
  DP_ASSIGN_OR_RETURN(const Mesh mesh,
                      Mesh::Connect(assignment, transport.get(), options,
                                    is_cancelled, deadline));
  const auto begun = std::chrono::steady_clock::now();
  std::vector<absl::Status> sent(kRanks);
  absl::Status received;
  {
    std::vector<Thread> senders;
    for (int to = 0; to < kRanks; ++to) {
      if (to == rank) continue;
      senders.emplace_back("sender", [&, to] {
        sent[to] =
            SendAll(rank, to,
                    {mesh.gradients[to].get(), mesh.replica_scalars[to].get()},
                    deadline);
      });
    }
    for (int from = 0; from < kRanks && received.ok(); ++from) {
      if (from == rank) continue;
      received = ReceiveAll(from, rank, mesh.gradients[from].get(),
                            mesh.replica_scalars[from].get(), deadline);
    }
    if (!received.ok()) {
      mesh.ForEach([&](FrameChannel* channel) { channel->Cancel(received); });
    }
  }
  DP_RETURN_IF_ERROR(received);
  for (const absl::Status& status : sent) DP_RETURN_IF_ERROR(status);
  const std::chrono::duration<double> took =
      std::chrono::steady_clock::now() - begun;
  std::printf("rank %d: all payloads are equal, after %.1f s\n", rank,
              took.count());
  return absl::OkStatus();
}

/// Ports that were free a moment ago.
absl::StatusOr<std::vector<std::string>> FreeAddresses() {
  std::vector<std::unique_ptr<Transport>> transports;
  std::vector<std::string> addresses;
  for (int rank = 0; rank < kRanks; ++rank) {
    DP_ASSIGN_OR_RETURN(auto transport, CreateTcpTransport("127.0.0.1:0"));
    addresses.push_back(transport->address());
    transports.push_back(std::move(transport));
  }
  return addresses;
}

/// The process's exit code.
int RunChild(int rank, const std::vector<std::string>& addresses) {
  // Each its own host to NCCL, which would otherwise refuse two on one GPU.
  setenv("NCCL_HOSTID", absl::StrCat("deltapipe-smoke-", rank).c_str(), 1);
  setenv("NCCL_SOCKET_IFNAME", "lo", 1);
  setenv("NCCL_NET", "Socket", 1);
  setenv("NCCL_RAS_ENABLE", "0", 1);  // its port is one for the whole host
  auto upgrade = NcclUpgrades({})();
  if (!upgrade.ok()) {
    if (rank == 0) {
      std::cout << "skipped: " << upgrade.status().message() << std::endl;
    }
    return kSkipped;
  }
  const absl::Status status = RunRank(rank, addresses, *std::move(upgrade));
  if (status.ok()) return 0;
  std::cerr << "rank " << rank << ": " << status << std::endl;
  return 1;
}

/// 0 if all ended with 0. Ends those that are left at once when one has failed,
/// unless it was by skipping, which all do, or the time is over.
int AwaitRanks(std::vector<pid_t> left) {
  const Deadline deadline = Deadline::After(kLimit);
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  int exit_code = 0;
  while (!left.empty()) {
    const bool is_over = exit_code != 0 && exit_code != kSkipped;
    if (!is_over && deadline.has_passed()) {
      std::fprintf(stderr, "not done within %d s\n",
                   static_cast<int>(kLimit.count()));
      exit_code = 1;
    }
    std::vector<pid_t> still;
    for (const pid_t pid : left) {
      if (is_over) kill(pid, SIGKILL);
      int status = 0;
      if (waitpid(pid, &status, is_over ? 0 : WNOHANG) == 0) {
        still.push_back(pid);
        continue;
      }
      const int code = WIFEXITED(status) ? WEXITSTATUS(status) : 1;
      if (code != 0 && (exit_code == 0 || code != kSkipped)) exit_code = code;
    }
    left = std::move(still);
    const timespec poll = {0, 100'000'000};
    if (!left.empty() && !is_over) sigtimedwait(&child_ended, nullptr, &poll);
  }
  return exit_code;
}

int Main() {
  std::signal(SIGPIPE, SIG_IGN);
  // Before any is started, so that none ends unseen.
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  sigprocmask(SIG_BLOCK, &child_ended, nullptr);
  const auto addresses = FreeAddresses();
  if (!addresses.ok()) {
    std::cerr << addresses.status().message() << std::endl;
    return 1;
  }
  // CUDA must not be touched before: it does not survive a fork.
  std::vector<pid_t> started;
  for (int rank = 0; rank < kRanks; ++rank) {
    const pid_t pid = fork();
    if (pid == 0) {
      const int code = RunChild(rank, *addresses);
      std::fflush(nullptr);
      _exit(code);  // communicators may still be ending, on other threads
    }
    if (pid < 0) {
      std::cerr << "rank " << rank << " cannot be started" << std::endl;
      for (const pid_t other : started) kill(other, SIGKILL);
      return 1;
    }
    started.push_back(pid);
  }
  return AwaitRanks(std::move(started));
}

}  // namespace
}  // namespace deltapipe

int main() { return deltapipe::Main(); }
