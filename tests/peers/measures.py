"""What the peers of the benchmarks say of themselves: memory, and lines of JSON."""

from __future__ import annotations

import json
import resource
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "reference"))


def resident_mb() -> float:
    """Memory that the process holds now, in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 2**20


def peak_mb() -> float:
    """The most memory that the process has held, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def say(record: dict) -> None:
    print(json.dumps(record), flush=True)


def serve(about: dict, run: Callable[[], float], figures: Callable[[list[float]], dict]) -> None:
    """Answers every line `N` on stdin with the times of N runs, in milliseconds, as a line of JSON."""
    say({**about, "ready": True})
    for line in sys.stdin:
        try:
            count = int(line)
        except ValueError:
            count = 0
        if count < 1:
            say({"error": f"send a number of steps from 1 on, not {line.strip()!r}"})
            continue
        times = [run() for _ in range(count)]
        say({**figures(times), "times_ms": [round(t, 3) for t in times]})
