/* gru_core.h as C99 sees it: compiled with every warning an error, linked to the shared library, one call made.
 * Must not include anything of the core but its header.
 */
#include <math.h>
#include <stdio.h>

#include "gru_core/gru_core.h"

/* With all weights zero, r = z = 1/2 and n = tanh(b_n), so two steps give n/2 and 3n/4. */
int main(void) {
  static const float weight_ih[3] = {0.0f, 0.0f, 0.0f};
  static const float weight_hh[3] = {0.0f, 0.0f, 0.0f};
  static const float bias_ih[3] = {0.0f, 0.0f, 0.5f};
  static const float bias_hh[3] = {0.0f, 0.0f, 0.0f};
  static const float x[2] = {1.0f, -1.0f};
  const double n = tanh(0.5);
  float y[2] = {0.0f, 0.0f};
  gruc_layer_params params = {0};
  gruc_weights* weights = NULL;
  gruc_sequence sequence;
  gruc_spec spec;
  int wrong;

  gruc_spec_init(&spec);
  params.weight_ih = weight_ih;
  params.weight_hh = weight_hh;
  params.bias_ih = bias_ih;
  params.bias_hh = bias_hh;
  if (gruc_weights_create(&spec, &params, 1, &weights) != GRUC_OK ||
      gruc_sequence_init(weights, 2, 1, &sequence) != GRUC_OK) {
    fprintf(stderr, "%s\n", gruc_last_error());
    return 1;
  }
  sequence.x = x;
  sequence.y = y;
  if (gruc_forward(weights, &sequence) != GRUC_OK) {
    fprintf(stderr, "%s\n", gruc_last_error());
    return 1;
  }
  gruc_weights_destroy(weights);
  wrong = fabs(y[0] - n / 2) > 1e-7 || fabs(y[1] - 3 * n / 4) > 1e-7;
  printf("gru_core %s: %.9g %.9g%s\n", gruc_version(), (double)y[0], (double)y[1], wrong ? " are wrong" : "");
  return wrong;
}
