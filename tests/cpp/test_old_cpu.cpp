// Dispatch on a CPU without any vector ISA: this executable has detection functions of its own, so that the linker
// leaves features.cpp in its archive. Must not be linked into the other tests.
#include <cstring>

#include "cpu/features.h"
#include "support.h"

namespace gruc {
bool cpu_has_avx2_fma() { return false; }
bool cpu_has_avx512() { return false; }
bool cpu_has_neon() { return false; }
}  // namespace gruc

namespace gruc::test {
namespace {

TEST(OldCpu, RunsPortable) {
  EXPECT_EQ(supported_isas(), std::vector<std::string>{"portable"});
  const ForcedIsa none(nullptr);
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Network network(spec, Params(spec, random));
  EXPECT_STREQ(gruc_weights_isa(network.weights()), "portable");
}

TEST(OldCpu, UnsupportedNamesAreErrors) {
  const gruc_spec spec = make_spec(3, 5);
  Random random(1);
  const Params params(spec, random);
  for (int32_t i = 0; gruc_isa_name(i) != nullptr; ++i) {
    const std::string name = gruc_isa_name(i);
    if (name == "portable") continue;
    const ForcedIsa forced(name);
    const char* active = nullptr;
    EXPECT_EQ(gruc_isa_active(&active), GRUC_UNSUPPORTED);
    EXPECT_EQ(active, nullptr);
    EXPECT_NE(std::strstr(gruc_last_error(), "GRUC_ISA"), nullptr) << gruc_last_error();
    EXPECT_NE(std::strstr(gruc_last_error(), name.c_str()), nullptr) << gruc_last_error();
    gruc_weights* weights = nullptr;
    EXPECT_EQ(gruc_weights_create(&spec, params.layers.data(), params.layers.size(), &weights), GRUC_UNSUPPORTED);
    EXPECT_EQ(weights, nullptr);
  }
}

}  // namespace
}  // namespace gruc::test
