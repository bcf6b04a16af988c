// ByteStream through TLS. OpenSSL's session is used by one thread at a time;
// encrypted bytes go out without its lock, in batches of several records.
#include <fcntl.h>
#include <openssl/err.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>

#include "base/mutex.h"
#include "worker/transport/tcp/byte_stream.h"

namespace deltapipe {
namespace {

constexpr size_t kRecordBytes = 16 << 10;  // the largest
constexpr size_t kBatchBytes = 16 * kRecordBytes;
// What one turn of the receiver may decrypt before the sender has its turn.
constexpr size_t kReceiveTurnBytes = 8 * kRecordBytes;

// What the BIO of a session works on.
struct Wire {
  int fd = -1;
  std::vector<uint8_t> out;  // encrypted, not yet sent
};

int WireWrite(BIO* bio, const char* data, int size) {
  Wire* const wire = static_cast<Wire*>(BIO_get_data(bio));
  const auto* const bytes = reinterpret_cast<const uint8_t*>(data);
  wire->out.insert(wire->out.end(), bytes, bytes + size);
  return size;
}

int WireRead(BIO* bio, char* data, int size) {
  const Wire* const wire = static_cast<Wire*>(BIO_get_data(bio));
  BIO_clear_retry_flags(bio);
  while (true) {
    const ssize_t received =
        recv(wire->fd, data, static_cast<size_t>(size), MSG_DONTWAIT);
    if (received > 0) return static_cast<int>(received);
    if (received == 0) {
      BIO_set_flags(bio, BIO_FLAGS_IN_EOF);
      return 0;
    }
    if (errno == EINTR) continue;
    if (errno == EAGAIN || errno == EWOULDBLOCK) BIO_set_retry_read(bio);
    return -1;
  }
}

long WireControl(BIO* bio, int command, long, void*) {
  if (command == BIO_CTRL_EOF) {
    return BIO_test_flags(bio, BIO_FLAGS_IN_EOF) != 0 ? 1 : 0;
  }
  return command == BIO_CTRL_FLUSH ? 1 : 0;
}

const BIO_METHOD* WireMethod() {
  static const BIO_METHOD* const method = [] {
    BIO_METHOD* const made =
        BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "wire");
    BIO_meth_set_write(made, WireWrite);
    BIO_meth_set_read(made, WireRead);
    BIO_meth_set_ctrl(made, WireControl);
    return made;
  }();
  return method;
}

// Whether the peer's alert says that it does not accept our certificate.
bool IsRefusal(unsigned long code) {
  switch (ERR_GET_REASON(code)) {
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
    case SSL_R_TLSV1_ALERT_ACCESS_DENIED:
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_REVOKED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
      return true;
    default:
      return false;
  }
}

bool IsNotTls(unsigned long code) {
  return ERR_GET_REASON(code) == SSL_R_WRONG_VERSION_NUMBER ||
         ERR_GET_REASON(code) == SSL_R_HTTP_REQUEST;
}

class TlsStream : public ByteStream {
 public:
  TlsStream(UniqueFd socket, OpensslPtr<SSL> session, BIO* bio,
            std::string cluster, int64_t bytes_per_key)
      : ByteStream(std::move(socket)),
        cluster_(std::move(cluster)),
        bytes_per_key_(bytes_per_key),
        session_(std::move(session)) {
    wire_.fd = fd();
    BIO_set_data(bio, &wire_);
    BIO_set_init(bio, 1);
    SSL_set_bio(session_.get(), bio, bio);
  }

  IoResult ShakeHands() override {
    MutexLock lock(&mutex_);
    while (true) {
      if (!wire_.out.empty()) {
        const IoResult flushed = Flush(&wire_.out, &flushed_);
        if (flushed.kind != IoResult::kMoved) return flushed;
      }
      if (is_ready_) return IoResult::Moved(0);
      ERR_clear_error();
      const int result = SSL_do_handshake(session_.get());
      if (result == 1) {
        auto identity = PeerIdentity(session_.get(), cluster_);
        if (!identity.ok()) {
          return {IoResult::kRefused, 0,
                  std::string(identity.status().message())};
        }
        peer_identity_ =
            identity->is_worker() ? identity->worker : "the coordinator";
        is_ready_ = true;  // once what is left has gone out
        continue;
      }
      const IoResult failed = Failure(result);
      // Also an alert that says why goes out, if it can.
      if (!wire_.out.empty()) {
        const IoResult flushed = Flush(&wire_.out, &flushed_);
        if (flushed.has_to_wait() && failed.has_to_wait()) return flushed;
      }
      return failed;
    }
  }

  IoResult Send(absl::Span<const iovec> pieces) override {
    if (sending_.empty()) {
      const IoResult encrypted = Encrypt(pieces);
      if (encrypted.kind != IoResult::kMoved) return encrypted;
      sending_plain_bytes_ = encrypted.bytes;
    }
    const IoResult flushed = Flush(&sending_, &sent_);
    if (flushed.kind != IoResult::kMoved) return flushed;
    return IoResult::Moved(sending_plain_bytes_);
  }

  IoResult Receive(absl::Span<const iovec> pieces) override {
    MutexLock lock(&mutex_);
    size_t total = 0;
    for (const iovec& piece : pieces) {
      size_t got = 0;
      while (got < piece.iov_len) {
        if (total >= kReceiveTurnBytes) return IoResult::Moved(total);
        ERR_clear_error();
        const int wanted = static_cast<int>(
            std::min<size_t>(piece.iov_len - got, kReceiveTurnBytes));
        const int received =
            SSL_read(session_.get(),
                     static_cast<uint8_t*>(piece.iov_base) + got, wanted);
        if (received <= 0) {
          return total > 0 ? IoResult::Moved(total) : Failure(received);
        }
        got += static_cast<size_t>(received);
        total += static_cast<size_t>(received);
      }
    }
    return IoResult::Moved(total);
  }

