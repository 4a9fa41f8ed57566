"""Times the operations on one GPU beside the library's attention and flash-linear-attention, in one process.

    python bench/gpu/ops.py LIBORYX_OPS.SO [--out TABLE.md] [--sizes 1x8192x16x128,...] [--no-check]

bfloat16 inputs, float32 states, random data; medians over CUDA events after warm-up. Before anything is timed, each
operation is compared with a float64 loop over tokens: ragged sequences, sparse reads, states in and out, gradients.
A line whose peer is not installed, or refuses, says so.
"""

import argparse
import pathlib
import statistics
import sys
import time

import torch
import torch.nn.functional as F

SIZES = [(1, 8192, 16, 128), (8, 4096, 16, 128), (1, 32768, 16, 128), (4, 4096, 16, 64)]
OPS = torch.ops.oryx
START = time.time()


def say(text):
    print(f"[{time.time() - START:5.0f} s] {text}", flush=True)


def milliseconds(call, budget_ms=250.0, warm=3):
    for _ in range(warm):
        call()

    def events(runs):
        pairs = [[torch.cuda.Event(enable_timing=True) for _ in "ab"] for _ in range(runs)]
        torch.cuda.synchronize()
        for begin, end in pairs:
            begin.record()
            call()
            end.record()
        torch.cuda.synchronize()
        return [begin.elapsed_time(end) for begin, end in pairs]

    once = statistics.median(events(3))
    return statistics.median(events(max(7, min(100, int(budget_ms / max(once, 1e-3))))))


def graph_milliseconds(call):
    """Of one call inside a replayed graph: what the kernels take when nothing waits for the host."""
    side = torch.cuda.Stream()
    with torch.cuda.stream(side):
        for _ in range(2):
            call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return milliseconds(graph.replay)


def normal(*shape, dtype=torch.bfloat16):
    return torch.randn(*shape, device="cuda", dtype=torch.float32).to(dtype)


def unit(x):
    return F.normalize(x.float(), dim=-1).to(x.dtype)


# ------------------------------------------------------------------------------------------------------ correctness


def recurrence_loop(q, k, v, g, w, lengths, state, read, delta):
    """Token by token in float64."""
    group, outputs, finals = q.shape[1] // k.shape[1], [], []
    wanted = set(range(len(k)) if read is None else read.tolist())
    begin = row = 0
    for b, length in enumerate(lengths):
        S = state[b]
        for t in range(begin, begin + length):
            S = g[t].exp()[:, None, None] * S
            u = w[t][:, None] * (v[t] - (S * k[t][..., None]).sum(1) if delta else v[t])
            S = S + k[t][..., None] * u[:, None]
            if t in wanted:
                outputs.append((S.repeat_interleave(group, 0) * q[row][..., None]).sum(1))
                row += 1
        finals.append(S)
        begin += length
    return torch.stack(outputs), torch.stack(finals)


def attention_exact(q, k, v, lengths, read, scale):
    """Row by row of the full square of logits, in float64."""
    group, outputs, begin, row = q.shape[1] // k.shape[1], [], 0, 0
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    read = torch.arange(len(k), device="cuda") if read is None else read
    for length in lengths:
        tokens = read[(read >= begin) & (read < begin + length)]
        keys = torch.arange(begin, begin + length, device="cuda")
        logits = torch.einsum("rhd,jhd->hrj", q[row : row + len(tokens)], k[keys]) * scale
        logits = logits.masked_fill(keys > tokens[:, None], -torch.inf)
        outputs.append(torch.einsum("hrj,jhd->rhd", logits.softmax(-1), v[keys]))
        row, begin = row + len(tokens), begin + length
    return (torch.cat(outputs),)


def relative_errors(call, exact, inputs, kinds):
    """Largest error over largest value, of outputs then gradients, for leaves rounded to their kinds."""
    leaves = [x.to(kind).requires_grad_() for x, kind in zip(inputs, kinds)]
    doubles = [x.detach().double().requires_grad_() for x in leaves]
    got, want = call(*leaves), exact(*doubles)
    seeds = [torch.randn_like(o) for o in got]
    got += torch.autograd.grad(got, leaves, seeds)
    want += torch.autograd.grad(want, doubles, [s.double() for s in seeds])
    return [((a.double() - b).abs().max() / (b.abs().max() + 1e-3)).item() for a, b in zip(got, want)]


