#include "coordinator/metrics/http_server.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "base/log.h"
#include "base/mutex.h"
#include "coordinator/metrics/testing/http_request.h"

namespace deltapipe {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class HttpServerTest : public ::testing::Test {
 protected:
  HttpServerTest() {
    HttpServerOptions options;
    options.timeout_millis = 200;
    options.handler = [](const std::string& path) {
      return HttpAnswer{path == "/there" ? 200 : 404, "text/plain",
                        absl::StrCat("asked for ", path, "\n")};
    };
    auto server = HttpServer::Start(std::move(options));
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = *std::move(server);
  }
  std::string Exchange(const std::string& request) {
    return HttpExchange(server_->address(), request);
  }
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpServerTest, AnswersGetWithHeadersThatKeepBrowsersSafe) {
  const std::string answer = HttpGet(server_->address(), "/there?x=1");

  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 17\r\n"));
  EXPECT_THAT(answer, HasSubstr("X-Content-Type-Options: nosniff\r\n"));
  EXPECT_THAT(answer,
              HasSubstr("Content-Security-Policy: default-src 'none'; "));
  EXPECT_EQ(HttpBody(answer), "asked for /there\n");
}

TEST_F(HttpServerTest, AnswersHeadWithoutABody) {
  const std::string answer = Exchange("HEAD /there HTTP/1.1\r\n\r\n");

  EXPECT_THAT(answer, StartsWith("HTTP/1.1 200 OK\r\n"));
  EXPECT_THAT(answer, HasSubstr("Content-Length: 17\r\n"));
  EXPECT_EQ(HttpBody(answer), "");
}

TEST_F(HttpServerTest, RefusesOtherMethods) {
  for (const char* method : {"POST", "PUT", "DELETE", "OPTIONS"}) {
    const std::string answer = Exchange(
        absl::StrCat(method, " /there HTTP/1.1\r\nContent-Length: 0\r\n\r\n"));

    EXPECT_THAT(answer, StartsWith("HTTP/1.1 405 Method Not Allowed\r\n"));
    EXPECT_THAT(answer, HasSubstr("Allow: GET, HEAD\r\n"));
  }
}

TEST_F(HttpServerTest, NothingOfTheDiskIsServed) {
  for (const char* path :
       {"/../../../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd",
        "/etc/passwd", "/..%5c..%5cetc%5cpasswd"}) {
    const std::string answer = HttpGet(server_->address(), path);

    EXPECT_THAT(answer, Not(StartsWith("HTTP/1.1 200"))) << path;
    EXPECT_THAT(answer, Not(HasSubstr("root:"))) << path;
  }
}

TEST_F(HttpServerTest, APathThatGoesUpIsRefusedAndLoggedOnceAMinute) {
  Mutex mutex;
  std::vector<std::string> lines;
  SetLogSink([&](LogLevel, const std::string& text) {
    MutexLock lock(&mutex);
    lines.push_back(text);
  });

  for (const char* path : {"/api/jobs/../../etc/passwd%0a", "/%2e%2e/there",
                           "/a/..%5cthere", "/there/.."}) {
    EXPECT_THAT(HttpGet(server_->address(), path),
                StartsWith("HTTP/1.1 400 Bad Request\r\n"))
        << path;
  }
  server_.reset();
  SetLogSink(nullptr);

  MutexLock lock(&mutex);
  EXPECT_THAT(lines,
              ElementsAre("refused an HTTP request from 127.0.0.1: its path "
                          "'/api/jobs/../../etc/passwd\\n' has '..' in it"));
}

TEST_F(HttpServerTest, RefusesAHostThatIsNotThisMachine) {
  EXPECT_THAT(Exchange("GET /there HTTP/1.1\r\nHost: evil.example\r\n\r\n"),
              StartsWith("HTTP/1.1 403 Forbidden\r\n"));
  EXPECT_THAT(
      Exchange("GET /there HTTP/1.1\r\nHost: 127.0.0.1.evil.example\r\n\r\n"),
      StartsWith("HTTP/1.1 403 Forbidden\r\n"));
  EXPECT_THAT(Exchange("GET /there HTTP/1.1\r\nHost: localhost:9400\r\n\r\n"),
              StartsWith("HTTP/1.1 200 OK\r\n"));
}

TEST_F(HttpServerTest, ARequestThatIsTooLongIsRefused) {
  const std::string answer = Exchange(absl::StrCat(
      "GET /there HTTP/1.1\r\nX: ",
      std::string(2 * HttpServer::kMaxRequestBytes, 'x'), "\r\n\r\n"));

  EXPECT_THAT(answer, Not(StartsWith("HTTP/1.1 200")));
  EXPECT_THAT(HttpGet(server_->address(), "/there"),
              StartsWith("HTTP/1.1 200"));
}

TEST_F(HttpServerTest, GarbageIsRefused) {
  EXPECT_THAT(Exchange("\x16\x03\x01 no request\r\n\r\n"),
              Not(StartsWith("HTTP/1.1 200")));
  EXPECT_THAT(Exchange("GET\r\n\r\n"), Not(StartsWith("HTTP/1.1 200")));
}

TEST_F(HttpServerTest, PeersThatSayNothingDoNotKeepOthersOutForEver) {
  std::vector<int> silent;
  for (int i = 0; i < HttpServer::kThreads; ++i) {
    silent.push_back(ConnectTo(server_->address()));
  }

  // Answered once the silent ones have timed out.
  EXPECT_THAT(HttpGet(server_->address(), "/there"),
              StartsWith("HTTP/1.1 200"));
  for (const int connection : silent) close(connection);
}

TEST_F(HttpServerTest, APortThatIsTakenIsAnError) {
  HttpServerOptions options;
  options.port =
      std::stoi(server_->address().substr(server_->address().rfind(':') + 1));

  const auto second = HttpServer::Start(std::move(options));

  EXPECT_EQ(second.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(second.status().message()),
              HasSubstr(absl::StrCat("cannot serve metrics on ",
                                     server_->address(), ": ")));
}

}  // namespace
}  // namespace deltapipe
