// The time loops of gradients, instantiated; and which kernels fit a device.
#include "cuda/launch_recurrence.h"

namespace gruc::cuda {

Instance<ForwardArgs> forward_instance(const Plan& plan, int depth);

namespace {

template <class S, bool kBefore>
Instance<BackArgs> instance(int depth, bool resident) {
  return {resident ? back_kernel<S, kBefore, true> : back_kernel<S, kBefore, false>,
          back_shared<S>(depth, kBefore, resident)};
}
template <class S>
Instance<BackArgs> instance(const Plan& plan, int depth) {
  const bool resident = plan.path == Path::kPersistent;
  return plan.before ? instance<S, true>(depth, resident) : instance<S, false>(depth, resident);
}
Instance<BackArgs> back_instance(const Plan& plan, int depth) {
  switch (plan.shape) {
    case RowShape::kOne:
      return instance<OneRow>(plan, depth);
    case RowShape::kFew:
      return instance<FewRows>(plan, depth);
    default:
      return instance<ManyRows>(plan, depth);
  }
}

}  // namespace

bool launch_recurrence(const BackArgs& args, const Plan& plan, cudaStream_t stream) {
  return launch_instance(back_instance(plan, args.depth), plan, args, stream);
}

int resident_blocks(const Plan& plan, bool backward, int hidden, const DeviceLimits& limits) {
  const int depth = padded(hidden);
  return backward ? blocks_that_fit(back_instance(plan, depth), limits)
                  : blocks_that_fit(forward_instance(plan, depth), limits);
}

}  // namespace gruc::cuda
