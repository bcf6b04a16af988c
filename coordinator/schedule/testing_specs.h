// Job specs for tests of planning, with every field that planning reads.
#ifndef DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_SPECS_H_
#define DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_SPECS_H_

#include "proto/deltapipe/v1/job.pb.h"
#include "proto/deltapipe/v1/plan.pb.h"

namespace deltapipe {

/// AQ-SGD's GPT2-XL setting on synthetic stages: 8 stages, 32 micro-batches.
inline v1::JobSpec TestingGpt2XlSpec() {
  v1::JobSpec spec;
  spec.set_name("gpt2xl");
  spec.mutable_model()->set_kind("synthetic");
  spec.mutable_model()->set_layers(8);
  spec.mutable_model()->set_context(1024);
  spec.mutable_model()->set_width(1600);
  v1::SyntheticSpec* synthetic = spec.mutable_model()->mutable_synthetic();
  synthetic->set_forward_time("45ms");
  synthetic->set_backward_time("135ms");
  synthetic->set_samples(32);
  synthetic->set_parameters_per_stage(0);
  spec.mutable_train()->set_steps(3);
  spec.mutable_train()->set_batch(32);
  spec.mutable_train()->set_microbatch(1);
  spec.mutable_train()->mutable_optimizer()->set_kind("sgd");
  spec.mutable_parallel()->set_stages(8);
  spec.mutable_parallel()->set_replicas(1);
  spec.mutable_parallel()->set_schedule("auto");
  spec.mutable_parallel()->set_memory("all");
  spec.mutable_compression()->set_activations("auto");
  spec.mutable_compression()->set_activation_gradients("auto");
  spec.mutable_compression()->set_gradients("auto");
  spec.mutable_compression()->set_state_memory("all");
  spec.mutable_network()->mutable_emulate()->set_bandwidth("100Mbit/s");
  spec.mutable_network()->mutable_emulate()->set_latency("0");
  return spec;
}

/// A small GPT in 2 stages x 2 replicas with 1-bit LAMB.
inline v1::JobSpec TestingTextSpec() {
  v1::JobSpec spec = TestingGpt2XlSpec();
  spec.set_name("text");
  spec.mutable_model()->set_kind("gpt");
  spec.mutable_model()->set_layers(4);
  spec.mutable_model()->set_context(128);
  spec.mutable_model()->set_width(128);
  spec.mutable_model()->clear_synthetic();
  spec.mutable_data()->set_limit("600kB");
  spec.mutable_data()->set_validation(0.05);
  spec.mutable_train()->set_steps(1000);
  spec.mutable_train()->set_microbatch(4);
  v1::OptimizerSpec* optimizer = spec.mutable_train()->mutable_optimizer();
  optimizer->set_kind("onebit_lamb");
  optimizer->set_compress_after_step("200");
  spec.mutable_parallel()->set_stages(2);
  spec.mutable_parallel()->set_replicas(2);
  spec.mutable_network()->mutable_emulate()->set_latency("10ms");
  return spec;
}

/// Six layers of that GPT, as a worker would measure them: embedding, four
/// blocks, head.
inline v1::StageProfile TestingTextProfile() {
  v1::StageProfile profile;
  for (int i = 0; i < 6; ++i) {
    const bool is_block = i > 0 && i < 5;
    v1::LayerProfile* layer = profile.add_layers();
    layer->set_forward_seconds(is_block ? 0.008 : 0.002);
    layer->set_backward_seconds(is_block ? 0.016 : 0.004);
    layer->set_parameters(is_block ? 200'000 : 40'000);
    layer->set_output_elements(128 * 128);
    layer->set_saved_bytes(is_block ? 4'000'000 : 500'000);
  }
  return profile;
}

/// The same with what its layers save, packed to about an eighth.
inline v1::StageProfile TestingPackedProfile() {
  v1::StageProfile profile = TestingTextProfile();
  for (int i = 0; i < 6; ++i) {
    const bool is_block = i > 0 && i < 5;
    const auto add = [&](const char* name, int64_t raw, int64_t stored) {
      v1::SavedClass* saved = profile.mutable_layers(i)->add_saved();
      saved->set_name(name);
      saved->set_raw_bytes(raw);
      saved->set_stored_bytes(stored);
    };
    if (is_block) add("mask", 200'000, 50'000);
    add("activation", is_block ? 3'800'000 : 600'000,
        is_block ? 500'000 : 80'000);
    if (is_block) add("metadata", 0, 1'000);
  }
  return profile;
}

}  // namespace deltapipe

#endif  // DELTAPIPE_COORDINATOR_SCHEDULE_TESTING_SPECS_H_
