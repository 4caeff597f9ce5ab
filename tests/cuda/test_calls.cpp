// Calls in all their forms: layouts, workspaces, steps one by one, weights that are replaced, several devices' worth of
// arguments. Must not include the backend's internals.
#include <cuda_runtime_api.h>

#include <cmath>

#include "device.h"

namespace gruc::test {
namespace {

class CudaCalls : public CudaTest {};

constexpr double kClose = 1e-5;

// The array [T, B, width] with other strides, between columns that are nobody's.
std::vector<float> laid_out(const std::vector<float>& dense, int64_t steps, int64_t batch, int64_t width, int64_t step,
                            int64_t row, int64_t offset, size_t size, float elsewhere) {
  std::vector<float> array(size, elsewhere);
  for (int64_t t = 0; t < steps; ++t)
    for (int64_t b = 0; b < batch; ++b)
      for (int64_t i = 0; i < width; ++i)
        array[static_cast<size_t>(offset + t * step + b * row + i)] =
            dense[static_cast<size_t>((t * batch + b) * width + i)];
  return array;
}

// Batch first, rows that are wider than x, and rows of y that stand in a larger array: nothing else is written.
TEST_F(CudaCalls, Strides) {
  Random random(1);
  for (const int32_t direction : {GRUC_FORWARD, GRUC_BIDIRECTIONAL})
    for (const int32_t layers : {1, 2})
      for (const int64_t batch : {1, 3, 35})
        for (const auto lengths : {Lengths::kWhole, Lengths::kRagged})
          for (const char* path : {"auto", "cublas"}) {
            const ForcedPath forced(path);
            const gruc_spec spec = make_spec(5, 9, layers, direction);
            const Params params(spec, random);
            const CudaNetwork network(spec, params);
            const Problem p = make_problem(spec, 4, batch, random, lengths, Start::kRandom);
            const Exact expected = exact(spec, params, p);
            const int64_t width = width_of(spec), steps = p.steps;
            struct Layout {
              int64_t x_step, x_row, x_offset, y_step, y_row, y_offset;
            };
            const Layout layouts[] = {{5, steps * 5, 0, width, steps * width, 0},
                                      {batch * 8, 8, 3, batch * (width + 6), width + 6, 2},
                                      {7, steps * 7 + 1, 1, width + 1, steps * (width + 1) + 4, 0}};
            for (const Layout& l : layouts) {
              const size_t x_size = static_cast<size_t>(2 * steps * batch * 10 + 100);
              const size_t y_size = static_cast<size_t>(2 * steps * batch * (width + 8) + 100);
              const DeviceFloats x(laid_out(p.x, steps, batch, 5, l.x_step, l.x_row, l.x_offset, x_size, NAN));
              const DeviceFloats y(std::vector<float>(y_size, 7.0f));
              const Result got = run(network, p, [&](gruc_sequence& s) {
                s.x = x.data() + l.x_offset;
                s.x_step_stride = l.x_step;
                s.x_batch_stride = l.x_row;
                s.y = y.data() + l.y_offset;
                s.y_step_stride = l.y_step;
                s.y_batch_stride = l.y_row;
              });
              EXPECT_LE(distance(got.h_n, expected.h_n), kClose) << describe(spec, p);
              const std::vector<float> all = y.read();
              Result dense{std::vector<float>(expected.y.size()), got.h_n};
              std::vector<float> rest = all;
              for (int64_t t = 0; t < steps; ++t)
                for (int64_t b = 0; b < batch; ++b)
                  for (int64_t j = 0; j < width; ++j) {
                    const size_t at = static_cast<size_t>(l.y_offset + t * l.y_step + b * l.y_row + j);
                    dense.y[static_cast<size_t>((t * batch + b) * width + j)] = all[at];
                    rest[at] = 7.0f;
                  }
              EXPECT_LE(distance(dense.y, expected.y), kClose) << describe(spec, p);
              expect_exact_edges(spec, p, dense);
              EXPECT_TRUE(same_bits(rest, std::vector<float>(y_size, 7.0f))) << describe(spec, p);
            }
          }
}

// Exactly as large as is asked for; its contents do not matter.
TEST_F(CudaCalls, WorkspacesOfTheCaller) {
  Random random(2);
  for (const char* path : {"persistent", "fused", "cublas"})
    for (const int32_t layers : {1, 3})
      for (const int64_t batch : {1, 6, 33})
        for (const auto lengths : {Lengths::kWhole, Lengths::kRagged}) {
          const ForcedPath forced(path);
          gruc_spec spec = make_spec(5, 9, layers, GRUC_BIDIRECTIONAL);
          spec.reset = random.integer(0, 1) != 0 ? GRUC_RESET_AFTER : GRUC_RESET_BEFORE;
          const Params params(spec, random);
          const CudaNetwork network(spec, params);
          const Problem p = make_problem(spec, 4, batch, random, lengths);
          std::unique_ptr<DeviceBytes> workspace;
          const Result got = run(network, p, [&](gruc_sequence& s) {
            size_t size = 0;
            ASSERT_EQ(gruc_cuda_forward_workspace(network.weights(), &s, &size), GRUC_OK) << gruc_cuda_last_error();
            workspace = std::make_unique<DeviceBytes>(size);
            s.workspace = workspace->data();
            s.workspace_size = size;
          });
          EXPECT_LE(distance(got, exact(spec, params, p)), kClose) << describe(spec, p);
        }
}

// Single steps, each from the state that the last one left, are the sequence.
TEST_F(CudaCalls, StepsOneByOneAreTheSequence) {
  Random random(3);
  for (const int64_t batch : {1, 4, 33})
    for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
      gruc_spec spec = make_spec(6, 21, 2);
      spec.reset = reset;
      const CudaNetwork network(spec, Params(spec, random));
      const Problem p = make_problem(spec, 6, batch, random, Lengths::kWhole, Start::kRandom);
      const Result whole = run(network, p);
      Result stepwise{{}, p.h0};
      for (const int64_t steps : {1, 1, 3, 1}) {
        Problem part = p;
        const auto at = static_cast<int64_t>(stepwise.y.size()) / spec.hidden_size * spec.input_size;
        part.steps = steps;
        part.x.assign(p.x.begin() + at, p.x.begin() + at + steps * batch * spec.input_size);
        part.h0 = stepwise.h_n;
        const Result next = run(network, part);
        stepwise.y.insert(stepwise.y.end(), next.y.begin(), next.y.end());
        stepwise.h_n = next.h_n;
      }
      EXPECT_LE(distance(stepwise, whole), 1e-6);
    }
}

// A stream that keeps its state where it is: h_n of a step is h0 of the next, from one array to another.
TEST_F(CudaCalls, StatesThatStayOnTheDevice) {
  Random random(4);
  const gruc_spec spec = make_spec(3, 12, 2);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const Problem p = make_problem(spec, 6, 2, random);
  DeviceCall call(network, p);
  const DeviceFloats states[] = {DeviceFloats(std::vector<float>(48)), DeviceFloats(std::vector<float>(48))};
  for (int64_t t = 0; t < p.steps; ++t) {
    gruc_sequence s;
    ASSERT_EQ(gruc_cuda_sequence_init(network.weights(), 1, 2, &s), GRUC_OK);
    s.x = call.x.data() + t * 2 * 3;
    s.y = call.y.data() + t * 2 * 12;
    s.h0 = states[t % 2].data();
    s.h_n = states[(t + 1) % 2].data();
    ASSERT_EQ(gruc_cuda_forward(network.weights(), &s, nullptr), GRUC_OK) << gruc_cuda_last_error();
  }
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  EXPECT_LE(distance(Result{call.y.read(), states[0].read()}, exact(spec, params, p)), kClose);
}

TEST_F(CudaCalls, WeightsAreReplaced) {
  Random random(5);
  for (const int32_t reset : {GRUC_RESET_AFTER, GRUC_RESET_BEFORE}) {
    gruc_spec spec = make_spec(5, 9, 2, GRUC_BIDIRECTIONAL);
    spec.reset = reset;
    const Params first(spec, random), second(spec, random);
    const CudaNetwork network(spec, first);
    const Problem p = make_problem(spec, 4, 3, random);
    EXPECT_LE(distance(run(network, p), exact(spec, first, p)), kClose);
    ASSERT_EQ(gruc_cuda_weights_update(network.weights(), second.layers.data(), second.layers.size(), nullptr), GRUC_OK)
        << gruc_cuda_last_error();
    EXPECT_LE(distance(run(network, p), exact(spec, second, p)), kClose);
    // Training reads other copies of them.
    const Incoming incoming = make_incoming(spec, p, random);
    EXPECT_LE(distance(gradients(network, p, {}, incoming), exact_gradients(spec, second, p, incoming)), kClose);
  }
}

// Parameters that are on the device already.
TEST_F(CudaCalls, ParametersOnTheDevice) {
  Random random(6);
  for (const auto precision : {GRUC_CUDA_FLOAT32, GRUC_CUDA_BFLOAT16}) {
    const gruc_spec spec = make_spec(5, 9, 2);
    const Params params(spec, random), others(spec, random);
    std::vector<std::unique_ptr<DeviceFloats>> arrays;
    for (const auto& array : params.arrays) arrays.push_back(std::make_unique<DeviceFloats>(array));
    std::vector<gruc_layer_params> layers(2);
    for (size_t i = 0; i < 2; ++i) {
      layers[i] = {};
      layers[i].weight_ih = arrays[4 * i]->data();
      layers[i].weight_hh = arrays[4 * i + 1]->data();
      layers[i].bias_ih = arrays[4 * i + 2]->data();
      layers[i].bias_hh = arrays[4 * i + 3]->data();
    }
    const Problem p = make_problem(spec, 4, 3, random);
    const Result expected = run(CudaNetwork(spec, params, precision), p);
    const CudaNetwork network(spec, others, precision);
    ASSERT_EQ(gruc_cuda_weights_update(network.weights(), layers.data(), 2, nullptr), GRUC_OK)
        << gruc_cuda_last_error();
    EXPECT_TRUE(same_bits(run(network, p), expected));
  }
}

TEST_F(CudaCalls, WhatWeightsSayOfThemselves) {
  Random random(7);
  const gruc_spec small = make_spec(5, 9), large = make_spec(5, 90);
  const CudaNetwork a(small, Params(small, random)), b(large, Params(large, random));
  EXPECT_EQ(gruc_cuda_weights_device(a.weights()), 0);
  EXPECT_GE(gruc_cuda_weights_bytes(a.weights()), 4u * 3 * 9 * (5 + 9));
  EXPECT_GE(gruc_cuda_weights_bytes(b.weights()), 4u * 3 * 90 * (5 + 90));
  gruc_cuda_weights_destroy(nullptr);
}

// Two networks and two streams at a time.
TEST_F(CudaCalls, Streams) {
  Random random(8);
  const gruc_spec spec = make_spec(5, 9, 2);
  const Params params(spec, random);
  const CudaNetwork network(spec, params);
  const Problem p = make_problem(spec, 4, 3, random, Lengths::kRagged), q = make_problem(spec, 7, 2, random);
  cudaStream_t streams[2];
  for (cudaStream_t& stream : streams) ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);  // the weights came by the default stream
  DeviceCall first(network, p), second(network, q);
  ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  for (int i = 0; i < 3; ++i) {
    ASSERT_EQ(gruc_cuda_forward(network.weights(), &first.sequence, streams[0]), GRUC_OK) << gruc_cuda_last_error();
    ASSERT_EQ(gruc_cuda_forward(network.weights(), &second.sequence, streams[1]), GRUC_OK) << gruc_cuda_last_error();
  }
  for (cudaStream_t stream : streams) ASSERT_EQ(cudaStreamSynchronize(stream), cudaSuccess);
  EXPECT_LE(distance(first.result(), exact(spec, params, p)), kClose);
  EXPECT_LE(distance(second.result(), exact(spec, params, q)), kClose);
  for (cudaStream_t stream : streams) EXPECT_EQ(cudaStreamDestroy(stream), cudaSuccess);
}

}  // namespace
}  // namespace gruc::test
