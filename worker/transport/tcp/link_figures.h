// What the kernel knows of the link below a TCP socket (TCP_INFO).
#ifndef DELTAPIPE_WORKER_TRANSPORT_TCP_LINK_FIGURES_H_
#define DELTAPIPE_WORKER_TRANSPORT_TCP_LINK_FIGURES_H_

namespace deltapipe {

/// 0 where the kernel does not say.
struct LinkFigures {
  /// Since the connection was made: for which something was on its way to the
  /// peer, answers included.
  double busy_seconds = 0;
  /// What the peer lately acknowledged while enough was sent to tell; messages
  /// too short for that count where they went faster.
  double bytes_per_second = 0;
  /// Smoothed, delayed acknowledgements included; 0 before the first one.
  double round_trip_seconds = 0;
};

LinkFigures ReadLinkFigures(int fd);

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TCP_LINK_FIGURES_H_
