"""How the peers are measured: the same rules as `oryx bench ops` (src/bench/runner.h), in Python.

First every case is called for warming up and for its peak memory, then samples are taken in rounds over all cases.
"""
import ctypes
import dataclasses
import statistics
import sys
import time
from typing import Callable

import torch

SAMPLE_S, LONG_CALL_S, MIN_SAMPLES, MAX_SAMPLES = 0.03, 5.0, 3, 15


@dataclasses.dataclass
class Case:
    row: dict  # what identifies it, results are added
    call: Callable[[], object]
    samples: list = dataclasses.field(default_factory=list)
    wanted: int = 0
    calls: int = 1  # in a sample


def seconds(call, count, device):
    if device == "cuda":
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        for _ in range(count):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3
    start = time.perf_counter()
    for _ in range(count):
        call()
    return time.perf_counter() - start


def _resident(field):
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith(field + ":"):
                return int(line.split()[1]) * 1024
    raise OSError(f"no {field} in /proc/self/status")


def peak_bytes(call, device):
    """Bytes that one call needs above what is there before it, or None where the system does not tell."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        return torch.cuda.max_memory_allocated() - before
    try:
        ctypes.CDLL(None).malloc_trim(0)
        with open("/proc/self/clear_refs", "w") as refs:
            refs.write("5")
        before = _resident("VmRSS")
    except OSError:
        call()
        return None
    call()
    return max(0, _resident("VmHWM") - before)


def _note(text):
    """Progress, drawn over itself, where somebody looks."""
    if sys.stderr.isatty():
        print(f"\r{text:40}", end="" if text else "\n", file=sys.stderr, flush=True)


def _prepare(case, device, budget_s, sample_s):
    took = [0.0]

    def once():
        took[0] = seconds(case.call, 1, device)

    case.row["peak_bytes"] = peak_bytes(once, device)
    if took[0] < 1:
        case.row["peak_bytes"] = peak_bytes(once, device)
    if took[0] < 0.1:
        once()
    one = max(took[0], 1e-8)
    case.calls = max(1, -int(-sample_s // one))
    fit = int(budget_s / (case.calls * one))
    case.wanted = 1 if one > LONG_CALL_S else max(MIN_SAMPLES, min(MAX_SAMPLES, fit))


def measure(cases, device, budget_s, quick):
    """Adds ms, spread, samples and peak_bytes, or error, to the row of every case."""
    sample_s = 0.001 if quick else SAMPLE_S

    def attempt(case, work):
        try:
            work()
        except Exception as error:  # a peer that cannot run this case must not end the others
            case.row["error"] = f"{type(error).__name__}: {str(error)[:200]}"

    for i, case in enumerate(cases):
        _note(f"peers: warming up {i + 1}/{len(cases)}")
        attempt(case, lambda case=case: _prepare(case, device, 0 if quick else budget_s, sample_s))
    # Measuring the peaks gave memory back to the system; the hungriest case brings in what all of them need.
    ready = [case for case in cases if "error" not in case.row]
    if ready:
        max(ready, key=lambda case: case.row["peak_bytes"] or 0).call()
    for round_ in range(MAX_SAMPLES):
        _note(f"peers: round {round_ + 1}")
        for case in cases:
            if round_ < case.wanted and "error" not in case.row:
                def sample(case=case):
                    if case.calls > 1:
                        case.call()
                    case.samples.append(seconds(case.call, case.calls, device) / case.calls)
                attempt(case, sample)
    _note("")
    for case in cases:
        if case.samples and "error" not in case.row:
            middle = statistics.median(case.samples)
            case.row.update(ms=middle * 1e3, spread=(max(case.samples) - min(case.samples)) / middle,
                            samples=len(case.samples))
    return [case.row for case in cases]
