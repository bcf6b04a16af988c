// How long a TCP socket has had something on its way to the peer, as the
// kernel counts it (TCP_INFO): what a link's rate is measured by.
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_BUSY_TIME_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_BUSY_TIME_H_

namespace deltapipe {

/// Seconds since the connection was made; 0 where the kernel does not say.
double SocketBusySeconds(int fd);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_BUSY_TIME_H_
