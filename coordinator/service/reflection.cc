#include "coordinator/service/reflection.h"

#include <grpcpp/ext/proto_server_reflection_plugin.h>

#include <algorithm>
#include <vector>

namespace deltapipe {
namespace {

class Option : public grpc::ServerBuilderOption {
 public:
  explicit Option(bool is_offered) : is_offered_(is_offered) {}

  void UpdateArguments(grpc::ChannelArguments*) override {}
  void UpdatePlugins(std::vector<std::unique_ptr<grpc::ServerBuilderPlugin>>*
                         plugins) override {
    grpc::reflection::ProtoServerReflectionPlugin reflection;
    // What static initialisation has put there, once or more often.
    plugins->erase(
        std::remove_if(
            plugins->begin(), plugins->end(),
            [&](const std::unique_ptr<grpc::ServerBuilderPlugin>& plugin) {
              return plugin->name() == reflection.name();
            }),
        plugins->end());
    if (!is_offered_) return;
    plugins->push_back(
        std::make_unique<grpc::reflection::ProtoServerReflectionPlugin>());
  }

 private:
  const bool is_offered_;
};

}  // namespace

std::unique_ptr<grpc::ServerBuilderOption> ReflectionOption(bool is_offered) {
  return std::make_unique<Option>(is_offered);
}

}  // namespace deltapipe
