#!/usr/bin/env python3
"""Predicts the efficiency of distributed training from 8 GPUs on; docs/scaling.md derives the model.

    bench/scaling.py                                   the tables of docs/scaling.md
    bench/scaling.py --model oryx-mamba2-1.4b --batch-tokens 2097152 --mfu 0.3
"""
import argparse
import json
import math
import subprocess

PEAK = 989e12  # bf16 operations a second of an H100 SXM, dense
BUCKETS = 16   # src/train/bucket_layout.cpp, the embedding's besides


def options():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oryx", default="build/release/oryx")
    parser.add_argument("--model", default="oryx-gdn-1.4b")
    parser.add_argument("--batch-tokens", type=int, default=1 << 22, help="of a step, where it is the same for any number of GPUs")
    parser.add_argument("--gpu-tokens", type=int, default=1 << 15, help="of a step and GPU, where the batch grows with them")
    parser.add_argument("--micro-batch-tokens", type=int, default=1 << 15, help="at most, of one backward pass")
    parser.add_argument("--mfu", type=float, default=0.4, help="of computation alone (assumed)")
    parser.add_argument("--node", type=int, default=8, help="GPUs of a node")
    parser.add_argument("--nvlink", type=float, default=329, help="bus bandwidth inside a node, GB/s")
    parser.add_argument("--nic", type=float, default=50, help="of each GPU's own network card, GB/s")
    parser.add_argument("--nic-efficiency", type=float, default=0.9)
    return parser.parse_args()


class Machine:
    # NCCL's own latencies (us) of a ring's step, by protocol: NVLink, network, and the part of the bandwidth.
    PROTOCOLS = {"LL128": (1.9, 4.0, 0.92), "Simple": (3.4, 14.0, 1.0)}
    START = 14.0  # us

    def __init__(self, o):
        self.node, self.nvlink = o.node, o.nvlink * 1e9
        self.network = o.node * o.nic * 1e9 * o.nic_efficiency  # the rings of a node, one a card, side by side

    def ring(self, size, ranks):
        """Seconds of one reduce-scatter or all-gather of `size` bytes in all."""
        nodes = max(1, ranks // self.node)
        bandwidth = self.nvlink if nodes == 1 else min(self.nvlink, self.network)
        across = nodes if nodes > 1 else 0
        return min((self.START + (ranks - 1 - across) * near + across * far) * 1e-6 + size * (ranks - 1) / ranks / (bandwidth * part)
                   for near, far, part in self.PROTOCOLS.values())

    def two_levels(self, size, ranks):
        """The same between nodes first on each GPU's own part: reduce-scatter in the node, then across, and back."""
        nodes = ranks // self.node
        if nodes <= 1:
            return self.ring(size, ranks)
        steps = math.ceil(math.log2(nodes))
        across = steps * 14e-6 + size / self.node * (nodes - 1) / nodes / (self.network / self.node)
        return self.ring(size, self.node) + across


def predict(model, machine, o, ranks, batch, collective):
    """Seconds of a step's parts."""
    size = 4 * model["parameters"]["total"]
    embedding = 4 * model["parameters"]["embedding"]
    forward = sum(model["flops_per_token"].values()) / len(model["flops_per_token"])
    tokens = batch / ranks
    compute = 3 * forward * tokens / (o.mfu * PEAK)
    backward = compute * 2 / 3 * min(1, o.micro_batch_tokens / tokens)  # of the last micro batch, which hides the reduction
    bucket = (size - embedding) / BUCKETS
    reduce_layers, last = BUCKETS * collective(bucket, ranks), collective(embedding, ranks)
    exposed = max(0, reduce_layers - backward) + last  # the embedding's gradient comes at the very end
    gather = reduce_layers + last
    return {"compute": compute, "reduce": reduce_layers + last, "exposed": exposed, "gather": gather,
            "step": compute + exposed + gather, "overlapped": compute + exposed + max(0, gather - compute / 3)}


def table(model, machine, o, batches):
    size = 4 * model["parameters"]["total"]
    print("| GPUs | tokens a GPU | GB sent a GPU | compute, ms | reduction, ms | of it exposed | all-gather, ms | step, ms "
          "| efficiency | gather behind forward | and two levels |")
    print("| --- " * 11 + "|")
    for ranks, batch in batches:
        p, q = (predict(model, machine, o, ranks, batch, c) for c in (machine.ring, machine.two_levels))
        ms = [f"{1e3 * p[k]:.1f}" for k in ("compute", "reduce", "exposed", "gather", "step")]
        shares = [f"{p['compute'] / p['step']:.1%}", f"{p['compute'] / p['overlapped']:.1%}", f"{q['compute'] / q['overlapped']:.1%}"]
        sent = 2 * size * (ranks - 1) / ranks / 1e9
        print(f"| {ranks} | {batch // ranks} | {sent:.2f} | " + " | ".join(ms + shares) + " |")


def main():
    o = options()
    model = json.loads(subprocess.run([o.oryx, "info", o.model, "--json"], check=True, capture_output=True, text=True).stdout)
    machine = Machine(o)
    gpus = [8 << i for i in range(8)]
    print(f"{o.model}: {model['parameters']['total'] / 1e9:.3f}G parameters; model flops utilisation {o.mfu} of {PEAK / 1e12:.0f} "
          f"TFLOP/s; {o.nvlink:.0f} GB/s in a node of {o.node}, {o.nic:.0f} GB/s a card between them\n")
    print(f"A batch of {o.batch_tokens} tokens:\n")
    table(model, machine, o, [(n, o.batch_tokens) for n in gpus])
    print(f"\n{o.gpu_tokens} tokens a GPU:\n")
    table(model, machine, o, [(n, o.gpu_tokens * n) for n in gpus])


if __name__ == "__main__":
    main()