def check():
    failed = False
    limits = {torch.float32: 2e-5, torch.bfloat16: 1.5e-2}
    layouts = [([65, 0, 130, 3, 300], None), ([65, 0, 130, 3, 300], 9), ([256, 256], None), ([200], None), ([1, 1, 1], None)]
    for dtype, limit in limits.items():
        for lengths, every in layouts:
            N = sum(lengths)
            read = None if every is None else torch.arange(4, N, every, device="cuda")
            rows = N if read is None else len(read)
            cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32)
            for H, Hkv, Kd, Vd in ((4, 2, 128, 128), (2, 2, 64, 64)):
                torch.manual_seed(0)
                inputs = [unit(normal(rows, H, Kd)), unit(normal(N, Hkv, Kd)), normal(N, Hkv, Vd),
                          -torch.rand(N, Hkv, device="cuda") * 0.3, torch.rand(N, Hkv, device="cuda"),
                          normal(len(lengths), Hkv, Kd, Vd)]
                kinds = [dtype] * 3 + [torch.float32] * 3
                for name, op, delta in (("gated_delta_rule", OPS.gated_delta_rule, True), ("ssd", OPS.ssd, False)):
                    errors = relative_errors(
                        lambda q, k, v, g, w, s: op(q, k, v, g, w, cu, s, read),
                        lambda q, k, v, g, w, s: recurrence_loop(q, k, v, g, w, lengths, s, read, delta), inputs, kinds)
                    bad = not max(errors) < limit
                    failed |= bad
                    if bad:
                        say(f"WRONG {name} {dtype} {lengths} read {every} {H}/{Hkv} {Kd}: "
                            + " ".join(f"{e:.1e}" for e in errors))
        for lengths, every in [*layouts, ([1024], None), ([640, 640], None), ([640, 520, 0, 600], None), ([700, 900], 3)]:
            N = sum(lengths)
            read = None if every is None else torch.arange(4, N, every, device="cuda")
            rows = N if read is None else len(read)
            cu = torch.tensor([0, *torch.tensor(lengths).cumsum(0)], dtype=torch.int32, device="cuda")
            for H, Hkv, Kd, Vd in ((4, 2, 128, 128), (2, 2, 64, 64), (2, 1, 40, 72)):
                torch.manual_seed(0)
                inputs = [normal(rows, H, Kd), normal(N, Hkv, Kd), normal(N, Hkv, Vd)]
                errors = relative_errors(lambda q, k, v: (OPS.attention(q, k, v, cu, read, Kd**-0.5),),
                                         lambda q, k, v: attention_exact(q, k, v, lengths, read, Kd**-0.5),
                                         inputs, [dtype] * 3)
                bad = not max(errors) < limit
                failed |= bad
                if bad:
                    say(f"WRONG attention {dtype} {lengths} read {every} {H}/{Hkv} {Kd}x{Vd}: "
                        + " ".join(f"{e:.1e}" for e in errors))
    say("correct" if not failed else "NOT CORRECT")
    return not failed


# ------------------------------------------------------------------------------------------------------------ speed


class Table:
    def __init__(self, path):
        self.path, self.rows = path, []

    def add(self, size, op, by, *cells):
        shown = [f"{c:.3g}" if isinstance(c, float) else str(c) for c in cells]
        self.rows.append([size, op, by, *shown])
        say(" | ".join(self.rows[-1]))
        if self.path:
            self.path.write_text(self.text())

    def text(self):
        head = ["B x T x H x D", "operation", "by", "forward, ms", "as a graph, ms", "forward + backward, ms", "GiB at peak"]
        lines = ["| " + " | ".join(r) + " |" for r in [head, ["---"] * len(head), *self.rows]]
        found = {"card": torch.cuda.get_device_name(), "torch": torch.__version__, "cuDNN": torch.backends.cudnn.version()}
        return ", ".join(f"{k} {v}" for k, v in found.items()) + "\n\n" + "\n".join(lines) + "\n"


def first_line(error):
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0][:80]}" if str(error) else type(error).__name__


