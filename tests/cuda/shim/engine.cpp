// See engine.h. A thread runs until it waits; which one is next is drawn at random, sometimes of those that became
// ready last (one warp far ahead of the others), sometimes of all. Must not include the host interface's state.
#include "engine.h"

#include <cstdarg>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <vector>

#include "fiber.h"
#include "gruc_cuda_shim.h"
#include "memory.h"

uint3 threadIdx, blockIdx;
dim3 blockDim, gridDim;

namespace gruc::shim {

void fail(const char* format, ...) {
  std::va_list arguments;
  va_start(arguments, format);
  std::fputs("CUDA shim: ", stderr);
  std::vfprintf(stderr, format, arguments);
  std::fputc('\n', stderr);
  std::abort();
}

namespace {

constexpr unsigned kWarp = 32;

enum class State : uint8_t { kReady, kBarrier, kExchange, kCounter, kDone };

struct Place {
  const char* file = nullptr;
  int line = 0;
  bool operator==(const Place& other) const {
    return line == other.line && (file == other.file || std::strcmp(file, other.file) == 0);
  }
  std::string words() const {
    const char* slash = std::strrchr(file, '/');
    return std::string(slash == nullptr ? file : slash + 1) + ":" + std::to_string(line);
  }
};

// Lanes of a warp that wait for each other, by their mask.
struct Exchange {
  uint32_t mask = 0, arrived = 0;
  Place place;
};

struct Warp {
  std::vector<Exchange> open;
  uint32_t live = 0;  // lanes that there are and that have not ended
  uint64_t value[kWarp] = {};
  uint8_t source[kWarp] = {};
};

struct Thread {
  Fiber fiber;
  uint3 index;
  unsigned number;
  State state = State::kReady;
  struct Block* block;
  const unsigned* counter = nullptr;
  unsigned target = 0;
};

struct Block {
  uint3 index;
  std::unique_ptr<Thread[]> threads;
  unsigned size = 0, done = 0, at_barrier = 0;
  Place barrier;
  std::vector<unsigned> ready, counting;
  std::vector<Warp> warps;
  SharedMemory shared;
};

uint64_t g_order = 1;
const Kernel* g_kernel;
Thread* g_thread;  // that runs
Fiber g_scheduler;

unsigned draw(size_t below) {
  g_order ^= g_order << 13;
  g_order ^= g_order >> 7;
  g_order ^= g_order << 17;
  return static_cast<unsigned>((g_order >> 16) % below);
}

std::string name(const Block& block) {
  const auto n = [](unsigned value) { return std::to_string(value); };
  return "block (" + n(block.index.x) + ", " + n(block.index.y) + ", " + n(block.index.z) + ")";
}

void suspend(State state) {
  Thread& self = *g_thread;
  self.state = state;
  if (state == State::kReady) self.block->ready.push_back(self.number);
  self.fiber.switch_to(g_scheduler, state == State::kDone);
}

void wake(Block& block, unsigned number) {
  block.threads[number].state = State::kReady;
  block.ready.push_back(number);
}

[[noreturn]] void diverged(const Block& block, const std::string& what) {
  fail("%s: %s", name(block).c_str(), what.c_str());
}

void thread_main() {
  Thread& self = *g_thread;
  self.fiber.entered(g_scheduler);
  g_kernel->call(g_kernel->function, g_kernel->argument);
  Block& block = *self.block;
  if (self.fiber.overflowed()) fail("a thread has used more than its stack of %zu bytes", kStackSize);
  ++block.done;
  Warp& warp = block.warps[self.number / kWarp];
  warp.live &= ~(uint32_t{1} << self.number % kWarp);
  if (block.at_barrier > 0)
    diverged(block, "a thread has ended while " + std::to_string(block.at_barrier) + " wait at __syncthreads (" +
                        block.barrier.words() + ")");
  for (const Exchange& e : warp.open)
    if (e.mask >> self.number % kWarp & 1)
      diverged(block, "a thread has ended that a mask names at " + e.place.words());
  suspend(State::kDone);
}

void resume(Thread& thread) {
  g_thread = &thread;
  threadIdx = thread.index;
  blockIdx = thread.block->index;
  g_scheduler.switch_to(thread.fiber);
}

// Those whose counter has come so far; whether there are any.
bool poll(Block& block) {
  bool any = false;
  for (size_t i = 0; i < block.counting.size();) {
    const unsigned number = block.counting[i];
    const Thread& thread = block.threads[number];
    if (static_cast<int>(*thread.counter - thread.target) < 0) {
      ++i;
      continue;
    }
    block.counting[i] = block.counting.back();
    block.counting.pop_back();
    wake(block, number);
    any = true;
  }
  return any;
}

void run_some(Block& block) {
  const bool last_first = draw(2) == 0;
  for (unsigned left = 1 + draw(4 * block.size); left > 0; --left) {
    if (block.ready.empty() && !poll(block)) return;
    if (!last_first) std::swap(block.ready[draw(block.ready.size())], block.ready.back());
    const unsigned number = block.ready.back();
    block.ready.pop_back();
    resume(block.threads[number]);
  }
}

[[noreturn]] void deadlock(const std::vector<Block*>& blocks) {
  std::string words = "no thread can go on.";
  for (size_t i = 0; i < blocks.size() && i < 4; ++i) {
    const Block& block = *blocks[i];
    words += " " + name(block) + ": " + std::to_string(block.done) + " of " + std::to_string(block.size) +
             " threads have ended";
    if (block.at_barrier > 0)
      words += ", " + std::to_string(block.at_barrier) + " are at __syncthreads (" + block.barrier.words() + ")";
    for (const Warp& warp : block.warps)
      for (const Exchange& e : warp.open)
        words += ", lanes " + std::to_string(e.arrived) + " of mask " + std::to_string(e.mask) + " are at " +
                 e.place.words();
    if (!block.counting.empty()) {
      const Thread& thread = block.threads[block.counting[0]];
      words += ", " + std::to_string(block.counting.size()) + " wait for a counter, which is " +
               std::to_string(*thread.counter) + " of " + std::to_string(thread.target);
    }
    words += ".";
  }
  fail("%s", words.c_str());
}

void run_all(std::vector<Block*> blocks) {
  for (size_t idle = 0; !blocks.empty();) {
    const size_t at = draw(blocks.size());
    Block& block = *blocks[at];
    if (block.ready.empty() && !poll(block)) {
      // Chance may pass a block over; the one that can go on is looked for after a while.
      if (++idle < 2 * blocks.size()) continue;
      bool any = false;
      for (Block* each : blocks) any = !each->ready.empty() || poll(*each) || any;
      if (!any) deadlock(blocks);
      idle = 0;
      continue;
    }
    idle = 0;
    run_some(block);
    if (block.done < block.size) continue;
    blocks[at] = blocks.back();
    blocks.pop_back();
  }
}

std::unique_ptr<Block> make_block(const Kernel& kernel, unsigned number, char* stack) {
  auto block = std::make_unique<Block>();
  const dim3 grid = kernel.grid, shape = kernel.block;
  block->index = {number % grid.x, number / grid.x % grid.y, number / grid.x / grid.y};
  block->size = shape.x * shape.y * shape.z;
  block->threads = std::make_unique<Thread[]>(block->size);
  block->warps.resize((block->size + kWarp - 1) / kWarp);
  block->shared = SharedMemory(kernel.shared);
  for (unsigned i = 0; i < block->size; ++i) {
    Thread& thread = block->threads[i];
    thread.index = {i % shape.x, i / shape.x % shape.y, i / shape.x / shape.y};
    thread.number = i;
    thread.block = block.get();
    thread.fiber.start(stack + i * kStackSize, kStackSize, thread_main);
    block->ready.push_back(i);
    block->warps[i / kWarp].live |= uint32_t{1} << i % kWarp;
  }
  return block;
}

void check_end(const Block& block) {
  if (!block.shared.intact()) fail("%s has written past its shared memory", name(block).c_str());
}

}  // namespace

void seed_order(uint64_t seed) { g_order = (seed + 1) * 0x9e3779b97f4a7c15u | 1; }

void run(const Kernel& kernel) {
  g_kernel = &kernel;
  blockDim = kernel.block;
  gridDim = kernel.grid;
  const unsigned count = kernel.grid.x * kernel.grid.y * kernel.grid.z;
  const size_t threads = size_t{kernel.block.x} * kernel.block.y * kernel.block.z;
  auto* memory = static_cast<char*>(stacks(threads * (kernel.cooperative ? count : 1)));
  if (kernel.cooperative) {
    std::vector<std::unique_ptr<Block>> blocks;
    std::vector<Block*> live;
    for (unsigned i = 0; i < count; ++i) {
      blocks.push_back(make_block(kernel, i, memory + i * threads * kStackSize));
      live.push_back(blocks.back().get());
    }
    run_all(live);
    for (const auto& block : blocks) check_end(*block);
  } else {
    const unsigned first = draw(count);  // their order is nobody's to rely on
    for (unsigned i = 0; i < count; ++i) {
      const auto block = make_block(kernel, (first + i) % count, memory);
      run_all({block.get()});
      check_end(*block);
    }
  }
  g_thread = nullptr;
}

// --- what kernels call ----------------------------------------------------------------------------------------------

void barrier(const char* file, int line) {
  Block& block = *g_thread->block;
  const Place place{file, line};
  if (block.done > 0)
    diverged(block, std::to_string(block.done) + " threads have ended before others came to __syncthreads (" +
                        place.words() + ")");
  if (block.at_barrier > 0 && !(block.barrier == place))
    diverged(block, "threads wait at different __syncthreads: " + block.barrier.words() + " and " + place.words());
  block.barrier = place;
  if (++block.at_barrier < block.size) {
    suspend(State::kBarrier);
    return;
  }
  block.at_barrier = 0;
  for (unsigned i = 0; i < block.size; ++i)
    if (block.threads[i].state == State::kBarrier) wake(block, i);
  suspend(State::kReady);
}

uint64_t exchange(uint32_t mask, uint64_t bits, int lanes, const char* file, int line) {
  Thread& self = *g_thread;
  Block& block = *self.block;
  Warp& warp = block.warps[self.number / kWarp];
  const unsigned lane = self.number % kWarp, first = self.number - lane;
  const Place place{file, line};
  const auto refuse = [&](const std::string& what) { diverged(block, what + " (" + place.words() + ")"); };
  if (lanes < 0 || lanes >= static_cast<int>(kWarp)) refuse("an exchange over " + std::to_string(lanes) + " lanes");
  const unsigned source = lane ^ static_cast<unsigned>(lanes);
  if (!(mask >> lane & 1)) refuse("a lane is not in its own mask");
  if (!(mask >> source & 1)) refuse("a lane reads from one that is not in the mask");
  if ((mask & ~warp.live) != 0) refuse("the mask names a lane that has ended or never was");

  size_t at = 0;
  while (at < warp.open.size() && (warp.open[at].mask & mask) == 0) ++at;
  if (at == warp.open.size()) warp.open.push_back({mask, 0, place});
  Exchange& open = warp.open[at];
  if (open.mask != mask) refuse("lanes wait for each other with different masks");
  if (!(open.place == place)) refuse("lanes of a mask are at different exchanges, the other at " + open.place.words());
  open.arrived |= uint32_t{1} << lane;
  warp.value[lane] = bits;
  warp.source[lane] = static_cast<uint8_t>(source);
  if (open.arrived != mask) {
    suspend(State::kExchange);
    return warp.value[lane];
  }
  warp.open.erase(warp.open.begin() + static_cast<int64_t>(at));
  uint64_t given[kWarp];
  std::memcpy(given, warp.value, sizeof given);
  for (unsigned i = 0; i < kWarp; ++i)
    if (mask >> i & 1) {
      warp.value[i] = given[warp.source[i]];
      if (i != lane) wake(block, first + i);
    }
  return warp.value[lane];
}

void* block_memory() { return g_thread->block->shared.data(); }

void arrive(unsigned* counter) {
  if (draw(2) == 0) suspend(State::kReady);
  ++*counter;
}

void wait(const unsigned* counter, unsigned target) {
  Thread& self = *g_thread;
  if (static_cast<int>(*counter - target) >= 0) return;
  self.counter = counter;
  self.target = target;
  self.block->counting.push_back(self.number);
  suspend(State::kCounter);
}

}  // namespace gruc::shim
