// Threads: how many, teams and their barrier, calls from several threads at once, inside other parallel regions, after
// a fork, and where OpenMP gives fewer threads than asked for. Must not include kernels.
#include <omp.h>

#include <algorithm>
#include <atomic>
#include <optional>
#include <thread>

#include "backend.h"
#include "parallel.h"
#include "support.h"

#if !defined(_WIN32)
#include <sys/wait.h>
#include <unistd.h>
#endif

namespace gruc::test {
namespace {

// --- teams -----------------------------------------------------------------------------------------------------------

TEST(Teams, EveryRankOnce) {
  for (const int threads : {1, 2, 3, 5, 8}) {
    struct Seen {
      std::atomic<int> calls{0}, by_rank[8] = {}, wrong_size{0};
      int threads = 0;
    } seen;
    seen.threads = threads;
    run_parallel(
        threads,
        [](void* context, int rank, int size) {
          auto& s = *static_cast<Seen*>(context);
          ++s.calls;
          ++s.by_rank[rank];
          s.wrong_size += size != s.threads;
        },
        &seen);
    EXPECT_EQ(seen.calls, threads);
    EXPECT_EQ(seen.wrong_size, 0);
    for (int rank = 0; rank < threads; ++rank) EXPECT_EQ(seen.by_rank[rank], 1);
  }
}

// Every member writes plain memory in a round and reads all others' in the next: a race or a lost wake-up shows as a
// wrong number, as a hang, or to the thread sanitizer.
TEST(Teams, BarrierStress) {
  struct Shared {
    Barrier barrier;
    int64_t round_of[8][16] = {};  // apart from each other, so that caches do not order them by accident
    std::atomic<int> wrong{0};
    int rounds = 0;
  };
  for (const int threads : {2, 3, 5}) {
    Shared shared;
    shared.rounds = threads == 2 ? 20000 : 500;  // more threads than cores take turns, which is slow
    run_parallel(
        threads,
        [](void* context, int rank, int size) {
          auto& s = *static_cast<Shared*>(context);
          const Team team{rank, size, &s.barrier};
          for (int round = 1; round <= s.rounds; ++round) {
            s.round_of[rank][0] = round;
            team.sync();
            for (int other = 0; other < size; ++other) s.wrong += s.round_of[other][0] != round;
            team.sync();
          }
        },
        &shared);
    EXPECT_EQ(shared.wrong, 0) << threads << " threads";
  }
}

// --- calls -----------------------------------------------------------------------------------------------------------

// How many threads a call takes of those that it may: so many that none of them spends its time waiting.
TEST(UsefulTeam, SmallWorkStaysOnOneThread) {
  Random random(1);
  const auto team = [&](int64_t hidden, int64_t steps, int64_t batch, int threads, int32_t reset = GRUC_RESET_AFTER) {
    gruc_spec spec = make_spec(3, hidden);
    spec.reset = reset;
    const Network network(spec, Params(spec, random));
    return useful_team(*network.weights(), LayerKind{}, steps, batch, threads);
  };
  for (const char* unset : {static_cast<const char*>(nullptr), ""}) {
    const Threads chosen(unset);
    EXPECT_EQ(team(16, 100, 1, 2), 1) << "a step is shorter than a barrier";
    EXPECT_EQ(team(48, 100000, 1, 2), 1) << "a step is shorter than a barrier";
    EXPECT_EQ(team(128, 2, 1, 2), 1) << "the call is shorter than waking a thread";
    EXPECT_EQ(team(16, 10, 64, 2), 1) << "the call is shorter than waking a thread";
    EXPECT_EQ(team(128, 100, 0, 8), 1);
    EXPECT_EQ(team(128, 100, 1, 1), 1);
    EXPECT_EQ(team(128, 100, 1, 2), 2);
    EXPECT_EQ(team(128, 100, 1, 64), 2) << "as many as a step keeps busy";
    EXPECT_EQ(team(512, 100, 1, 64), 11);
    EXPECT_EQ(team(512, 100, 1, 8), 8);
    EXPECT_EQ(team(80, 1000, 1, 2), 1);
    EXPECT_EQ(team(128, 100, 1, 2, GRUC_RESET_BEFORE), 2);
    EXPECT_EQ(team(80, 1000, 2, 2), 2);
    EXPECT_EQ(team(80, 1000, 2, 2, GRUC_RESET_BEFORE), 1) << "two barriers a step";
    EXPECT_EQ(team(16, 1000, 8, 4), 4) << "rows of their own need no barrier";
    EXPECT_EQ(team(16, 1000, 8, 64), 4);
  }
  EXPECT_EQ(team(16, 1, 1, 2), 1) << "one unit block";
  EXPECT_EQ(team(17, 1, 1, 8), 2) << "every thread that has a block";
}

// A network, an input and the answer of one thread.
struct Case {
  explicit Case(int32_t direction, uint64_t seed, int64_t batch = 5)
      : random(seed),
        spec(make_spec(9, 70, 2, direction)),
        network(spec, Params(spec, random)),
        problem(make_problem(spec, 12, batch, random, Lengths::kRagged, Start::kRandom)),
        expected(run(network, problem)) {}
  Random random;
  gruc_spec spec;
  Network network;
  Problem problem;
  Result expected;
};

class Parallel : public IsaTest {
 private:
  CpuCount cpus_{8};
};

TEST_P(Parallel, CallsFromSeveralThreadsOnSharedWeights) {
  const Case c(GRUC_BIDIRECTIONAL, 1);
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&, caller] {
      for (int i = 0; i < 8; ++i) {
        const int threads = caller % 2 == 0 ? 1 : 2 + i % 2;  // some callers bring a team of their own
        if (!same_bits(run(c.network, c.problem, threads), c.expected)) ++wrong;
      }
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

TEST_P(Parallel, StreamsFromSeveralThreadsOnSharedWeights) {
  const Case c(GRUC_FORWARD, 2, 1);
  const int64_t steps = c.problem.lengths[0];
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller)
    callers.emplace_back([&] {
      for (int i = 0; i < 20; ++i) {
        gruc_state* state = nullptr;
        std::vector<float> y = c.expected.y;
        wrong += gruc_state_create(c.network.weights(), 1, &state) != GRUC_OK;
        wrong += gruc_state_set(state, c.problem.h0.data()) != GRUC_OK;
        for (int64_t t = 0; t < steps; ++t) wrong += gruc_step(state, &c.problem.x[t * 9], &y[t * 70]) != GRUC_OK;
        wrong += !same_bits(y, c.expected.y);
        gruc_state_destroy(state);
      }
    });
  for (std::thread& t : callers) t.join();
  EXPECT_EQ(wrong, 0);
}

// Steps and blocks of a stream whose threads share the unit blocks: stacks, both places of the reset, blocks of frames
// that cross what process takes at once.
TEST_P(Parallel, StreamsWithATeam) {
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE})
    for (const int64_t hidden : {5, 32, 70})
      for (const int64_t batch : {1, 3}) {
        Random random(9);
        gruc_spec spec = make_spec(9, hidden, 2);
        spec.reset = reset;
        const Network network(spec, Params(spec, random));
        constexpr int64_t kSteps = 70;
        const Problem problem = make_problem(spec, kSteps, batch, random, Lengths::kWhole, Start::kRandom);
        const Result expected = run(network, problem);
        for (const int32_t threads : {1, 2, 5}) {
          gruc_state* state = nullptr;
          ASSERT_EQ(gruc_state_create(network.weights(), batch, &state), GRUC_OK);
          ASSERT_EQ(gruc_state_set_threads(state, threads), GRUC_OK);
          for (const bool in_blocks : {false, true}) {
            Result got = expected;
            std::fill(got.y.begin(), got.y.end(), 0.0f);
            ASSERT_EQ(gruc_state_set(state, problem.h0.data()), GRUC_OK);
            for (int64_t t = 0; t < kSteps && !in_blocks; ++t)
              ASSERT_EQ(gruc_step(state, &problem.x[t * batch * 9], &got.y[t * batch * hidden]), GRUC_OK);
            if (in_blocks) {
              ASSERT_EQ(gruc_process(state, kSteps, problem.x.data(), got.y.data()), GRUC_OK);
            }
            ASSERT_EQ(gruc_state_get(state, got.h_n.data()), GRUC_OK);
            EXPECT_TRUE(same_bits(got, expected)) << "H " << hidden << " threads " << threads << " " << in_blocks;
          }
          gruc_state_destroy(state);
        }
      }
}

