// The listening side of the TCP transport: takes connections in, shakes hands
// and hands them on under their names. An own thread does all of it.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_LISTENER_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_LISTENER_H_

#include <functional>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "worker/transport/tcp/byte_stream.h"
#include "worker/transport/tcp/tcp_transport.h"

namespace deltapipe {

class TcpListener {
 public:
  /// Called on the listener's thread with a connection whose hello was answered
  /// ok: the name it asks for, the stream, the other side's address.
  using OnConnection = std::function<void(const std::string& name,
                                          std::unique_ptr<ByteStream> stream,
                                          const std::string& from)>;

  /// Errors as of CreateTcpTransport.
  static absl::StatusOr<std::unique_ptr<TcpListener>> Create(
      const std::string& listen_address, const TcpOptions& options,
      OnConnection on_connection);
  virtual ~TcpListener() = default;

  /// "10.77.0.1:41233".
  virtual std::string address() const = 0;
  /// Closes the port and ends the thread; no callback runs afterwards.
  virtual void Stop() = 0;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_TCP_LISTENER_H_
