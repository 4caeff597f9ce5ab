// The contract of real time (gru_core.h): no allocation, lock or system call in a step, the same instructions whatever
// the numbers are, the same bits where the caller flushes denormals. Of a build with RealtimeSanitizer, that it is
// quiet. Must not include anything of the core but its public headers.
#include <cstdlib>
#include <memory>
#include <mutex>
#include <vector>

#include "fixed_stream.h"
#include "gru_core/gru_core.hpp"
#include "guard.h"
#include "networks.h"
#include "sanitized.h"

#if defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

namespace gruc::test {
namespace {

class RealTime : public IsaTest {};

::testing::AssertionResult clean(const Observed& o) {
  if (o.system_call >= 0) return ::testing::AssertionFailure() << "system call " << o.system_call;
  if (!o.finished) return ::testing::AssertionFailure() << "the child died";
  if (!o.worked) return ::testing::AssertionFailure() << "a call was refused";
  if (o.heap_calls != 0 || o.locks != 0)
    return ::testing::AssertionFailure() << o.heap_calls << " heap calls, " << o.locks << " locks";
  return ::testing::AssertionSuccess();
}

// What a step must not do.
bool allocates() {
  void* (*volatile allocate)(size_t) = std::malloc;  // volatile, lest the compiler drop both calls
  void* volatile memory = allocate(16);
  std::free(memory);
  return true;
}
std::mutex g_mutex;
bool locks() {
  const std::lock_guard<std::mutex> lock(g_mutex);
  return true;
}

TEST(RealTimeGuard, SeesHeapCallsLocksAndSystemCalls) {
  const Observed heap = observe(allocates);
  if (!heap.unavailable.empty()) GTEST_SKIP() << heap.unavailable;
  EXPECT_EQ(heap.heap_calls, 2);
  EXPECT_FALSE(clean(heap));
  const Observed lock = observe(locks);
  EXPECT_EQ(lock.locks, 1);
  EXPECT_FALSE(clean(lock));
#if defined(__linux__)
  const Observed call = observe([] { return getppid() > 0; });
  EXPECT_EQ(call.system_call, SYS_getppid);
  EXPECT_FALSE(clean(call));
#endif
  EXPECT_FALSE(clean(observe([]() -> bool { std::abort(); })));
  EXPECT_TRUE(clean(observe([] { return true; })));
}

// Watched by the guard, or else by RealtimeSanitizer, which ends the process.
void expect_clean(const std::function<bool()>& work) {
  const Observed o = observe(work);
  if (o.unavailable.empty())
    EXPECT_TRUE(clean(o));
  else
    EXPECT_TRUE(work());
}

TEST_P(RealTime, AMillionStepsNeitherAllocateNorLockNorCallTheSystem) {
  Stream stream({make_spec(8, 8), 1});
  expect_clean([&] {
    bool right = true;
    for (int i = 0; i < 1000000; ++i) right &= stream.step();
    return right;
  });
  expect_clean([&] {
    bool right = true;
    for (int64_t i = 0; i < 100000; i += Stream::kBlock) right &= stream.process();
    return right;
  });
}

TEST_P(RealTime, StepsOfEveryNetworkNeitherAllocateNorLockNorCallTheSystem) {
  std::vector<Case> cases = variants();
  for (const Case& c : shapes())
    if (GetParam() != "portable" || c.spec.hidden_size <= 33)
      cases.push_back(c);  // it has tiles of one shape, and time
  for (const Case& c : cases) {
    SCOPED_TRACE(c.name());
    Stream stream(c);
    expect_clean([&] { return stream.step() && stream.process() && stream.step() && stream.process(3); });
    if (HasFailure()) break;
  }
}

TEST_P(RealTime, StepsOfTheCppHeaderNeitherAllocateNorLockNorCallTheSystem) {
  Random random(3);
  const gru_core::Spec spec(5, 17, 2);
  const Params params(spec, random);
  const auto weights = gru_core::Weights::create(spec, params.layers).value();
  gru_core::State state = gru_core::State::create(weights, 3).value();
  const std::vector<float> x = random.normals(4 * 3 * 5);
  std::vector<float> y(4 * 3 * 17);
  const gru_core::Span<const float> one_x(x.data(), state.x_size());
  const gru_core::Span<float> one_y(y.data(), state.y_size());
  expect_clean([&] {
    const bool right = state.step(one_x, one_y).ok() && state.process(4, x, y).ok();
    return right && !state.step(one_y, one_y).ok();  // of a wrong size: refused as quietly
  });
}

template <gru_core::fixed::Reset kReset>
void expect_fixed_clean() {
  const auto stream = std::make_unique<FixedStream<kReset>>();
  expect_clean([&] { return stream->step() && stream->process(); });
}

TEST(RealTimeFixed, StepsNeitherAllocateNorLockNorCallTheSystem) {
  expect_fixed_clean<gru_core::fixed::Reset::after>();
  expect_fixed_clean<gru_core::fixed::Reset::before>();
}

// --- the same instructions ---

bool one_step(void* stream) { return static_cast<Stream*>(stream)->step(); }
bool step_and_process(void* stream) { return one_step(stream) && static_cast<Stream*>(stream)->process(2); }

volatile float g_number = 0.0f;
volatile int g_taken = 0;
// Two branches of the same length.
bool branches(void*) {
  if (g_number > 0.0f)
    g_taken = 1;
  else
    g_taken = 2;
  return true;
}

TEST(RealTimeTrace, SeesABranchOnTheData) {
  g_number = 1.0f;
  const Trace positive = trace(branches, nullptr), again = trace(branches, nullptr);
  if (positive.count == 0) GTEST_SKIP() << "needs Linux on x86-64, and no sanitizer";
  g_number = -1.0f;
  EXPECT_TRUE(positive == again);
  EXPECT_FALSE(positive == trace(branches, nullptr));
}

void expect_one_path(const Case& c, bool (*work)(void* stream)) {
  SCOPED_TRACE(c.name());
  Stream stream(c);
  Trace random;
  for (const Kind kind : kKinds) {
    work(&stream);  // untraced: only the next but one takes the blocks in the same order
    stream.restart(kind);
    const Trace t = trace(work, &stream);
    if (kind == Kind::kRandom) random = t;
    EXPECT_EQ(t.count, random.count) << name_of(kind);
    EXPECT_EQ(t.path, random.path) << name_of(kind);
  }
}

// A trap takes 10 us, and ten times that on a busy machine: so small networks, and all variants on AVX-512 alone, which
// callgrind does not know. It counts all of the others.
TEST_P(RealTime, InstructionsDoNotDependOnTheNumbers) {
  if (trace(branches, nullptr).count == 0) GTEST_SKIP() << "needs Linux on x86-64, and no sanitizer";
  if (GetParam() == "portable") GTEST_SKIP() << "too many instructions to trace; callgrind counts them";
  expect_one_path({make_spec(1, 1), 1}, step_and_process);
  expect_one_path({make_spec(2, 17), 2}, step_and_process);
  if (GetParam() != "avx512") return;
  for (Case c : variants()) {
    if (c.batch > 1) continue;
    c.spec.input_size = 2;
    c.spec.hidden_size = 5;
    expect_one_path(c, one_step);
  }
}

TEST(RealTimeTrace, TheFirstStepIsLikeTheOthers) {
  // ctest gives each test a process of its own, so that this is the first step of all: it sees symbols looked up late.
  Stream stream({make_spec(1, 1), 1});
  const Trace first = trace(one_step, &stream);
  if (first.count == 0) GTEST_SKIP() << "needs Linux on x86-64, and no sanitizer";
  EXPECT_EQ(first.count, trace(one_step, &stream).count);
}

// --- hosts that flush denormals ---

#if defined(__x86_64__)
TEST_P(RealTime, FlushingModesOfTheCallerChangeNoBit) {
  constexpr unsigned kFlushAndZero = 0x8040;
  for (const Case& c : variants()) {
    SCOPED_TRACE(c.name());
    for (const Kind kind : kKinds) {
      Stream plain(c, kind), flushed(c, kind);
      const auto run = [](Stream& s) { return s.step() && s.process() && s.step(); };
      ASSERT_TRUE(run(plain));
      const unsigned before = _mm_getcsr();
      _mm_setcsr(before | kFlushAndZero);
      const bool worked = run(flushed);
      const unsigned after = _mm_getcsr();
      _mm_setcsr(before);
      ASSERT_TRUE(worked);
      EXPECT_EQ(after & kFlushAndZero, kFlushAndZero);
      EXPECT_TRUE(same_bits(plain.y(), flushed.y())) << name_of(kind);
    }
  }
}
#endif

// --- RealtimeSanitizer ---

#if defined(__has_feature)
#if __has_feature(realtime_sanitizer)
bool allocates_in_real_time() GRUC_NONBLOCKING { return allocates(); }

TEST(RealTimeDeathTest, TheSanitizerSeesAnAllocation) { EXPECT_DEATH(allocates_in_real_time(), "unsafe-library-call"); }
#endif
#endif

GRUC_FOR_EVERY_ISA(RealTime);

}  // namespace
}  // namespace gruc::test
