/* A sensor loop in C99: a reading on each line of stdin, and after each at once the forecast of the next one.
 *
 *     c_embed sunspots.safetensors head.txt < readings.csv
 *
 * The network's memory is in the state, so nothing is kept of the past, and a reading costs one gruc_step. Everything
 * is allocated before the first reading. The reading is a line's last column; lines that begin with # and one line of
 * titles are skipped. Where a reading is missing (an empty column, or "nan") the forecast of it stands in.
 */
#include <errno.h>
#include <gru_core/gru_core.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What stands around the network. head.txt has these numbers in this order, `weight` with H of them. */
typedef struct Head {
  float mean, std; /* of the readings that were learnt from: the network sees (reading - mean) / std */
  float bias;
  float* weight; /* forecast = reading + std * (bias + sum of weight[j] * h[j]) */
} Head;

typedef struct Sensor {
  gruc_model* model;
  gruc_weights* weights;
  gruc_state* state;
  float* h; /* [H], the state after a step */
  size_t units;
  Head head;
} Sensor;

static bool fail(const char* what, const char* why) {
  fprintf(stderr, "c_embed: %s: %s\n", what, why);
  return false;
}

static bool check(gruc_status status, const char* what) { return status == GRUC_OK || fail(what, gruc_last_error()); }

static bool read_head(Head* head, size_t units, const char* path) {
  FILE* file = fopen(path, "r");
  if (file == NULL) return fail(path, strerror(errno));
  bool good = fscanf(file, "%f%f%f", &head->mean, &head->std, &head->bias) == 3;
  for (size_t j = 0; good && j < units; ++j) good = fscanf(file, "%f", &head->weight[j]) == 1;
  char rest;
  good = good && fscanf(file, " %c", &rest) == EOF && ferror(file) == 0;
  fclose(file);
  return good || fail(path, "expected three numbers and one for each hidden unit, and nothing more");
}

static bool open_sensor(Sensor* sensor, const char* model_path, const char* head_path) {
  if (gruc_abi_version() != GRUC_ABI_VERSION) return fail("gru_core", "the library has another ABI than the header");
  if (!check(gruc_model_load(model_path, &sensor->model), "the model")) return false;
  const gruc_spec* spec = gruc_model_spec(sensor->model);
  if (spec->input_size != 1) return fail(model_path, "expected a network with one input");
  size_t count;
  const gruc_layer_params* params = gruc_model_params(sensor->model, &count);
  if (!check(gruc_weights_create(spec, params, count, &sensor->weights), "the weights")) return false;
  if (!check(gruc_state_create(sensor->weights, 1, &sensor->state), "the state")) return false;
  sensor->units = (size_t)spec->hidden_size;
  sensor->h = malloc(sensor->units * sizeof *sensor->h);
  sensor->head.weight = malloc(sensor->units * sizeof *sensor->head.weight);
  if (sensor->h == NULL || sensor->head.weight == NULL) return fail("the head", "out of memory");
  return read_head(&sensor->head, sensor->units, head_path);
}

static void close_sensor(Sensor* sensor) {
  free(sensor->head.weight);
  free(sensor->h);
  gruc_state_destroy(sensor->state); /* before the weights that it uses */
  gruc_weights_destroy(sensor->weights);
  gruc_model_destroy(sensor->model);
}

static bool next_forecast(Sensor* sensor, float reading, float* forecast) {
  const Head* head = &sensor->head;
  const float x = (reading - head->mean) / head->std;
  if (!check(gruc_step(sensor->state, &x, sensor->h), "a step")) return false;
  float change = head->bias;
  for (size_t j = 0; j < sensor->units; ++j) change += head->weight[j] * sensor->h[j];
  *forecast = reading + head->std * change;
  return true;
}

/* The number in a line's last column; NaN where there is none. */
static bool parse_reading(char* line, float* reading) {
  char* comma = strrchr(line, ',');
  char* begin = comma == NULL ? line : comma + 1;
  char* end;
  *reading = strtof(begin, &end);
  if (end == begin) *reading = NAN;
  return end[strspn(end, " \t\r\n")] == '\0' && !isinf(*reading);
}

static bool run(Sensor* sensor) {
  char line[256];
  float forecast = sensor->head.mean;
  bool titles = true; /* may still come */
  for (unsigned long number = 1; fgets(line, sizeof line, stdin) != NULL; ++number) {
    char where[48];
    snprintf(where, sizeof where, "line %lu of stdin", number);
    if (strchr(line, '\n') == NULL && !feof(stdin)) return fail(where, "expected at most 254 characters");
    line[strcspn(line, "\r\n")] = '\0';
    if (line[0] == '#' || line[0] == '\0') continue;
    float reading;
    const bool parsed = parse_reading(line, &reading);
    if (!parsed && !titles) return fail(where, "expected a number in the last column");
    titles = false;
    if (!parsed) continue;
    if (!next_forecast(sensor, isnan(reading) ? forecast : reading, &forecast)) return false;
    if (printf("%s -> %.3f\n", line, (double)forecast) < 0 || fflush(stdout) != 0) {
      return fail("stdout", strerror(errno));
    }
  }
  return ferror(stdin) == 0 || fail("stdin", strerror(errno));
}

int main(int argc, char** argv) {
  if (argc != 3) {
    fputs("usage: c_embed MODEL.safetensors HEAD.txt < readings.csv\n", stderr);
    return EXIT_FAILURE;
  }
  Sensor sensor = {0};
  const bool good = open_sensor(&sensor, argv[1], argv[2]) && run(&sensor);
  close_sensor(&sensor);
  return good ? EXIT_SUCCESS : EXIT_FAILURE;
}
