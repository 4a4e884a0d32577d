"""Time functions and measure their memory, each in a process of its own.

``python -m experiments.measurements MODULE:FUNCTION '{"size": 1024}'`` calls the function and
prints what it returns as JSON, with ``peak_megabytes``, the greatest memory of the process.
"""

import importlib
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from preprocessing.errors import RunError, one_line

ROOT = Path(__file__).resolve().parents[1]


def measure(
    function: str, environment: dict[str, str] | None = None, **arguments: Any
) -> dict[str, Any]:
    """Call ``"module:function"`` in a process of its own, with more environment variables.

    The arguments, and the dictionary that the function returns, are values that JSON can hold.
    Returns both, and ``peak_megabytes``.

    Raises:
        RunError: the function failed, for example because memory ran out.
    """
    command = [sys.executable, "-m", "experiments.measurements", function, json.dumps(arguments)]
    variables = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"} | (environment or {})
    done = subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, check=False
    )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        reason = one_line(lines[-1]) if lines else f"stopped with code {done.returncode}"
        raise RunError(f"{function} with {arguments} failed: {reason}")
    return {**arguments, **json.loads(done.stdout.splitlines()[-1])}


def restart_peak() -> float:
    """Restart the count of ``peak_megabytes`` and return the megabytes held now.

    Only Linux can restart it; elsewhere the peak so far stays, and is returned.
    """
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        pass
    return peak_megabytes()


def peak_megabytes() -> float:
    """Return the greatest resident memory of this process so far."""
    status = Path("/proc/self/status")
    if status.is_file():
        # A child's getrusage starts at the memory of the process that started it.
        lines = status.read_text(encoding="utf-8").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)


def times(function: Callable[[], Any], repeats: int) -> list[float]:
    """Call a function ``repeats`` times and return the seconds of each call."""
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        function()
        seconds.append(time.perf_counter() - began)
    return seconds


def blocks(side: int, seed: int) -> np.ndarray:
    """Return generated pixels: bright blocks of 16 pixels a side, one in seven, on noise.

    They are ``(side, side)`` uint8; blocks are 210 to 239, all else 40 to 159.
    """
    random = np.random.default_rng(seed)
    bright = random.random((-(-side // 16), -(-side // 16))) < 1 / 7
    noise = random.integers(40, 160, (side, side), np.uint8)
    bright = np.repeat(np.repeat(bright, 16, 0), 16, 1)[:side, :side]
    return np.where(bright, noise // 4 + 200, noise).astype(np.uint8)


def main(function: str, arguments: str) -> None:
    """Call ``"module:function"`` with arguments in JSON; print the result as the last line."""
    module, name = function.split(":")
    result = getattr(importlib.import_module(module), name)(**json.loads(arguments))
    print(json.dumps({**result, "peak_megabytes": peak_megabytes()}))


if __name__ == "__main__":
    main(*sys.argv[1:])
