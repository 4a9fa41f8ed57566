"""Attention and the recurrences over whole sequences, as users have them today.

On the CPU: torch's scaled_dot_product_attention, and the pure-torch chunked paths of transformers' Qwen3-Next (Gated
DeltaNet, chunk 64) and Mamba-2 (chunk 256, its default). On a GPU: scaled_dot_product_attention by each backend, and
flash-linear-attention. Layouts are those that each peer wants; queries and keys arrive normalised, as ours do.
"""
import contextlib

import torch
import torch.nn.functional as F


def inputs(row, device):
    """q, k, v [1, T, heads, dim] in the row's dtype; g, beta, dt [1, T, heads] in float32."""
    T, heads, dim = row["T"], row["heads"], row["dim"]
    dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
    q, k, v = (torch.randn(1, T, heads, dim, device=device) for _ in range(3))
    q, k = F.normalize(q, dim=-1) * dim**-0.5, F.normalize(k, dim=-1)
    g = F.softplus(torch.randn(1, T, heads, device=device)).mul(-0.1).clamp(min=-0.1)
    beta = torch.rand(1, T, heads, device=device)
    dt = F.softplus(torch.randn(1, T, heads, device=device) - 4)
    return {"q": q.to(dtype), "k": k.to(dtype), "v": v.to(dtype), "g": g, "beta": beta, "dt": dt}


def _call(row, leaves, output, context=contextlib.nullcontext):
    """One call of output(): without a graph, or with the gradients of all leaves, which are dropped again."""
    if row["pass"] == "forward":
        def forward():
            with torch.no_grad(), context():
                output()
        return forward
    for leaf in leaves:
        leaf.requires_grad_()
    with torch.no_grad(), context():
        gradient = torch.randn_like(output())

    def both():
        with context():
            output().backward(gradient)
        for leaf in leaves:
            leaf.grad = None
    return both


def attention(row, device):
    x = inputs(row, device)
    q, k, v = (x[name].transpose(1, 2) for name in "qkv")
    if device == "cpu":
        q, k, v = (t.contiguous() for t in (q, k, v))
    leaves = [t.detach() for t in (q, k, v)]
    output = lambda: F.scaled_dot_product_attention(*leaves, is_causal=True, scale=1.0)
    if device == "cpu":
        yield "torch SDPA", _call(row, leaves, output)
        return
    from torch.nn.attention import SDPBackend, sdpa_kernel
    backends = {"flash": SDPBackend.FLASH_ATTENTION, "cuDNN": SDPBackend.CUDNN_ATTENTION}
    for name, backend in backends.items() if row["dtype"] == "bf16" else [("efficient", SDPBackend.EFFICIENT_ATTENTION)]:
        yield f"torch SDPA, {name}", _call(row, leaves, output, lambda backend=backend: sdpa_kernel(backend))


def gated_delta_rule(row, device):
    x = inputs(row, device)
    leaves = [x[name] for name in ("q", "k", "v", "g", "beta")]
    if device == "cuda":
        from fla.ops.gated_delta_rule import chunk_gated_delta_rule
        yield "flash-linear-attention", _call(row, leaves, lambda: chunk_gated_delta_rule(*leaves, scale=1.0)[0])
        return
    from transformers.models.qwen3_next.modeling_qwen3_next import torch_chunk_gated_delta_rule
    yield "transformers Qwen3-Next, torch", _call(row, leaves, lambda: torch_chunk_gated_delta_rule(*leaves)[0])


def ssd(row, device):
    x = inputs(row, device)
    if device == "cuda":
        from fla.ops.simple_gla import chunk_simple_gla
        # It has no step size: dt on the values comes before, as the layers that use it do.
        leaves = [x[name] for name in ("q", "k", "v", "g", "dt")]

        def scan():
            q, k, v, g, dt = leaves
            return chunk_simple_gla(q, k, v * dt.unsqueeze(-1).to(v.dtype), g, scale=1.0)[0]
        yield "flash-linear-attention", _call(row, leaves, scan)
        return
    from transformers.models.mamba2.modeling_mamba2 import mamba2_chunk_scan
    leaves = [x[name] for name in ("q", "k", "v", "dt")]
    decay = -torch.linspace(1, 4, row["heads"])
    yield "transformers Mamba-2, torch", _call(
        row, leaves, lambda: mamba2_chunk_scan(leaves[2], leaves[3], decay, leaves[1], leaves[0], chunk_size=256))
