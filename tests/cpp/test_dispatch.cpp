// Which kernels run: the best by default, the forced one where GRUC_ISA names it, an error for anything else
// (test_old_cpu.cpp has the ISAs that a machine lacks). Must not include kernels.
#include <cstring>

#include "cpu/dispatch.h"
#include "status.h"
#include "support.h"

namespace gruc::test {
namespace {

class Dispatch : public IsaTest {};

// Every other test with an ISA in its name rests on this one.
TEST_P(Dispatch, ForcedIsaIsActive) {
  EXPECT_EQ(GetParam(), select_kernels().name);
  const char* name = nullptr;
  ASSERT_EQ(gruc_isa_active(&name), GRUC_OK);
  EXPECT_EQ(GetParam(), name);
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Network network(spec, Params(spec, random));
  EXPECT_EQ(GetParam(), gruc_weights_isa(network.weights()));
}

// The weights keep the ISA that they were packed for.
TEST_P(Dispatch, WeightsKeepTheirIsa) {
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Network network(spec, Params(spec, random));
  const Problem problem = make_problem(spec, 4, 2, random);
  const Result before = run(network, problem);
  const ForcedIsa other("portable");
  EXPECT_EQ(GetParam(), gruc_weights_isa(network.weights()));
  EXPECT_TRUE(same_bits(run(network, problem), before));
}
GRUC_FOR_EVERY_ISA(Dispatch);

TEST(DispatchByDefault, BestSupported) {
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    const ForcedIsa none(unset);
    EXPECT_EQ(supported_isas().front(), select_kernels().name);
  }
}

TEST(DispatchByDefault, PortableIsLastAndAlwaysThere) {
  ASSERT_FALSE(supported_isas().empty());
  EXPECT_EQ(supported_isas().back(), "portable");
}

TEST(DispatchByDefault, IndexOutside) {
  int32_t count = 0;
  while (gruc_isa_name(count) != nullptr) ++count;
  for (const int32_t index : {-1, count, count + 1, INT32_MIN, INT32_MAX}) {
    EXPECT_EQ(gruc_isa_name(index), nullptr);
    EXPECT_EQ(gruc_isa_supported(index), 0);
  }
}

TEST(DispatchErrors, UnknownThreads) {
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Params params(spec, random);
  for (const char* value : {"2", "ALL", "every"}) {
    const Threads threads(value);
    gruc_weights* weights = nullptr;
    EXPECT_EQ(gruc_weights_create(&spec, params.layers.data(), params.layers.size(), &weights), GRUC_INVALID_ARGUMENT);
    EXPECT_EQ(weights, nullptr);
    EXPECT_EQ(std::string("GRUC_THREADS: expected 'all' or unset, got '") + value + "'", gruc_last_error());
  }
}

TEST(DispatchErrors, UnknownNames) {
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Params params(spec, random);
  for (const char* name : {"sse9", "AVX2", "avx", "avx2 ", "portable,avx2"}) {
    const ForcedIsa forced(name);
    const char* active = "untouched";
    EXPECT_EQ(gruc_isa_active(&active), GRUC_INVALID_ARGUMENT);
    EXPECT_STREQ(active, "untouched");
    EXPECT_NE(std::strstr(gruc_last_error(), "GRUC_ISA"), nullptr) << gruc_last_error();
    EXPECT_NE(std::strstr(gruc_last_error(), name), nullptr) << gruc_last_error();
    EXPECT_NE(std::strstr(gruc_last_error(), "portable"), nullptr) << gruc_last_error();
    gruc_weights* weights = nullptr;
    EXPECT_EQ(gruc_weights_create(&spec, params.layers.data(), params.layers.size(), &weights), GRUC_INVALID_ARGUMENT);
    EXPECT_EQ(weights, nullptr);
  }
}

}  // namespace
}  // namespace gruc::test