  const std::string& peer_identity() const override { return peer_identity_; }
  const char* name() const override { return "tls"; }

 private:
  // What `result` of an OpenSSL call means. An error of the connection comes
  // again at the next call.
  IoResult Failure(int result) DP_REQUIRES(mutex_) {
    const int error_number = errno;
    switch (SSL_get_error(session_.get(), result)) {
      case SSL_ERROR_WANT_READ:
        return {IoResult::kWaitToRead, 0, ""};
      case SSL_ERROR_WANT_WRITE:
        return {IoResult::kWaitToWrite, 0, ""};
      case SSL_ERROR_ZERO_RETURN:
        return {IoResult::kClosed, 0, ""};
      case SSL_ERROR_SYSCALL:
        return {IoResult::kFailed, 0, ErrnoText(error_number)};
      default:
        break;
    }
    const unsigned long code = ERR_peek_error();
    const IoResult::Kind kind = IsRefusal(code)  ? IoResult::kRefused
                                : IsNotTls(code) ? IoResult::kNotTls
                                                 : IoResult::kFailed;
    return {kind, 0, HandshakeFailure(session_.get())};
  }

  // A batch of the pieces into sending_.
  IoResult Encrypt(absl::Span<const iovec> pieces) {
    MutexLock lock(&mutex_);
    if (bytes_since_key_ >= bytes_per_key_) {
      // The peer follows on its own; it need not change its key, too.
      SSL_key_update(session_.get(), SSL_KEY_UPDATE_NOT_REQUESTED);
      bytes_since_key_ = 0;
    }
    size_t total = 0;
    size_t index = 0, offset = 0;
    while (index < pieces.size() && total < kBatchBytes) {
      if (offset == pieces[index].iov_len) {
        ++index;
        offset = 0;
        continue;
      }
      const auto* data =
          static_cast<const uint8_t*>(pieces[index].iov_base) + offset;
      size_t size = std::min(pieces[index].iov_len - offset, kRecordBytes);
      if (size < kRecordBytes) {  // small pieces share a record
        size = Gather(pieces, &index, &offset);
        data = record_;
      } else {
        offset += size;
      }
      ERR_clear_error();
      const int written =
          SSL_write(session_.get(), data, static_cast<int>(size));
      // The BIO takes everything, so nothing is written in part.
      if (written != static_cast<int>(size)) return Failure(written);
      total += size;
    }
    bytes_since_key_ += static_cast<int64_t>(total);
    sending_.swap(wire_.out);
    return IoResult::Moved(total);
  }

  // Fills a record from `pieces`, from their place on; its size.
  size_t Gather(absl::Span<const iovec> pieces, size_t* index, size_t* offset) {
    size_t size = 0;
    while (*index < pieces.size() && size < kRecordBytes) {
      const iovec& piece = pieces[*index];
      const size_t part =
          std::min(piece.iov_len - *offset, kRecordBytes - size);
      if (part > 0) {
        std::memcpy(record_ + size,
                    static_cast<const uint8_t*>(piece.iov_base) + *offset,
                    part);
      }
      size += part;
      *offset += part;
      if (*offset == piece.iov_len) {
        ++*index;
        *offset = 0;
      }
    }
    return size;
  }

  // Sends `bytes` from `*done` on; empties them once all have gone out.
  IoResult Flush(std::vector<uint8_t>* bytes, size_t* done) {
    while (*done < bytes->size()) {
      const ssize_t sent =
          send(fd(), bytes->data() + *done, bytes->size() - *done,
               MSG_NOSIGNAL | MSG_DONTWAIT);
      if (sent >= 0) {
        *done += static_cast<size_t>(sent);
      } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
        return {IoResult::kWaitToWrite, 0, ""};
      } else if (errno != EINTR) {
        return {IoResult::kFailed, 0, ErrnoText(errno)};
      }
    }
    bytes->clear();
    *done = 0;
    return IoResult::Moved(0);
  }

  const std::string cluster_;
  const int64_t bytes_per_key_;
  std::string peer_identity_;  // set by ShakeHands

  Mutex mutex_;
  OpensslPtr<SSL> session_ DP_GUARDED_BY(mutex_);
  Wire wire_ DP_GUARDED_BY(mutex_);
  size_t flushed_ DP_GUARDED_BY(mutex_) = 0;
  bool is_ready_ DP_GUARDED_BY(mutex_) = false;

  // Of the sending thread.
  std::vector<uint8_t> sending_;
  size_t sent_ = 0;
  size_t sending_plain_bytes_ = 0;
  int64_t bytes_since_key_ = 0;
  uint8_t record_[kRecordBytes];
};

}  // namespace

std::unique_ptr<ByteStream> MakeTlsStream(UniqueFd socket, TlsRole role,
                                          const TlsContext& context) {
  return MakeTlsStream(std::move(socket), role, context, kBytesPerTlsKey);
}

std::unique_ptr<ByteStream> MakeTlsStream(UniqueFd socket, TlsRole role,
                                          const TlsContext& context,
                                          int64_t bytes_per_key) {
  OpensslPtr<SSL> session = context.NewSession(role);
  BIO* const bio = BIO_new(WireMethod());
  if (session == nullptr || bio == nullptr) {
    BIO_free(bio);
    return nullptr;
  }
  const int flags = fcntl(socket.get(), F_GETFL, 0);
  fcntl(socket.get(), F_SETFL, flags | O_NONBLOCK);
  return std::make_unique<TlsStream>(std::move(socket), std::move(session), bio,
                                     context.identity().cluster, bytes_per_key);
}

}  // namespace deltapipe