// The caller is itself a member of an OpenMP team, where inner regions get one thread by default.
TEST_P(Parallel, InsideAnotherParallelRegion) {
  const Case c(GRUC_BIDIRECTIONAL, 3);
  std::atomic<int> wrong{0};
#pragma omp parallel num_threads(2)
  for (const int threads : {1, 2, 5})
    if (!same_bits(run(c.network, c.problem, threads), c.expected)) ++wrong;
  EXPECT_EQ(wrong, 0);
}

// OpenMP may give fewer threads than it is asked for; then one does all, in a workspace that is enough for that.
TEST_P(Parallel, FewerThreadsThanAskedFor) {
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
    for (const int64_t batch : {1, 5, 40}) {
      const Case c(direction, 4, batch);
      const int levels = omp_get_max_active_levels();
      omp_set_max_active_levels(0);
      for (const int threads : {2, 5}) {
        std::vector<std::byte> memory;
        std::byte* end = nullptr;
        const Result got = run(c.network, c.problem, threads, [&](gruc_sequence& s) {
          size_t bytes = 0;
          ASSERT_EQ(gruc_forward_workspace(c.network.weights(), &s, &bytes), GRUC_OK);
          memory.assign(bytes + 64 + 4096, std::byte{0x5a});
          std::byte* aligned = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
          end = aligned + bytes;
          s.workspace = aligned;
          s.workspace_size = bytes;
        });
        EXPECT_TRUE(same_bits(got, c.expected)) << threads;
        EXPECT_EQ(std::count(end, end + 4096, std::byte{0x5a}), 4096) << threads;
      }
      omp_set_max_active_levels(levels);
    }
}

