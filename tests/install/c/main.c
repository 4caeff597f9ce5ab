/* A stranger's C program: steps a model file's network over numbers that any language can make, and prints the outputs'
 * bits, a line for each frame. Must include nothing of this project but the public header.
 */
#include <gru_core/gru_core.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { STEPS = 8, MOST = 64 };

static int check(gruc_status status) {
  if (status != GRUC_OK) fprintf(stderr, "%s: %s\n", gruc_status_name(status), gruc_last_error());
  return status == GRUC_OK;
}

int main(int argc, char** argv) {
  gruc_model* model = NULL;
  gruc_weights* weights = NULL;
  gruc_state* state = NULL;
  float x[STEPS * MOST], y[STEPS * MOST];
  if (argc != 2 || !check(gruc_model_load(argv[1], &model))) return 1;

  size_t count = 0;
  const gruc_layer_params* params = gruc_model_params(model, &count);
  const int64_t inputs = gruc_model_spec(model)->input_size;
  const int64_t units = gruc_model_spec(model)->hidden_size;
  int good = check(gruc_weights_create(gruc_model_spec(model), params, count, &weights));
  good = good && check(gruc_state_create(weights, 1, &state)) && inputs <= MOST && units <= MOST;
  for (int64_t i = 0; i < STEPS * MOST; i++) x[i] = (float)(i * 7 % 11 - 5) / 8;
  good = good && check(gruc_step(state, x, y)) && check(gruc_process(state, STEPS - 1, x + inputs, y + units));

  for (int64_t i = 0; good && i < STEPS * units; i++) {
    uint32_t bits;
    memcpy(&bits, y + i, sizeof bits);
    printf("%08x%c", (unsigned)bits, (i + 1) % units == 0 ? '\n' : ' ');
  }
  gruc_state_destroy(state);
  gruc_weights_destroy(weights);
  gruc_model_destroy(model);
  return good ? 0 : 1;
}
