#!/usr/bin/env python3
"""Training steps of Oryx and of the same models in PyTorch, one after another on the same cores, in one table.

    bench/peers/compare_train.py [--oryx build/release/oryx] [--python PEERS/bin/python] [--sizes 10m,50m,180m]
                                 [--kinds transformer,gdn,mamba2,oryx-gdn,oryx-mamba2] [--modes eager,compile] [--json]

For each size and kind `oryx bench train` runs and then train.py in each mode, every one in a process of its own, with the same
threads and allocator settings. Needs nothing but Python itself; --python names the one that has the peers' packages.
"""
import argparse
import json
import os
import shutil
import subprocess
import sys

from compare import HERE, TUNABLES

KINDS = ("transformer", "gdn", "mamba2", "oryx-gdn", "oryx-mamba2")  # the last two have no peer


def last_error(text):
    """The line that says what went wrong: compilers and tracebacks end with carets and notes."""
    lines = text.strip().splitlines() or [""]
    return next((line for line in reversed(lines) if "rror" in line), lines[-1]).strip()[:200]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oryx", default=str(HERE.parents[1] / "build/release/oryx"))
    parser.add_argument("--python", default=sys.executable, help="a Python with the peers' packages (default: this one)")
    parser.add_argument("--sizes", default="10m,50m,180m")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--modes", default="eager,compile")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--length", default="1024")
    parser.add_argument("--batch", default="4096")
    parser.add_argument("--budget", default="20", help="seconds of samples for each case")
    parser.add_argument("--limit", type=float, default=900, help="seconds that a peer's case may take, compilation included")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    unknown = sorted(set(args.kinds.split(",")) - set(KINDS))
    if unknown:
        parser.error(f"--kinds: unknown {', '.join(unknown)}; known are {', '.join(KINDS)}")
    if not shutil.which(args.oryx):
        parser.error(f"--oryx: {args.oryx} is no program; build it, or name the one to measure")
    if subprocess.run([args.python, "-c", "import torch, transformers"], capture_output=True, check=False).returncode != 0:
        parser.error(f"--python: {args.python} cannot import torch and transformers; bench/README.md says how to install them")
    return args


class Runs:
    def __init__(self, args):
        self.args = args
        self.env = {**os.environ, "GLIBC_TUNABLES": TUNABLES, "OMP_NUM_THREADS": str(args.threads)}
        self.common = []
        for name in ("device", "threads", "dtype", "length", "batch", "budget"):
            self.common += ["--" + name, str(getattr(args, name))]

    def _json(self, command, timeout=None):
        done = subprocess.run(command, env=self.env, capture_output=True, text=True, check=False, timeout=timeout)
        if done.returncode != 0:
            raise RuntimeError(f"status {done.returncode}: {last_error(done.stderr)}")
        return json.loads(done.stdout.strip().splitlines()[-1])

    def oryx(self, preset):
        try:
            return self._json([self.args.oryx, "bench", "train", preset, "--json", *self.common])
        except RuntimeError as error:
            sys.exit(f"compare_train: oryx bench train {preset}: {error}")

    def shape(self, preset):
        config = self._json([self.args.oryx, "info", preset, "--json"])["config"]
        return {"width": config["hidden_size"], "layers": config["num_hidden_layers"], "vocab": config["vocab_size"]}

    def peer(self, kind, mode, ours):
        shape = self.shape(ours["preset"]) | {"parameters": ours["parameters"]}
        command = [self.args.python, str(HERE / "train.py"), "--kind", kind, "--mode", mode, *self.common]
        for name, value in shape.items():
            command += ["--" + name, str(value)]
        try:
            return self._json(command, self.args.limit)
        except subprocess.TimeoutExpired:
            return {"error": f"no result in {self.args.limit:g} s"}
        except RuntimeError as error:
            return {"error": str(error)}


def measure(args):
    runs, rows, others, ceilings, versions = Runs(args), [], [], [], {}
    modes = args.modes.split(",")
    for size in args.sizes.split(","):
        for kind in args.kinds.split(","):
            print(f"compare_train: {kind}-{size}", file=sys.stderr)
            result = runs.oryx(f"{kind}-{size}")
            others.append(result["others_busy_cores"])
            ceilings.append(result["ceilings"])
            row = {"size": size, "kind": kind, "oryx": result["rows"][0], "peers": {}}
            for mode in modes if not kind.startswith("oryx") else []:
                row["peers"][mode] = peer = runs.peer(kind, mode, row["oryx"])
                versions = {k: peer[k] for k in ("torch", "transformers") if k in peer} or versions
            rows.append(row)
    for row in rows:  # mixed training beside the faster of its two mixers
        if row["kind"].startswith("oryx"):
            single = [r["oryx"]["tokens_per_s"] for r in rows
                      if r["size"] == row["size"] and r["kind"] in ("transformer", row["kind"].removeprefix("oryx-"))]
            row["of_faster_single"] = row["oryx"]["tokens_per_s"] / max(single) if single else None
    return {"device": args.device, "threads": args.threads, "dtype": args.dtype, "length": int(args.length), "batch": int(args.batch),
            "others_busy_cores": others, "glibc_tunables": TUNABLES, "ceilings": ceilings, **versions, "rows": rows}


def markdown(result, modes):
    lines = ["| model | oryx tokens/s | GFLOP/s | of ceiling | peak MB | " + " | ".join(
        f"{m} tokens/s | oryx / {m} | {m} peak MB | peak, oryx / {m}" for m in modes) + " | of the faster single mixer |"]
    lines.append("|---" + "|---:" * (5 + 4 * len(modes)) + "|")
    for row in result["rows"]:
        ours = row["oryx"]
        cells = [ours["preset"], f"{ours['tokens_per_s']:.0f}", f"{ours['gflops']:.0f}", f"{ours['fraction_of_ceiling']:.0%}",
                 f"{(ours['peak_bytes'] or 0) / 1e6:.0f}"]
        for mode in modes:
            peer = row["peers"].get(mode)
            if peer is None or "error" in peer:
                cells += [peer["error"] if peer else "", "", "", ""]
                continue
            cells += [f"{peer['tokens_per_s']:.0f}", f"{ours['tokens_per_s'] / peer['tokens_per_s']:.2f}"]
            both = ours["peak_bytes"] and peer["peak_bytes"]
            cells += [f"{peer['peak_bytes'] / 1e6:.0f}", f"{ours['peak_bytes'] / peer['peak_bytes']:.2f}"] if both else ["", ""]
        single = row.get("of_faster_single")
        lines.append("| " + " | ".join([*cells, f"{single:.2f}" if single else ""]) + " |")
    busy = [b for b in result["others_busy_cores"] if b is not None]
    lines += ["", f"{result['device']}, {result['threads']} threads, {result['dtype']}, {result['batch']} tokens in sequences of "
              f"{result['length']}; torch {result.get('torch')}, transformers {result.get('transformers')}. Cores that other processes "
              f"kept busy during Oryx's runs: {min(busy, default=0):.2f} to {max(busy, default=0):.2f}."]
    return "\n".join(lines)


def main():
    args = parse_arguments()
    result = measure(args)
    print(json.dumps(result) if args.json else markdown(result, args.modes.split(",")))


if __name__ == "__main__":
    main()
