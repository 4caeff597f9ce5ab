"""examples/c_embed, cpp_stream, many_streams, no_heap: built as strangers build them, against the package under test.

What they print and write is held against Python and PyTorch; damaged files and wrong arguments are errors, no crashes.
"""

from __future__ import annotations

import csv
import importlib.util
import math
import os
import select
import shutil
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from example_tools import EXAMPLES

import gru_c

pytest.importorskip("safetensors", reason="safetensors is not installed (gru-c[safetensors])")

EMBED, STREAM, NO_HEAP = (EXAMPLES / name for name in ("c_embed", "cpp_stream", "no_heap"))
RECORD = EXAMPLES / "data" / "sunspots.csv"
SENSOR = [EMBED / "sunspots.safetensors", EMBED / "head.txt"]
AMP = [STREAM / "amp.safetensors", STREAM / "head.txt"]
GUITAR = STREAM / "guitar.wav"

Done = subprocess.CompletedProcess[str]


def found(tool: str) -> str | None:
    """Of the environment's own tools first: pip installs them there."""
    return shutil.which(tool, path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    cmake, ninja = found("cmake"), found("ninja")
    if cmake is None or sys.platform == "win32" or shutil.which("cc") is None or shutil.which("c++") is None:
        pytest.skip("needs cmake and the commands cc and c++")
    folder = tmp_path_factory.mktemp("native")
    package = subprocess.run([sys.executable, "-m", "gru_c", "--cmakedir"], capture_output=True, text=True, check=True)
    generator = [] if ninja is None else ["-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}"]
    where = ["-S", str(EXAMPLES), "-B", str(folder), f"-Dgru_core_DIR={package.stdout.strip()}"]
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON"]
    for command in ([cmake, *generator, *where, *options], [cmake, "--build", str(folder)]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder


def run(build: Path, name: str, *arguments: object, text: str = "") -> Done:
    command = [str(build / name / name), *map(str, arguments)]
    return subprocess.run(command, input=text, capture_output=True, text=True, check=False)


def output(build: Path, name: str, *arguments: object, text: str = "") -> str:
    done = run(build, name, *arguments, text=text)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def complaint(build: Path, name: str, *arguments: object, text: str = "") -> str:
    done = run(build, name, *arguments, text=text)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr


def numbers(path: Path) -> list[float]:
    return [float(number) for number in path.read_text().split()]


def script(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"{path.parent.name}_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- c_embed and no_heap ----------------------------------------------------------------------------------------------


def record() -> np.ndarray[Any, np.dtype[np.float64]]:
    with RECORD.open(newline="") as file:
        rows = csv.DictReader(line for line in file if not line.startswith("#"))
        return np.array([float(row["sunspots"]) for row in rows])


def forecasts(stdout: str) -> list[float]:
    return [float(line.split("->")[1]) for line in stdout.splitlines()]


def test_c_embed_forecasts(build: Path) -> None:
    values = record()
    said = np.array(forecasts(output(build, "c_embed", *SENSOR, text=RECORD.read_text())))
    mean, std, bias, *weight = numbers(SENSOR[1])
    y = gru_c.GRU.load(SENSOR[0])(((values - mean) / std).astype(np.float32)[:, None])[0]
    np.testing.assert_allclose(said, values + std * (y @ np.array(weight) + bias), rtol=1e-5, atol=1e-3)
    before_held_out = slice(1950 - 1700 - 1, -1)
    rmse, last = (np.sqrt(np.mean((one[before_held_out] - values[1950 - 1700 :]) ** 2)) for one in (said, values))
    claims = (EMBED / "train.py").read_text()
    assert f"GRU, 16 units             {rmse:.1f}\n" in claims
    assert f"the last reading again    {last:.1f}\n" in claims


def test_c_embed_says_each_forecast_at_once(build: Path) -> None:
    command = [str(part) for part in (build / "c_embed" / "c_embed", *SENSOR)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for reading in ("10", "20.5"):
            process.stdin.write(f"{reading}\n")
            process.stdin.flush()
            assert select.select([process.stdout], [], [], 60)[0], "it waits for more readings"
            assert process.stdout.readline().startswith(f"{reading} -> ")


def test_c_embed_fills_gaps_by_its_forecast(build: Path) -> None:
    with_gap = output(build, "c_embed", *SENSOR, text="t,v\n1,30\n2,\n3,nan\n4,50\n")
    first = forecasts(with_gap)[0]
    second = forecasts(output(build, "c_embed", *SENSOR, text=f"30\n{first}\n"))[1]
    filled = output(build, "c_embed", *SENSOR, text=f"# a remark\n30\n\n{first}\r\n{second}\n50")
    np.testing.assert_allclose(forecasts(with_gap), forecasts(filled), rtol=0, atol=2e-3)
    assert with_gap.splitlines()[1].startswith("2, -> ")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1\ntwo\n", "line 2 of stdin: expected a number in the last column"),
        ("1\n1e999\n", "line 2 of stdin: expected a number in the last column"),
        ("1\n2;3\n", "line 2 of stdin: expected a number in the last column"),
        ("titles\nagain\n", "line 2 of stdin: expected a number in the last column"),
        ("1\n" + "2" * 300 + "\n", "line 2 of stdin: expected at most 254 characters"),
    ],
)
def test_c_embed_names_wrong_readings(build: Path, text: str, expected: str) -> None:
    done = run(build, "c_embed", *SENSOR, text=text)
    assert (done.returncode, done.stderr) == (1, f"c_embed: {expected}\n")


def test_c_embed_names_wrong_files(build: Path, tmp_path: Path) -> None:
    assert "nowhere.safetensors" in complaint(build, "c_embed", "nowhere.safetensors", SENSOR[1])
    damaged = tmp_path / "damaged.safetensors"
    damaged.write_bytes(SENSOR[0].read_bytes()[:-1])
    assert "damaged.safetensors" in complaint(build, "c_embed", damaged, SENSOR[1])
    wide = tmp_path / "wide.safetensors"
    random = np.random.default_rng(0)
    shapes = {"weight_ih_l0": (48, 2), "weight_hh_l0": (48, 16), "bias_ih_l0": 48, "bias_hh_l0": 48}
    params = {name: random.standard_normal(shape).astype(np.float32) for name, shape in shapes.items()}
    gru_c.GRU(gru_c.GRUSpec(input_size=2, hidden_size=16), params).save(wide)
    assert "one input" in complaint(build, "c_embed", wide, SENSOR[1])
    assert "nowhere.txt" in complaint(build, "c_embed", SENSOR[0], "nowhere.txt")
    head = tmp_path / "head.txt"
    for text in ("", "1 2 3\n" + "4\n" * 15, "1 2 3\n" + "4\n" * 17, "1 2 3\n" + "4\n" * 15 + "four\n"):
        head.write_text(text)
        assert "head.txt: expected three numbers and one for each" in complaint(build, "c_embed", SENSOR[0], head)
    assert "usage: c_embed" in complaint(build, "c_embed", SENSOR[0])


def test_no_heap_says_what_c_embed_says(build: Path) -> None:
    readings = "".join(f"{value}\n" for value in record())
    said = [float(line) for line in output(build, "no_heap", text=readings).split()]
    expected = forecasts(output(build, "c_embed", *SENSOR, text=readings))
    np.testing.assert_allclose(said, expected, rtol=0, atol=1.1e-3)  # three digits, the last rounded
    assert run(build, "no_heap", text="1\ntwo\n").stderr == "no_heap: expected a number on each line\n"


def test_no_heap_has_none(build: Path, tmp_path: Path) -> None:
    """The heap it is linked against ends a program, and there is no C++ library that could have another."""
    if sys.platform != "linux" or shutil.which("nm") is None or shutil.which("readelf") is None:
        pytest.skip("needs Linux, nm and readelf")
    program = str(build / "no_heap" / "no_heap")
    defined = subprocess.run(["nm", "--defined-only", program], capture_output=True, text=True, check=True).stdout
    functions = ("malloc", "calloc", "realloc", "free", "aligned_alloc", "memalign", "posix_memalign")
    assert [name for name in functions if f" T {name}\n" not in defined] == []
    needed = subprocess.run(["readelf", "--dynamic", program], capture_output=True, text=True, check=True).stdout
    libraries = [line for line in needed.splitlines() if "NEEDED" in line]
    assert libraries
    assert [line for line in libraries if "c++" in line] == []
    (tmp_path / "user.c").write_text(
        "#include <stdlib.h>\nint main(int count, char** names) { free(count > 1 ? names : malloc(1)); return 0; }\n"
    )
    command = ["cc", "-O0", "user.c", str(NO_HEAP / "heap_trap.c"), "-o", "user"]
    subprocess.run(command, cwd=tmp_path, check=True)
    for arguments in ([], ["more"]):
        done = subprocess.run([str(tmp_path / "user"), *arguments], capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (70, "the heap was used\n")


def test_weights_are_what_the_script_writes() -> None:
    module = script(NO_HEAP / "make_weights.py")
    assert module.header() == (NO_HEAP / "weights.h").read_text()


# --- cpp_stream -------------------------------------------------------------------------------------------------------


def wav(samples: np.ndarray[Any, Any], *, rate: int = 44100, extensible: bool = False) -> bytes:
    """[frames, channels] of int16 or float32, with a chunk of odd length before the data, as many programs write."""
    width, channels = samples.itemsize, samples.shape[1]
    tag = 3 if samples.dtype == np.float32 else 1
    form = struct.pack("<HIIHH", channels, rate, rate * width * channels, width * channels, 8 * width)
    form = struct.pack("<H", 0xFFFE if extensible else tag) + form
    if extensible:
        guid = struct.pack("<H", tag) + b"\x00\x00\x00\x00\x10\x00\x80\x00\x00\xaa\x00\x38\x9b\x71"
        form += struct.pack("<HHI", 22, 8 * width, 0) + guid
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    chunks = [(b"fmt ", form), (b"LIST", b"odd"), (b"data", data)]
    body = b"".join(name + struct.pack("<I", len(c)) + c + b"\x00" * (len(c) % 2) for name, c in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WAVE" + body


def samples_of(path: Path) -> np.ndarray[Any, Any]:
    """[frames, channels] of a file that cpp_stream wrote."""
    data, at, channels, dtype = path.read_bytes(), 12, 0, ""
    assert data[:4] + data[8:12] == b"RIFFWAVE"
    assert struct.unpack_from("<I", data, 4) == (len(data) - 8,)
    while True:
        name, length = struct.unpack_from("<4sI", data, at)
        if name == b"fmt ":
            tag, channels, rate, each_second, frame, bits = struct.unpack_from("<HHIIHH", data, at + 8)
            assert (rate, each_second, frame) == (44100, 44100 * channels * bits // 8, channels * bits // 8)
            dtype = {(1, 16): "<i2", (3, 32): "<f4"}[tag, bits]
        if name == b"data":
            assert at + 8 + length == len(data)
            return np.frombuffer(data, dtype, offset=at + 8).reshape(-1, channels)
        at += 8 + length


def guitar(frames: int | None = None) -> np.ndarray[Any, np.dtype[np.float32]]:
    return samples_of(GUITAR)[:frames, 0].astype(np.float32) / np.float32(32768)


def streamed(build: Path, folder: Path, samples: np.ndarray[Any, Any], block: int = 64) -> np.ndarray[Any, Any]:
    (folder / "in.wav").write_bytes(wav(samples))
    output(build, "cpp_stream", *AMP, folder / "in.wav", folder / "out.wav", block)
    return samples_of(folder / "out.wav")


@pytest.fixture(scope="module")
def trainer() -> ModuleType:
    pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    return script(STREAM / "train.py")


def test_cpp_stream_is_pytorch_s_network(build: Path, tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed (gru-c[torch])")
    from safetensors.torch import load_file

    x = guitar(20000)
    gru = torch.nn.GRU(1, 16)
    gru.load_state_dict(load_file(AMP[0]))
    bias, *weight = numbers(AMP[1])
    with torch.no_grad():
        h = gru(torch.tensor(x)[:, None])[0].double().numpy()
    expected = x + h @ np.array(weight) + bias
    np.testing.assert_allclose(streamed(build, tmp_path, x[:, None])[:, 0], expected, rtol=0, atol=1e-5)


def test_cpp_stream_sounds_like_the_stage(build: Path, trainer: ModuleType, tmp_path: Path) -> None:
    """guitar.wav was not learnt from. The figure of other strings stands in train.py."""
    said = output(build, "cpp_stream", *AMP, GUITAR, tmp_path / "out.wav")
    assert "2.00 s of sound, 1 channel, in " in said
    assert "times faster than real time" in said
    assert "a block of 64 frames has 1451.2 us: half of them took " in said
    x = guitar().astype(np.float64)
    wanted = trainer.amplify(x[:, None])
    heard = samples_of(tmp_path / "out.wav").astype(np.float64) / 32768
    assert trainer.ratio(heard, wanted) < 0.01
    assert trainer.ratio(x[:, None], wanted) > 0.3


def test_guitar_is_what_the_script_plays(trainer: ModuleType) -> None:
    played = trainer.riff()
    assert np.abs(guitar() - played).max() < 1e-4


def test_blocks_change_no_bit(build: Path, tmp_path: Path) -> None:
    x = guitar(5003)[:, None]
    one, others = streamed(build, tmp_path, x, 1), [streamed(build, tmp_path, x, block) for block in (64, 100, 5003)]
    assert [one.tobytes() == other.tobytes() for other in others] == [True] * 3


def test_stereo_is_two_streams(build: Path, tmp_path: Path) -> None:
    left, right = guitar(3000), guitar(6000)[3000:]
    both = streamed(build, tmp_path, np.stack([left, right], axis=1))
    for channel, alone in enumerate((left, right)):
        assert both[:, channel].tobytes() == streamed(build, tmp_path, alone[:, None]).tobytes()


def test_integers_are_rounded_and_clipped_floats(build: Path, tmp_path: Path) -> None:
    x = (guitar(4000)[:, None] * 32768).astype(np.int16)
    integers, floats = streamed(build, tmp_path, x), streamed(build, tmp_path, x.astype(np.float32) / 32768)
    np.testing.assert_array_equal(integers, np.rint(floats * 32768))
    bias, *weight = AMP[1].read_text().split()
    for loud, full in (("1.25", 32767), ("-1.25", -32768)):
        (tmp_path / "head.txt").write_text("\n".join([loud, *weight]))
        (tmp_path / "in.wav").write_bytes(wav(x))
        output(build, "cpp_stream", AMP[0], tmp_path / "head.txt", tmp_path / "in.wav", tmp_path / "out.wav")
        expected = np.rint((floats + (float(loud) - float(bias))) * 32768)
        heard = samples_of(tmp_path / "out.wav")
        np.testing.assert_allclose(heard, np.clip(expected, -32768, 32767), rtol=0, atol=1)
        assert (heard == full).sum() > 100


def test_formats_of_wav_files(build: Path, tmp_path: Path) -> None:
    x = guitar(100)[:, None]
    expected = streamed(build, tmp_path, x)
    (tmp_path / "extensible.wav").write_bytes(wav(x, extensible=True))
    output(build, "cpp_stream", *AMP, tmp_path / "extensible.wav", tmp_path / "out.wav")
    np.testing.assert_array_equal(samples_of(tmp_path / "out.wav"), expected)
    assert streamed(build, tmp_path, x[:0]).shape == (0, 1)


def test_cpp_stream_names_what_is_wrong(build: Path, tmp_path: Path) -> None:
    x, bad, out = guitar(10)[:, None], tmp_path / "bad.wav", tmp_path / "out.wav"
    whole = wav(x)
    odd = whole.replace(b"data" + struct.pack("<I", 40), b"data" + struct.pack("<I", 39))
    no_number = x.copy()
    no_number[3] = np.nan
    for data, expected in (
        (b"", "ends at byte 0"),
        (b"RIFX" + whole[4:], "no WAV file"),
        (whole[:-1], f"ends at byte {len(whole) - 1}"),
        (whole[: whole.index(b"data")], "has no data"),
        (whole.replace(b"fmt ", b"fmx "), "its data come before their format"),
        (wav(x, rate=48000), "48000 frames a second, expected 44100"),
        (wav(x, rate=0), "0 frames a second"),
        (wav(np.zeros((2, 3), np.float32)), "3 channels, expected 1 or 2"),
        (wav(np.zeros((2, 1), np.float64)), "format 1 of 64 bits, expected"),
        (wav(no_number), "sample 3 is no finite number"),
        (odd, "its data are 39 bytes, expected whole frames of 4"),
    ):
        bad.write_bytes(data)
        assert f"bad.wav: {expected}" in complaint(build, "cpp_stream", *AMP, bad, out)
    assert not out.exists()
    assert "nowhere.wav: cannot be opened" in complaint(build, "cpp_stream", *AMP, "nowhere.wav", out)
    assert "out.wav: cannot be written" in complaint(build, "cpp_stream", *AMP, GUITAR, tmp_path / "no" / "out.wav")
    assert "nowhere" in complaint(build, "cpp_stream", "nowhere", AMP[1], GUITAR, out)
    assert "head.txt: expected 17 numbers" in complaint(build, "cpp_stream", AMP[0], SENSOR[1], GUITAR, out)
    for arguments in ([], [*AMP, GUITAR, out, "0"], [*AMP, GUITAR, out, "64x"], [*AMP, GUITAR, out, "64", "more"]):
        assert "usage: cpp_stream" in complaint(build, "cpp_stream", *arguments)


def test_no_damaged_wav_crashes(build: Path, tmp_path: Path) -> None:
    """Every cut, and bytes of the head changed at random; a file that is still readable is played."""
    random, whole = np.random.default_rng(1), wav(guitar(6)[:, None], extensible=True)
    head = whole.index(b"data") + 8
    cases = [whole[:length] for length in range(len(whole))]
    for _ in range(60):
        changed = bytearray(whole)
        for at in random.integers(0, head, random.integers(1, 4)):
            changed[at] = random.choice([0, 1, 127, 128, 255, int(random.integers(256))])
        cases.append(bytes(changed))
    codes = set()
    for case in cases:
        (tmp_path / "bad.wav").write_bytes(case)
        done = run(build, "cpp_stream", *AMP, tmp_path / "bad.wav", tmp_path / "out.wav")
        assert done.returncode == 0 or done.stderr.startswith(f"cpp_stream: {tmp_path / 'bad.wav'}: "), case
        codes.add(done.returncode)
    assert codes == {0, 1}


# --- many_streams -----------------------------------------------------------------------------------------------------


def test_many_streams(build: Path) -> None:
    said = output(build, "many_streams", 301, 20).splitlines()
    assert said[0] == "301 streams, 20 steps of each, 8 inputs"
    rows = [line.split() for line in said[2:]]
    assert [int(row[0]) for row in rows if row[1] == "1"] == [16, 32, 64]
    assert all(line.endswith("the same bits") for line in said[2:])
    assert max(int(row[2]) for row in rows) < 2048  # bytes a stream, of 64 units too
    assert all(math.isfinite(float(row[7])) for row in rows)


def test_many_streams_names_wrong_arguments(build: Path) -> None:
    assert "streams: expected 1 to 10000000, got '0'" in complaint(build, "many_streams", 0)
    assert "steps: expected 1 to 10000000, got '2x'" in complaint(build, "many_streams", 1, "2x")
