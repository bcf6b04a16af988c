// What every Transport and its channels must do, as a parameterised test suite.
//
// A test target links this library and instantiates the suite with a factory of
// pairs of transports:
//
//   INSTANTIATE_TEST_SUITE_P(Tcp, TransportConformanceTest,
//                            ::testing::Values(TcpFactory()), FactoryName);
#ifndef DELTAPIPE_WORKER_TRANSPORT_TESTING_TRANSPORT_CONFORMANCE_H_
#define DELTAPIPE_WORKER_TRANSPORT_TESTING_TRANSPORT_CONFORMANCE_H_

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <utility>

#include "worker/transport/channel.h"

namespace deltapipe {

/// Two transports that can reach each other.
struct TransportPair {
  std::unique_ptr<Transport> a;
  std::unique_ptr<Transport> b;
  /// A well-formed address at which nobody listens.
  std::string address_of_nobody;
};

struct TransportFactory {
  std::string name;
  std::function<TransportPair()> create;
};

inline std::ostream& operator<<(std::ostream& out,
                                const TransportFactory& factory) {
  return out << factory.name;
}

inline std::string FactoryName(
    const ::testing::TestParamInfo<TransportFactory>& info) {
  return info.param.name;
}

class TransportConformanceTest
    : public ::testing::TestWithParam<TransportFactory> {
 protected:
  void SetUp() override { transports_ = GetParam().create(); }

  /// Both ends of a channel: the one that connected (from a), the one that
  /// accepted (at b).
  std::pair<std::unique_ptr<Channel>, std::unique_ptr<Channel>> Open(
      const std::string& name);

  TransportPair transports_;
};

}  // namespace deltapipe

#endif  // DELTAPIPE_WORKER_TRANSPORT_TESTING_TRANSPORT_CONFORMANCE_H_
