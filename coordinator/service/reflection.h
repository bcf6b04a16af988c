// Server reflection: lets tools such as grpcurl ask a server for its services
// and messages. It shows the schema to whoever can connect, so it is off unless
// asked for.
//
// gRPC offers it on every server of a process that links its library; this
// takes it off again. So every server of such a process needs the option:
//
//   builder.SetOption(ReflectionOption(options.reflection));
#ifndef DELTAPIPE_COORDINATOR_SERVICE_REFLECTION_H_
#define DELTAPIPE_COORDINATOR_SERVICE_REFLECTION_H_

#include <grpcpp/impl/server_builder_option.h>

#include <memory>

namespace deltapipe {

std::unique_ptr<grpc::ServerBuilderOption> ReflectionOption(bool is_offered);

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SERVICE_REFLECTION_H_
