#include "compression/bit_plan/policy_state.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace deltapipe {
namespace {

using ::testing::HasSubstr;

PolicyState Example() {
  PolicyState state;
  state.raised["gelu"] = 2;
  state.least_bits["gelu"] = 8;
  state.planned["blocks.3/gelu/0"] = {"gelu", 4, true};
  state.planned["odd\tname\nof a layer"] = {"", 0.1, true};
  state.planned["z"] = {"relu", 8, false};
  state.planned["z"].is_offloaded = true;
  return state;
}

std::string MessageOf(const std::string& text) {
  const auto state = ParsePolicyState("actnn", text);
  EXPECT_EQ(state.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(state.status().message());
}

TEST(PolicyStateTest, NamesItsPolicy) {
  EXPECT_EQ(PolicyOfState(PolicyStateText("actnn(bits=2)", Example())),
            "actnn(bits=2)");
  EXPECT_EQ(PolicyOfState(PolicyStateText("none", PolicyState())), "none");
  for (const char* other : {"", "deltapipe saved policy 1",
                            "deltapipe saved policy 2\npolicy=none\n"}) {
    EXPECT_EQ(PolicyOfState(other), "") << other;
  }
}

TEST(PolicyStateTest, TextIsOneLineEach) {
  EXPECT_EQ(PolicyStateText("actnn", Example()),
            "deltapipe saved policy 1\n"
            "policy=actnn\n"
            "raised=gelu\t2\n"
            "least=gelu\t8\n"
            "planned=blocks.3/gelu/0\tgelu\t4\n"
            "planned=odd\\tname\\nof a layer\t\t0.10000000000000001\n"
            "unmeasured=z\trelu\t8\n"
            "offloaded=z\n");
}

TEST(PolicyStateTest, ReadsWhatItWrote) {
  const std::string text = PolicyStateText("actnn", Example());

  const auto state = ParsePolicyState("actnn", text);

  ASSERT_TRUE(state.ok()) << state.status();
  EXPECT_EQ(PolicyStateText("actnn", *state), text);
  EXPECT_EQ(state->planned.at("odd\tname\nof a layer").value, 0.1);
  EXPECT_TRUE(state->planned.at("z").is_offloaded);
}

TEST(PolicyStateTest, OtherPoliciesAndVersionsAreRefused) {
  EXPECT_THAT(MessageOf(""), HasSubstr("line 1: expected 'deltapipe saved "
                                       "policy 1', got ''"));
  EXPECT_THAT(MessageOf("deltapipe saved policy 2\npolicy=actnn\n"),
              HasSubstr("line 1: expected"));
  EXPECT_THAT(MessageOf("deltapipe saved policy 1\npolicy=gact\n"),
              HasSubstr("line 2: expected 'policy=actnn', got 'policy=gact'"));
  EXPECT_THAT(MessageOf("deltapipe saved policy 1"),
              HasSubstr("line 2: expected 'policy=actnn', got ''"));
}

TEST(PolicyStateTest, DamagedLinesAreNamed) {
  const std::string head = "deltapipe saved policy 1\npolicy=actnn\n";
  for (const char* line :
       {"", "bits=4", "raised=gelu", "raised=gelu\t0", "raised=gelu\t-1",
        "least=gelu\t0", "least=gelu\t33", "planned=a\tgelu",
        "planned=a\tgelu\tx", "planned=a\tgelu\tnan", "planned=a\tgelu\tinf",
        "planned=a\\q\tgelu\t4", "planned=a\tgelu\t4\t5", "offloaded=a"}) {
    EXPECT_THAT(MessageOf(head + line + "\nraised=x\t1\n"),
                HasSubstr("line 3: expected an operator"))
        << line;
  }
  EXPECT_THAT(MessageOf(head + "raised=a\t1\nraised=a\t2\n"),
              HasSubstr("line 4"));
}

}  // namespace
}  // namespace deltapipe
