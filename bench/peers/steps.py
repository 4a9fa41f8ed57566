"""One token at a time: the recurrences from a state, attention over cached keys, as transformers' models decode.

Each call finds another state or cache, `rotation_bytes` of them in all, so that it comes from memory and not from a cache.
"""
import itertools

import torch
import torch.nn.functional as F

from mixers import inputs


def _states(row, device, rotation_bytes):
    shape = (row["batch"], row["heads"], row["dim"], row["dim"])
    count = max(1, min(4096, -(-rotation_bytes // (4 * torch.Size(shape).numel()))))
    return [torch.randn(shape, device=device) for _ in range(count)]


def _tokens(row, device):
    """The inputs of one token a sequence: [batch, 1, heads, ...]."""
    x = inputs({**row, "T": row["batch"]}, device)
    return {name: t.transpose(0, 1).contiguous() for name, t in x.items()}


def gated_delta_rule_step(row, device, rotation_bytes):
    x, states, turn = _tokens(row, device), _states(row, device, rotation_bytes), itertools.count()
    if device == "cuda":
        from fla.ops.gated_delta_rule import fused_recurrent_gated_delta_rule as op
        name, options = "flash-linear-attention, fused", {"scale": 1.0}
    else:
        from transformers.models.qwen3_next.modeling_qwen3_next import torch_recurrent_gated_delta_rule as op
        name, options = "transformers Qwen3-Next, torch", {}

    @torch.no_grad()
    def step():
        i = next(turn) % len(states)
        states[i] = op(x["q"], x["k"], x["v"], g=x["g"], beta=x["beta"], initial_state=states[i],
                       output_final_state=True, **options)[1]
    yield name, step


def ssd_step(row, device, rotation_bytes):
    x, states, turn = _tokens(row, device), _states(row, device, rotation_bytes), itertools.count()
    if device == "cuda":
        from fla.ops.simple_gla import fused_recurrent_simple_gla

        @torch.no_grad()
        def fused():
            i = next(turn) % len(states)
            v = x["v"] * x["dt"].unsqueeze(-1).to(x["v"].dtype)
            states[i] = fused_recurrent_simple_gla(x["q"], x["k"], v, x["g"], scale=1.0, initial_state=states[i],
                                                   output_final_state=True)[1]
        yield "flash-linear-attention, fused", fused
        return
    from transformers.models.mamba2.modeling_mamba2 import mamba2_selective_state_update
    heads, dim = row["heads"], row["dim"]
    decay = -torch.linspace(1, 4, heads)[:, None, None].expand(-1, dim, dim)
    dt = x["dt"][:, 0, :, None].expand(-1, -1, dim)

    @torch.no_grad()
    def step():  # writes the state in place
        mamba2_selective_state_update(states[next(turn) % len(states)], x["v"][:, 0], dt, decay, x["k"][:, 0], x["q"][:, 0])
    yield "transformers Mamba-2, torch", step


def attention_step(row, device, rotation_bytes):
    """As a Llama decodes: keys were rotated when they were cached; here only the reading is done."""
    dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
    shape = (2, 1, row["heads"], row["T"], row["dim"])
    count = max(1, -(-rotation_bytes // (torch.Size(shape).numel() * dtype.itemsize)))
    caches = [torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(count)]
    q, turn = torch.randn(1, row["heads"], 1, row["dim"], device=device).to(dtype), itertools.count()

    @torch.no_grad()
    def step():
        k, v = caches[next(turn) % len(caches)]
        F.scaled_dot_product_attention(q, k, v, scale=1.0)
    yield "torch SDPA, keys rotated before", step
