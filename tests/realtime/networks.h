// The networks and inputs that the contract of real time is checked on, and streams of them.
// Must not include anything of the core but its public header.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "support.h"

namespace gruc::test {

struct Case {
  gruc_spec spec;
  int64_t batch;
  std::string name() const;
};

// Every variant of the equations, every activation and norm that a stream can have, at a small odd size.
std::vector<Case> variants();
// PyTorch's variant in all the shapes that are computed in ways of their own.
std::vector<Case> shapes();

// What comes in. The states start likewise, so that what goes in again is of the kind too.
enum class Kind { kRandom, kSilent, kDenormal, kSaturated, kInfinite, kNan };
constexpr Kind kKinds[] = {Kind::kRandom,    Kind::kSilent,   Kind::kDenormal,
                           Kind::kSaturated, Kind::kInfinite, Kind::kNan};
const char* name_of(Kind kind);
std::vector<float> numbers(Kind kind, int64_t count, Random& random);

// One stream with its weights, and a block of input for it.
class Stream {
 public:
  static constexpr int64_t kBlock = 21;  // several chunks of the largest networks, and a rest

  explicit Stream(const Case& c, Kind kind = Kind::kRandom);
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;
  ~Stream() { gruc_state_destroy(state_); }

  void restart(Kind kind);
  void fill(Kind kind);  // the input; the states go on
  bool step() noexcept { return gruc_step(state_, x_.data(), y_.data()) == GRUC_OK; }
  bool process(int64_t steps = kBlock) noexcept { return gruc_process(state_, steps, x_.data(), y_.data()) == GRUC_OK; }
  const std::vector<float>& y() const { return y_; }

 private:
  Random random_;
  std::unique_ptr<Network> network_;
  int64_t batch_;
  gruc_state* state_ = nullptr;
  std::vector<float> x_, y_;
};

}  // namespace gruc::test
