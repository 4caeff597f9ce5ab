// The forward time loops, instantiated.
#include "cuda/launch_recurrence.h"

namespace gruc::cuda {
namespace {

template <class S, class W, bool kBefore>
Instance<ForwardArgs> instance(int depth, bool resident) {
  return {resident ? forward_kernel<S, W, kBefore, true> : forward_kernel<S, W, kBefore, false>,
          forward_shared<S, W>(depth, kBefore, resident)};
}
template <class S, class W>
Instance<ForwardArgs> instance(int depth, bool before, bool resident) {
  return before ? instance<S, W, true>(depth, resident) : instance<S, W, false>(depth, resident);
}
template <class S>
Instance<ForwardArgs> instance(const Plan& plan, int depth) {
  const bool resident = plan.path == Path::kPersistent;
  return plan.bfloat16 ? instance<S, Bfloat16>(depth, plan.before, resident)
                       : instance<S, Float32>(depth, plan.before, resident);
}

}  // namespace

Instance<ForwardArgs> forward_instance(const Plan& plan, int depth) {
  switch (plan.shape) {
    case RowShape::kOne:
      return instance<OneRow>(plan, depth);
    case RowShape::kFew:
      return instance<FewRows>(plan, depth);
    default:
      return instance<ManyRows>(plan, depth);
  }
}

bool launch_recurrence(const ForwardArgs& args, const Plan& plan, cudaStream_t stream) {
  return launch_instance(forward_instance(plan, args.depth), plan, args, stream);
}

}  // namespace gruc::cuda
