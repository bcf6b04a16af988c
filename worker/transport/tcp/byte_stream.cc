#include "worker/transport/tcp/byte_stream.h"

#include <fcntl.h>
#include <sys/socket.h>

#include <cerrno>

namespace deltapipe {
namespace {

const std::string& NoName() {
  static const std::string* const none = new std::string();
  return *none;
}

class PlainStream : public ByteStream {
 public:
  using ByteStream::ByteStream;

  IoResult ShakeHands() override { return IoResult::Moved(0); }

  IoResult Send(absl::Span<const iovec> pieces) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    while (true) {
      const ssize_t sent = sendmsg(fd(), &message, MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) return IoResult::Moved(static_cast<size_t>(sent));
      if (errno != EINTR) return FromErrno(IoResult::kWaitToWrite);
    }
  }

  IoResult Receive(absl::Span<const iovec> pieces) override {
    msghdr message{};
    message.msg_iov = const_cast<iovec*>(pieces.data());
    message.msg_iovlen = pieces.size();
    while (true) {
      const ssize_t received = recvmsg(fd(), &message, MSG_DONTWAIT);
      if (received > 0) return IoResult::Moved(static_cast<size_t>(received));
      if (received == 0) return {IoResult::kClosed, 0, ""};
      if (errno != EINTR) return FromErrno(IoResult::kWaitToRead);
    }
  }

  const std::string& peer_identity() const override { return NoName(); }
  const char* name() const override { return "tcp"; }

 private:
  static IoResult FromErrno(IoResult::Kind wait) {
    if (errno == EAGAIN || errno == EWOULDBLOCK) return {wait, 0, ""};
    return {IoResult::kFailed, 0, ErrnoText(errno)};
  }
};

}  // namespace

void ByteStream::Close() { shutdown(fd(), SHUT_RDWR); }

std::unique_ptr<ByteStream> MakePlainStream(UniqueFd socket) {
  const int flags = fcntl(socket.get(), F_GETFL, 0);
  fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK);
  return std::make_unique<PlainStream>(std::move(socket));
}

}  // namespace deltapipe
