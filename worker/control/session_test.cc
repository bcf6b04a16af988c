// Sessions against a small control service over real streams.
#include "worker/control/session.h"

#include <gmock/gmock.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/deadline.h"
#include "base/mutex.h"
#include "base/thread.h"
#include "proto/deltapipe/v1/control.grpc.pb.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

/// Welcomes every worker, reads until `is_enough` and says goodbye.
class FarewellService : public v1::ControlService::Service {
 public:
  explicit FarewellService(
      std::function<bool(int num_read, const v1::WorkerMessage&)> is_enough)
      : is_enough_(std::move(is_enough)) {}

  grpc::Status Session(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<v1::CoordinatorMessage, v1::WorkerMessage>*
          stream) override {
    v1::WorkerMessage message;
    if (!stream->Read(&message) || !message.has_hello()) {
      return {grpc::StatusCode::FAILED_PRECONDITION, "no hello"};
    }
    if (message.hello().version() != "1") {
      return {grpc::StatusCode::FAILED_PRECONDITION, "another version"};
    }
    v1::CoordinatorMessage answer;
    answer.mutable_welcome()->set_worker_id("worker-1");
    answer.mutable_welcome()->set_heartbeat_millis(50);
    stream->Write(answer);
    int num_read = 0;
    while (stream->Read(&message)) {
      ++num_read;
      if (message.has_step()) last_step_ = message.step().step();
      if (!is_enough_(num_read, message)) continue;
      answer.mutable_goodbye()->set_reason("the run is over");
      stream->Write(answer);
      break;
    }
    return grpc::Status::OK;
  }

  int64_t last_step() const { return last_step_; }

 private:
  const std::function<bool(int, const v1::WorkerMessage&)> is_enough_;
  std::atomic<int64_t> last_step_{0};
};

class SessionTest : public ::testing::Test {
 protected:
  void Serve(std::function<bool(int, const v1::WorkerMessage&)> is_enough) {
    service_ = std::make_unique<FarewellService>(std::move(is_enough));
    int port = 0;
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(),
                             &port);
    builder.RegisterService(service_.get());
    server_ = builder.BuildAndStart();
    ASSERT_NE(server_, nullptr);
    address_ = absl::StrCat("127.0.0.1:", port);
  }
  ~SessionTest() override {
    if (server_ == nullptr) return;
    server_->Shutdown(std::chrono::system_clock::now() +
                      std::chrono::seconds(1));
    server_->Wait();
  }

  SessionOptions Options() {
    SessionOptions options;
    options.coordinator = address_;
    options.hello.set_version("1");
    options.on_message = [this](const v1::CoordinatorMessage& message) {
      if (!message.has_goodbye()) return;
      MutexLock lock(&mutex_);
      has_goodbye_ = true;
      changed_.NotifyAll();
    };
    options.on_end = [this](const absl::Status&) {
      MutexLock lock(&mutex_);
      ++num_ends_;
      changed_.NotifyAll();
    };
    options.heartbeat = [] { return v1::Heartbeat(); };
    return options;
  }
  bool AwaitGoodbye() {
    MutexLock lock(&mutex_);
    const bool came =
        changed_.WaitUntil(lock, Deadline::After(std::chrono::seconds(20)),
                           [this] { return has_goodbye_; });
    has_goodbye_ = false;
    return came;
  }
  int num_ends() {
    MutexLock lock(&mutex_);
    return num_ends_;
  }

  std::unique_ptr<FarewellService> service_;
  std::unique_ptr<grpc::Server> server_;
  std::string address_;
  Mutex mutex_;
  CondVar changed_;
  bool has_goodbye_ DP_GUARDED_BY(mutex_) = false;
  int num_ends_ DP_GUARDED_BY(mutex_) = 0;
};

// Two threads joined the writer: after an ordinary goodbye some workers hung,
// others were terminated.
TEST_F(SessionTest, GoodbyeWhileSendingEndsEverySessionOnce) {
  std::atomic<int> num_sessions{0};
  Serve([&](int num_read, const v1::WorkerMessage& message) {
    // Every twentieth session lives until its first heartbeat.
    return num_sessions % 20 == 0 ? message.has_heartbeat()
                                  : num_read > num_sessions % 7;
  });

  for (int i = 0; i < 200; ++i) {
    num_sessions = i;
    auto session = Session::Open(Options());
    ASSERT_TRUE(session.ok()) << session.status();
    std::atomic<bool> is_over{false};
    Thread sender("sender", [&] {
      v1::WorkerMessage message;
      for (int64_t step = 1; !is_over && step < 2000; ++step) {
        message.mutable_step()->set_step(step);
        (*session)->Send(message);
        if (step % 16 == 0) std::this_thread::yield();
      }
    });
    EXPECT_TRUE(AwaitGoodbye()) << "session " << i;
    is_over = true;
    sender.Join();
    session->reset();
    EXPECT_EQ(num_ends(), i + 1);
  }
}

TEST_F(SessionTest, SessionThatItsOwnerEndsIsOver) {
  Serve([](int, const v1::WorkerMessage&) { return false; });

  for (int i = 0; i < 20; ++i) {
    auto session = Session::Open(Options());
    ASSERT_TRUE(session.ok()) << session.status();
    EXPECT_EQ((*session)->welcome().worker_id(), "worker-1");
    v1::WorkerMessage message;
    message.mutable_step()->set_step(i + 1);
    (*session)->Send(message);
    (*session)->Close();
    session->reset();
    EXPECT_EQ(num_ends(), i + 1);
  }
}

TEST_F(SessionTest, CloseLetsOutWhatWasSent) {
  Serve([](int, const v1::WorkerMessage&) { return false; });
  auto session = Session::Open(Options());
  ASSERT_TRUE(session.ok()) << session.status();
  v1::WorkerMessage message;
  for (int64_t step = 1; step <= 1000; ++step) {
    message.mutable_step()->set_step(step);
    (*session)->Send(message);
  }

  (*session)->Close();
  {
    MutexLock lock(&mutex_);
    EXPECT_TRUE(changed_.WaitUntil(lock,
                                   Deadline::After(std::chrono::seconds(20)),
                                   [this] { return num_ends_ == 1; }));
  }

  EXPECT_EQ(service_->last_step(), 1000);
}

TEST_F(SessionTest, RefusalIsTheCoordinatorsSentence) {
  Serve([](int, const v1::WorkerMessage&) { return false; });
  SessionOptions options = Options();
  options.hello.set_version("2");

  const auto session = Session::Open(std::move(options));

  EXPECT_EQ(session.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(session.status().message()),
              HasSubstr("another version"));
  EXPECT_EQ(num_ends(), 0);
}

}  // namespace
}  // namespace deltapipe
