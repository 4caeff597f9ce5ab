"""Fits the constants of src/gru_core/cpu/kernels/activations.h and prints them. Needs mpmath and NumPy; a minute.

Each polynomial is a weighted least-squares fit on Chebyshev points, reweighted towards the largest error until it is
nearly minimax in relative error. Coefficients are rounded to float32 one by one, lowest power first, and the rest is
fitted again, so that later ones absorb what rounding the earlier ones cost.
"""

from __future__ import annotations

from collections.abc import Callable

import mpmath as mp
import numpy as np

mp.mp.dps = 40
Function = Callable[[mp.mpf], mp.mpf]


def fit(
    f: Function, low: float, high: float, powers: list[int], fixed: dict[int, np.float32], scale: Function
) -> tuple[dict[int, np.float32], float]:
    """Float32 coefficients c so that sum c[p] t^p is near f(t) on [low, high], and the largest error over scale(t)."""
    count = 200
    points = [low + (high - low) * (1 - mp.cos(mp.pi * (k + mp.mpf(1) / 2) / count)) / 2 for k in range(count)]
    points = [t for t in points if abs(t) > 1e-6]
    width = max(abs(low), abs(high))
    scales = np.array([float(scale(t)) for t in points])
    fixed = dict(fixed)
    while True:
        rest = np.array([float(f(t) - sum(mp.mpf(float(c)) * t**p for p, c in fixed.items())) for t in points]) / scales
        free = [p for p in powers if p not in fixed]
        if not free:
            return fixed, float(np.abs(rest).max())
        basis = np.stack([(np.array(points, float) / width) ** p for p in free], 1) / scales[:, None]
        weights = np.ones(len(points))
        best, best_error = None, np.inf
        for _ in range(60):
            c = np.linalg.lstsq(basis * weights[:, None], rest * weights, rcond=None)[0]
            errors = np.abs(basis @ c - rest)
            if errors.max() < best_error:
                best, best_error = c, errors.max()
            weights *= (errors / errors.max() + 1e-3) ** 0.6
            weights /= weights.max()
        fixed[free[0]] = np.float32(best[0] / width ** free[0])


def tanh_interval(index: int) -> tuple[float, float]:
    """Where the bits of 1 + a, two of exponent and two of mantissa, are `index`."""
    exponent, mantissa = divmod(index, 4)
    return 2.0**exponent * (1 + mantissa / 4) - 1, 2.0**exponent * (1 + (mantissa + 1) / 4) - 1


def nearly_exact_left(low: float) -> np.float32:
    """Among the floats just above `low`, the one whose tanh is nearest to a float (Gal's accurate tables)."""
    best, best_error, t = np.float32(low), np.inf, np.float32(low)
    for _ in range(4000):
        exact = mp.tanh(mp.mpf(float(t)))
        rounded = np.float32(float(exact))
        error = float(abs(mp.mpf(float(rounded)) - exact)) / float(np.spacing(rounded))
        if error < best_error:
            best, best_error = t, error
        t = np.nextafter(t, np.float32(99))
    return best


def tanh_row(index: int) -> tuple[list[np.float32], float]:
    """[left, c0, ..., c6] of one interval, and its largest relative error."""
    low, high = tanh_interval(index)
    if low >= 9:  # tanh is 1 in float32 from 9.011 on
        return [np.float32(v) for v in (low, 1, 0, 0, 0, 0, 0, 0)], 0.0
    left = np.float32(0) if index == 0 else nearly_exact_left(low) if low < 7 else np.float32(low)
    base = mp.mpf(float(left))
    c0 = np.float32(float(mp.tanh(base)))
    fixed = {1: np.float32(1)} if index == 0 else {}  # tanh(x) = x exactly for tiny x
    c, error = fit(
        lambda d: mp.tanh(base + d) - mp.mpf(float(c0)),
        low - float(left),
        high - float(left),
        [1, 2, 3, 4, 5, 6],
        fixed,
        lambda d: mp.tanh(base + d),
    )
    return [left, c0, *(c[p] for p in range(1, 7))], error


def main() -> None:
    rows = [tanh_row(i) for i in range(16)]
    print(f"tanh: largest relative error of the fits {max(error for _, error in rows):.2g}")
    for column, name in enumerate(("left", *(f"c{p}" for p in range(7)))):
        values: list[np.float32] = [np.float32(0)] * 16
        for i, (row, _) in enumerate(rows):
            values[(i + 12) % 16] = row[column]  # the bits of 1.0f end in index 12
        print(f"  {name}: " + ", ".join(f"{v:.9g}" for v in values))
    half = 0.5 * float(mp.log(2)) * 1.001
    c, error = fit(lambda r: (mp.expm1(r) / r - 1) / r, -half, half, list(range(6)), {0: np.float32(0.5)}, lambda r: 1)
    print(f"(expm1(r)/r - 1)/r: {error:.2g}\n  " + ", ".join(f"{c[p]:.9g}" for p in range(6)))
    c, error = fit(lambda w: mp.log1p(w) / w, 0, 1, list(range(11)), {0: np.float32(1)}, lambda w: mp.log1p(w) / w)
    print(f"log1p(w)/w: {error:.2g}\n  " + ", ".join(f"{c[p]:.9g}" for p in range(11)))


if __name__ == "__main__":
    main()