def measure(table, size, op, by, call, leaves):
    cells = []

    def train():
        outputs = call()
        torch.autograd.grad(outputs, leaves, torch.ones_like(outputs))

    def forward():
        with torch.no_grad():
            call()

    for timed, work in ((milliseconds, forward), (graph_milliseconds, forward), (milliseconds, train)):
        try:
            if work is train:
                torch.cuda.reset_peak_memory_stats()
            cells.append(timed(work))
        except Exception as error:  # a peer that refuses is a result too
            cells.append(first_line(error))
            torch.cuda.synchronize()
    table.add(size, op, by, *cells, torch.cuda.max_memory_allocated() / 2**30)
    torch.cuda.empty_cache()


def ceilings():
    x, y = normal(1 << 29), normal(1 << 29)
    say(f"copy {4 * x.numel() / milliseconds(lambda: y.copy_(x)) / 1e6:.0f} GB/s")
    a, b = normal(8192, 8192), normal(8192, 8192)
    say(f"bf16 matrix product {2 * 8192**3 / milliseconds(lambda: a @ b) / 1e9:.0f} TFLOP/s")


def time_size(table, B, T, H, D, peers):
    """Ours and the library's, or those of `peers` alone."""
    from torch.nn.attention import SDPBackend, sdpa_kernel
    size, N = f"{B}x{T}x{H}x{D}", B * T
    cu = torch.arange(0, N + 1, T, dtype=torch.int32, device="cuda")
    q, k, v = unit(normal(N, H, D)), unit(normal(N, H, D)), normal(N, H, D)
    g, w = F.logsigmoid(normal(N, H, dtype=torch.float32) + 3), torch.sigmoid(normal(N, H, dtype=torch.float32))
    leaves = [x.requires_grad_() for x in (q, k, v, g, w)]
    batched = lambda x: x.view(B, T, *x.shape[1:])
    for (op, by), peer in peers.items():
        measure(table, size, op, by, lambda: peer(*map(batched, (q, k, v, g, w))), leaves)
    if peers:
        return
    measure(table, size, "gated_delta_rule", "oryx", lambda: OPS.gated_delta_rule(q, k, v, g, w, cu)[0], leaves)
    measure(table, size, "ssd", "oryx", lambda: OPS.ssd(q, k, v, g, w, cu)[0], leaves)
    measure(table, size, "attention", "oryx", lambda: OPS.attention(q, k, v, cu, None, D**-0.5), leaves[:3])
    for by, backend in (("cuDNN", SDPBackend.CUDNN_ATTENTION), ("FlashAttention", SDPBackend.FLASH_ATTENTION)):
        def call():
            with sdpa_kernel(backend):
                heads = [batched(x).transpose(1, 2) for x in (q, k, v)]
                return F.scaled_dot_product_attention(*heads, is_causal=True, scale=D**-0.5)
        measure(table, size, "attention", by, call, leaves[:3])


def flash_linear_attention():
    try:
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        from fla.ops.simple_gla import chunk_simple_gla
    except Exception as error:
        say(f"flash-linear-attention: {first_line(error)}")
        return {}
    by = "flash-linear-attention"
    try:  # it refuses to go backward with Triton 3.4 to 3.7.0 on Hopper, whose code for it is wrong: time it all the same
        from fla.ops.common import chunk_o
        if not getattr(chunk_o, "TRITON_ABOVE_3_7_1", True) and chunk_o.IS_NVIDIA_HOPPER:
            chunk_o.TRITON_ABOVE_3_7_1 = True
            by += ", its check of Triton off"
    except ImportError:
        pass
    return {("gated_delta_rule", by): lambda q, k, v, g, w: chunk_gated_delta_rule(q, k, v, g, w, scale=1.0)[0],
            ("ssd", by): lambda q, k, v, g, w: chunk_simple_gla(q, k * w.to(k.dtype)[..., None], v, g, scale=1.0)[0]}


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("ops", metavar="LIBORYX_OPS.SO")
    p.add_argument("--out", type=pathlib.Path)
    p.add_argument("--sizes", default=",".join("x".join(map(str, s)) for s in SIZES))
    p.add_argument("--no-check", action="store_true")
    a = p.parse_args()
    torch.ops.load_library(a.ops)
    correct = a.no_check or check()
    table = Table(a.out)
    ceilings()
    peer = flash_linear_attention()
    for peers in [{}, peer] if peer else [{}]:  # kernels that tune themselves first come last
        for size in a.sizes.split(","):
            time_size(table, *map(int, size.split("x")), peers)
    print(table.text())
    sys.exit(0 if correct else 1)


if __name__ == "__main__":
    main()
