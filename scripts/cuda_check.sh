#!/usr/bin/env bash
# What only a machine with an NVIDIA GPU can tell of the CUDA backend, in one command of at most 10 minutes:
#
#   scripts/cuda_check.sh [build] [python] [cpp] [accuracy] [sanitize] [bench]      (all, where none is named)
#
# build: the package by nvcc for this GPU alone, into a folder of its own. python: its tests. cpp: those of the C ABI.
# accuracy: a table of errors against float64. sanitize: memcheck, racecheck and synccheck on short calls. bench:
# against cuDNN. A part that fails does not stop the next; the exit status is 0 where none failed. Downloads nothing.
#
# Logs, and bench.json, go to $OUT (default: build/cuda-check). PYTHON: with pybind11, scikit-build-core, Cython, NumPy,
# pytest and PyTorch (default: python3). GOOGLETEST: its sources, where it is not installed. ARCHITECTURES: as in
# CMAKE_CUDA_ARCHITECTURES (default: the GPU's own).
set -uo pipefail
cd "$(dirname "$0")/.."
LIMIT=${LIMIT:-580}
OUT=${OUT:-build/cuda-check}
PYTHON=$(command -v "${PYTHON:-python3}")
GOOGLETEST=${GOOGLETEST:-/usr/src/googletest}
WORK=$PWD/build/cuda-check
SITE=$WORK/site
mkdir -p "$OUT" "$WORK"
OUT=$(cd "$OUT" && pwd)
SUMMARY=$OUT/summary.txt
: >"$SUMMARY"
failed=0

say() { echo "$*" | tee -a "$SUMMARY"; }

# ready <name> [gpu]: whether there is what the part runs on.
ready() {
  if [ ! -d "$SITE/gru_c" ]; then
    failed=1
    say "$1: FAILED: the package is not built"
    return 1
  fi
  if [ $# -gt 1 ] && [ -z "$gpu" ]; then
    say "$1: skipped: no GPU"
    return 1
  fi
}

# part <name> <seconds> <command>...: runs it for as long as there is time, its output appended to $OUT/<name, as far as
# its first space>.log.
part() {
  local name=$1 most=$2 left=$((LIMIT - SECONDS)) began=$SECONDS log=$OUT/${1%% *}.log status
  shift 2
  if [ "$left" -lt 10 ]; then
    failed=1
    say "$name: FAILED: no time left of $LIMIT s"
    return 1
  fi
  timeout -k 5 $((most < left ? most : left)) "$@" >>"$log" 2>&1 </dev/null
  status=$?
  if [ $status -eq 0 ]; then
    say "$name: passed in $((SECONDS - began)) s: $(tail -n 1 "$log")"
  else
    failed=1
    [ $status -ne 124 ] || status="124, out of time"
    say "$name: FAILED after $((SECONDS - began)) s (status $status); the end of its log:"
    tail -n 30 "$log" | cut -c1-300
  fi
  [ "$status" = 0 ]
}

build() {
  part build 240 "$PYTHON" -m pip install -v --no-build-isolation --no-deps --no-index --upgrade --target "$SITE" \
    -C "build-dir=$WORK/package" -C cmake.define.GRUC_CUDA=ON -C cmake.define.CMAKE_CUDA_FLAGS=-Xptxas=-v \
    -C "cmake.define.CMAKE_CUDA_ARCHITECTURES=$ARCHITECTURES" .
}

python_tests() {
  ready python || return
  part python 150 "$PYTHON" -m pytest -q -p no:cacheprovider tests/python_cuda
}

cpp_tests() {
  local googletest=()
  if [ -f "$GOOGLETEST/CMakeLists.txt" ]; then
    googletest=("-DFETCHCONTENT_SOURCE_DIR_GOOGLETEST=$GOOGLETEST")
  elif [ ! -f /usr/include/gtest/gtest.h ]; then
    say "cpp: skipped: no GoogleTest in $GOOGLETEST (GOOGLETEST=folder) nor in /usr/include"
    return
  fi
  part "cpp configure" 60 cmake -S . -B "$WORK/cpp" -G Ninja -DGRUC_CUDA=ON -DGRUC_TESTS=ON \
    "-DCMAKE_CUDA_ARCHITECTURES=$ARCHITECTURES" "-DPython_EXECUTABLE=$PYTHON" "${googletest[@]}" &&
    part "cpp build" 180 cmake --build "$WORK/cpp" --parallel --target gru_core_cuda_tests &&
    part "cpp tests" 120 "$WORK/cpp/tests/cuda/gru_core_cuda_tests"
}

accuracy() {
  ready accuracy gpu || return
  part accuracy 60 "$PYTHON" scripts/cuda_accuracy.py && cat "$OUT/accuracy.log"
}

sanitize() {
  ready sanitize gpu || return
  command -v compute-sanitizer >/dev/null || { say "sanitize: skipped: no compute-sanitizer"; return; }
  for tool in memcheck racecheck synccheck; do
    part "sanitize $tool" 80 compute-sanitizer --tool $tool --error-exitcode 9 "$PYTHON" scripts/cuda_accuracy.py --short
  done
}

bench() {
  ready bench gpu || return
  part bench 110 "$PYTHON" bench/python/cuda_bench.py --quick --json "$OUT/bench.json" && cat "$OUT/bench.log"
}

[ $# -gt 0 ] || set -- build python cpp accuracy sanitize bench
for name in "$@"; do
  case $name in
    build | python | cpp | accuracy | sanitize | bench) ;;
    *) echo "cuda_check.sh: expected build, python, cpp, accuracy, sanitize or bench, got '$name'" >&2; exit 2 ;;
  esac
done
nvcc=$(nvcc --version 2>/dev/null | grep -o 'release [0-9.]*') || nvcc="none"
say "commit $(git rev-parse --short HEAD 2>/dev/null || echo unknown), nvcc: $nvcc"
gpu=$(nvidia-smi --query-gpu=name,compute_cap,driver_version --format=csv,noheader 2>/dev/null | head -n 1) || gpu=""
say "GPU: ${gpu:-none, so tests skip}"
if [ -z "${ARCHITECTURES:-}" ]; then
  ARCHITECTURES=$(echo "$gpu" | cut -d, -f2 | tr -d ' .')
  ARCHITECTURES=${ARCHITECTURES:-90}-real
fi
# pip's cuBLAS, for a package that does not stand beside it.
folders=$("$PYTHON" -c "import nvidia; print(*(f'{p}/cu13/lib:{p}/cublas/lib' for p in nvidia.__path__), sep=':')" 2>/dev/null)
export PYTHONPATH=$SITE LD_LIBRARY_PATH=$folders${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} PYTHONUNBUFFERED=1
for name in "$@"; do
  rm -f "$OUT/$name.log"
  case $name in
    python) python_tests ;;
    cpp) cpp_tests ;;
    *) $name ;;
  esac
done
say "all in $SECONDS s: $([ $failed -eq 0 ] && echo 'nothing failed' || echo FAILED)"
exit $failed