// CPUs may come and go: between the caller's question for a size and the call, and during the call. What was sized for
// one thread must not be cut for more.
TEST_P(Parallel, CpusThatAppear) {
  if (!CpuCount::available()) GTEST_SKIP() << "the library's way of counting CPUs cannot be intercepted here";
  constexpr int64_t kFence = 1 << 20;
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
    for (const int at_the_call : {1, 8}) {
      const Case c(direction, 8);
      std::vector<std::byte> memory;
      std::byte* end = nullptr;
      std::optional<CpuCount> cpus(std::in_place, 1);
      const Result got = run(c.network, c.problem, 5, [&](gruc_sequence& s) {
        size_t bytes = 0;
        ASSERT_EQ(gruc_forward_workspace(c.network.weights(), &s, &bytes), GRUC_OK);
        memory.assign(bytes + 64 + kFence, std::byte{0x5a});
        s.workspace = memory.data() + (64 - reinterpret_cast<uintptr_t>(memory.data()) % 64) % 64;
        s.workspace_size = bytes;
        end = static_cast<std::byte*>(s.workspace) + bytes;
        cpus.emplace(at_the_call, 8);
      });
      EXPECT_TRUE(same_bits(got, c.expected));
      EXPECT_EQ(std::count(end, end + kFence, std::byte{0x5a}), kFence) << "written past the workspace";
    }
}

// More threads than there is work for.
TEST_P(Parallel, MoreThreadsThanBlocksAndRows) {
  for (const int32_t direction : {GRUC_FORWARD, GRUC_REVERSE, GRUC_BIDIRECTIONAL}) {
    Random random(5);
    const gruc_spec spec = make_spec(3, 5, 2, direction);
    const Network network(spec, Params(spec, random));
    for (const int64_t batch : {0, 1, 2}) {
      const Problem p = make_problem(spec, 6, batch, random);
      EXPECT_TRUE(same_bits(run(network, p, INT32_MAX), run(network, p)));
    }
  }
}

#if !defined(_WIN32)
// A child of a process that has used its team has no team any more: it must neither hang nor differ.
TEST_P(Parallel, ForkedChild) {
  const Case c(GRUC_BIDIRECTIONAL, 6);
  ASSERT_TRUE(same_bits(run(c.network, c.problem, 4), c.expected));
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(30);  // a hang ends as a signal
    int code = gruc_max_threads() == 1 ? 0 : 1;
    code |= same_bits(run(c.network, c.problem, 4), c.expected) ? 0 : 2;
    // Weights made in the child, and a grandchild.
    const Case own(GRUC_FORWARD, 7);
    const pid_t grandchild = fork();
    if (grandchild == 0) _exit(same_bits(run(own.network, own.problem, 2), own.expected) ? 0 : 1);
    int status = 0;
    code |= waitpid(grandchild, &status, 0) == grandchild && status == 0 ? 0 : 4;
    _exit(code);
  }
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  EXPECT_TRUE(WIFEXITED(status)) << "signal " << WTERMSIG(status);
  EXPECT_EQ(WEXITSTATUS(status), 0);
  EXPECT_EQ(gruc_max_threads(), 8) << "the parent keeps its threads";
  EXPECT_TRUE(same_bits(run(c.network, c.problem, 4), c.expected));
}
#endif
GRUC_FOR_EVERY_ISA(Parallel);

}  // namespace
}  // namespace gruc::test
