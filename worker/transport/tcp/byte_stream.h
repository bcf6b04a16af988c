// ByteStream: bytes over one connected, non-blocking socket, in plain text or
// through TLS. What TcpChannel and both sides of the handshake move bytes with.
//
// No call blocks: where the socket has no room or no bytes, the result says
// what to wait for. One thread may send while another receives; Close may be
// called from any thread.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_BYTE_STREAM_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_BYTE_STREAM_H_

#include <sys/uio.h>

#include <cstddef>
#include <memory>
#include <string>

#include "absl/types/span.h"
#include "base/tls/tls_context.h"
#include "worker/transport/tcp/socket_wait.h"

namespace deltapipe {

struct IoResult {
  enum Kind {
    kMoved,        // `bytes` of them
    kWaitToRead,   // call again with the same arguments once readable
    kWaitToWrite,  // the same once writable
    kClosed,       // by the peer
    kRefused,      // a certificate, by this side or the other; see `error`
    kNotTls,       // the peer of a TLS stream speaks something else
    kFailed,       // see `error`
  };
  Kind kind = kMoved;
  size_t bytes = 0;
  std::string error;

  static IoResult Moved(size_t bytes) { return {kMoved, bytes, ""}; }
  bool has_to_wait() const {
    return kind == kWaitToRead || kind == kWaitToWrite;
  }
};

class ByteStream {
 public:
  explicit ByteStream(UniqueFd socket) : socket_(std::move(socket)) {}
  virtual ~ByteStream() = default;

  /// Before anything else, until it is kMoved.
  virtual IoResult ShakeHands() = 0;
  /// Some of the pieces, in order. After kWait… the next call must begin with
  /// the same bytes.
  virtual IoResult Send(absl::Span<const iovec> pieces) = 0;
  virtual IoResult Receive(absl::Span<const iovec> pieces) = 0;
  /// The name of the worker that the peer's certificate shows; empty in plain
  /// text. Fixed once hands were shaken.
  virtual const std::string& peer_identity() const = 0;
  /// "tcp" or "tls".
  virtual const char* name() const = 0;

  /// Ends both directions, which wakes whoever waits for the socket.
  void Close();
  int fd() const { return socket_.get(); }

 private:
  const UniqueFd socket_;
};

/// Takes over `socket` and makes it non-blocking.
std::unique_ptr<ByteStream> MakePlainStream(UniqueFd socket);
/// Null if there is no memory.
std::unique_ptr<ByteStream> MakeTlsStream(UniqueFd socket, TlsRole role,
                                          const TlsContext& context);

/// Bytes after which a TLS stream changes its key: well below what one key of
/// AES-GCM may encrypt (RFC 8446, 5.5: 2^24.5 records of 16 KiB).
inline constexpr int64_t kBytesPerTlsKey = int64_t{64} << 30;
/// The same with another number of them, for tests.
std::unique_ptr<ByteStream> MakeTlsStream(UniqueFd socket, TlsRole role,
                                          const TlsContext& context,
                                          int64_t bytes_per_key);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_BYTE_STREAM_H_
