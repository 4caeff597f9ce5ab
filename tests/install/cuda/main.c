/* A stranger's C program: brings a model file's network to the first GPU, or prints why it cannot. Must include nothing
 * of this project but the public headers, nor CUDA's.
 */
#include <gru_core/gru_core.h>
#include <gru_core/gru_core_cuda.h>
#include <stdint.h>
#include <stdio.h>

int main(int argc, char** argv) {
  gruc_model* model = NULL;
  gruc_cuda_weights* weights = NULL;
  int32_t devices = 0;
  if (argc != 2 || gruc_model_load(argv[1], &model) != GRUC_OK) return 1;
  const gruc_status found = gruc_cuda_device_count(&devices);
  if (found != GRUC_OK || devices == 0) {
    printf("no device: %s\n", gruc_cuda_last_error());
    gruc_model_destroy(model);
    return 0;
  }

  size_t count = 0;
  const gruc_layer_params* params = gruc_model_params(model, &count);
  const gruc_status made =
      gruc_cuda_weights_create(gruc_model_spec(model), params, count, GRUC_CUDA_FLOAT32, 0, NULL, &weights);
  if (made == GRUC_OK) {
    printf("%zu bytes on device %d\n", gruc_cuda_weights_bytes(weights), (int)gruc_cuda_weights_device(weights));
  } else {
    fprintf(stderr, "%s: %s\n", gruc_status_name(made), gruc_cuda_last_error());
  }
  gruc_cuda_weights_destroy(weights);
  gruc_model_destroy(model);
  return made == GRUC_OK ? 0 : 1;
}
