#!/usr/bin/env python3
"""Measures the peers on the cases that `oryx bench ops --json` measured.

    oryx bench ops --json > oryx.json && python run.py --rows oryx.json > peers.json

Each row of the output has the keys that identify the case (op, pass, dtype, T, heads, dim, batch), `peer`, and ms,
spread, samples and peak_bytes, or `error`. Operations without a peer (mixed sequences) are left out. compare.py does both.
"""
import argparse
import json
import logging
import sys

import torch

import mixers
import plain
import steps
from measure import Case, measure

KEY = ("op", "pass", "dtype", "T", "heads", "dim", "batch")
SEQUENCES = {f.__name__: f for f in (mixers.attention, mixers.gated_delta_rule, mixers.ssd)}
ROTATING = {f.__name__: f for f in (steps.gated_delta_rule_step, steps.ssd_step, steps.attention_step, plain.short_conv,
                                    plain.rope, plain.gated_rms_norm, plain.linear_cross_entropy)}


def build(row, device, rotation_bytes):
    """The cases of all peers for one row of Oryx's."""
    out = {key: row[key] for key in KEY}
    try:
        if row["op"] in SEQUENCES:
            found = list(SEQUENCES[row["op"]](row, device))
        elif row["op"] in ROTATING:
            found = list(ROTATING[row["op"]](row, device, rotation_bytes))
        else:
            return []
    except ImportError as error:
        return [Case({**out, "peer": "not installed", "error": str(error)}, lambda: None)]
    return [Case({**out, "peer": name}, call) for name, call in found]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", required=True, help="output of `oryx bench ops --json`; - reads standard input")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=0, help="default: those of Oryx's run")
    parser.add_argument("--budget", type=float, default=2, help="seconds of samples for each case")
    parser.add_argument("--quick", action="store_true", help="few and short samples")
    args = parser.parse_args()
    with sys.stdin if args.rows == "-" else open(args.rows) as file:
        oryx = json.load(file)
    torch.set_num_threads(args.threads or oryx["threads"])
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # transformers says at every operation that it takes its torch path
    cases = []
    for row in oryx["rows"]:
        cases += build(row, args.device, oryx["rotation_bytes"])
    rows = measure([c for c in cases if "error" not in c.row], args.device, args.budget, args.quick)
    rows += [c.row for c in cases if c.row["peer"] == "not installed"]
    json.dump({"torch": torch.__version__, "device": args.device, "threads": torch.get_num_threads(), "rows": rows},
              sys.stdout)


if __name__ == "__main__":
    main()
