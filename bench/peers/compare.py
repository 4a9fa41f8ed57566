#!/usr/bin/env python3
"""Oryx and its peers on the same sizes, cores and allocator settings, alternately, in one table.

    bench/peers/compare.py [--oryx build/release/oryx] [--python PEERS/bin/python] [--device cpu|cuda] [--rounds 2]
                           [--ops LIST] [--lengths LIST] [--dims LIST] [--dtypes LIST] [--passes LIST] [--quick] [--json]

For each operation in turn, `oryx bench ops` and then the peers (run.py) measure it; the next round begins with the peers.
Every figure is the median over the rounds, which each give a median. Needs nothing but Python itself; --python names the
one that has the peers' packages (bench/README.md).
"""
import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile

HERE = pathlib.Path(__file__).resolve().parent
KEY = ("op", "pass", "dtype", "T", "heads", "dim", "batch")
OPS = ("attention", "gated_delta_rule", "ssd", "gated_delta_rule_step", "ssd_step", "attention_step", "short_conv", "rope",
       "gated_rms_norm", "linear_cross_entropy")
# glibc would map and unmap every large block, a page fault for each 4 KiB; Oryx sets the same for itself.
TUNABLES = "glibc.malloc.mmap_max=0:glibc.malloc.trim_threshold=17179869184"


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oryx", default=str(HERE.parents[1] / "build/release/oryx"))
    parser.add_argument("--python", default=sys.executable, help="a Python with the peers' packages (default: this one)")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--ops", default=",".join(OPS), help="by commas (default: all that have peers)")
    for name in ("lengths", "dims", "heads", "dtypes", "passes", "budget"):
        parser.add_argument("--" + name, help=f"as in `oryx bench ops --{name}`")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = sorted(set(args.ops.split(",")) - set(OPS))
    if unknown:
        parser.error(f"--ops: no peer for {', '.join(unknown)}; known are {', '.join(OPS)}")
    if not shutil.which(args.oryx):
        parser.error(f"--oryx: {args.oryx} is no program; build it, or name the one to measure")
    if subprocess.run([args.python, "-c", "import torch"], capture_output=True, check=False).returncode != 0:
        parser.error(f"--python: {args.python} cannot import torch; bench/README.md says how to install the peers")
    return args


class Runs:
    """Starts both programs with the same environment."""

    def __init__(self, args):
        self.args = args
        self.env = {**os.environ, "GLIBC_TUNABLES": TUNABLES, "OMP_NUM_THREADS": str(args.threads)}
        self.common = ["--device", args.device, "--threads", str(args.threads)]
        self.common += ["--quick"] if args.quick else []
        self.common += ["--budget", args.budget] if args.budget else []

    def _json(self, command):
        done = subprocess.run(command, env=self.env, stdout=subprocess.PIPE, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"compare: '{' '.join(command)}' ended with status {done.returncode}")
        return json.loads(done.stdout)

    def oryx(self, op):
        command = [self.args.oryx, "bench", "ops", "--json", "--ops", op, *self.common]
        for name in ("lengths", "dims", "heads", "dtypes", "passes"):
            if getattr(self.args, name):
                command += ["--" + name, getattr(self.args, name)]
        return self._json(command)

    def peers(self, oryx):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            json.dump(oryx, file)
            file.flush()
            return self._json([self.args.python, str(HERE / "run.py"), "--rows", file.name, *self.common])


def key(row):
    return tuple(row[k] for k in KEY)


def middle(values):
    values = [v for v in values if v is not None]
    return statistics.median(values) if values else None


def join(oryx_runs, peer_runs):
    """One row for each peer of each case."""
    ours, theirs = {}, {}
    for run in oryx_runs:
        for row in run["rows"]:
            ours.setdefault(key(row), []).append(row)
    for run in peer_runs:
        for row in run["rows"]:
            theirs.setdefault((key(row), row["peer"]), []).append(row)
    out = []
    for (case, peer), rows in theirs.items():
        mine = ours[case]
        row = {**dict(zip(KEY, case)), "peer": peer}
        row["oryx_ms"], row["peer_ms"] = middle([r["ms"] for r in mine]), middle([r.get("ms") for r in rows])
        row["ratio"] = row["peer_ms"] / row["oryx_ms"] if row["peer_ms"] else None
        row["oryx_fraction_of_ceiling"] = middle([r["fraction_of_ceiling"] for r in mine])
        row["oryx_spread"], row["peer_spread"] = max(r["spread"] for r in mine), middle([r.get("spread") for r in rows])
        row["oryx_peak_bytes"] = middle([r["peak_bytes"] for r in mine])
        row["peer_peak_bytes"] = middle([r.get("peak_bytes") for r in rows])
        errors = [r["error"] for r in rows if "error" in r]
        if errors:
            row["error"] = errors[0]
        out.append(row)
    return out


def markdown(result):
    cell = lambda value, form: "" if value is None else format(value, form)
    lines = ["| op | pass | dtype | T | heads x dim | batch | peer | oryx ms | peer ms | peer / oryx | oryx of ceiling | peak MB, oryx / peer |",
             "|" + "---|" * 12]
    for r in result["rows"]:
        peak = "" if r["oryx_peak_bytes"] is None else f"{r['oryx_peak_bytes'] / 1e6:.4g} / {(r['peer_peak_bytes'] or 0) / 1e6:.4g}"
        time = cell(r["peer_ms"], ".4g") or r.get("error", "")
        lines.append(f"| {r['op']} | {r['pass']} | {r['dtype']} | {r['T']} | {r['heads']}x{r['dim']} | {r['batch']} | {r['peer']} "
                     f"| {r['oryx_ms']:.4g} | {time} | {cell(r['ratio'], '.2f')} | {r['oryx_fraction_of_ceiling']:.1%} | {peak} |")
    c = result["ceilings"]
    lines += ["", f"{result['device']}, {result['threads']} threads, torch {result['torch']}; ceilings {c['fp32_gflops']:.0f} GFLOP/s fp32, "
              f"{c['bf16_gflops']:.0f} bf16, {c['read_gb_per_s']:.1f} GB/s. Medians of {result['rounds']} rounds."]
    return "\n".join(lines)


def main():
    args = parse_arguments()
    runs, oryx_runs, peer_runs = Runs(args), [], []
    for round_ in range(args.rounds):
        for op in args.ops.split(","):
            print(f"compare: round {round_ + 1} of {args.rounds}, {op}", file=sys.stderr)
            if round_ % 2 == 1:
                cases = next(run for run in oryx_runs if any(row["op"] == op for row in run["rows"]))
                peer_runs.append(runs.peers(cases))
            oryx_runs.append(runs.oryx(op))
            if round_ % 2 == 0:
                peer_runs.append(runs.peers(oryx_runs[-1]))
    ceilings = {name: middle([run["ceilings"][name] for run in oryx_runs])
                for name in ("fp32_gflops", "bf16_gflops", "read_gb_per_s")}
    result = {"device": args.device, "threads": args.threads, "rounds": args.rounds, "torch": peer_runs[0]["torch"],
              "glibc_tunables": TUNABLES, "ceilings": ceilings, "rows": join(oryx_runs, peer_runs)}
    print(json.dumps(result) if args.json else markdown(result))


if __name__ == "__main__":
    main()
