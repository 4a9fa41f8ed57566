"""Convolution, RoPE, gated norm and cross entropy in plain torch, as transformers' models write them."""
import itertools

import torch
import torch.nn.functional as F

from mixers import _call


def _turns(row, device, rotation_bytes, operands):
    """A function that returns other data [operands, T, heads, dim] at each call."""
    dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
    shape = (operands, row["T"], row["heads"], row["dim"])
    count = max(1, -(-rotation_bytes // (torch.Size(shape).numel() * dtype.itemsize)))
    data = [torch.empty(shape, dtype=dtype, device=device).normal_() for _ in range(count)]
    turn = itertools.count()
    return lambda: data[next(turn) % count]


def short_conv(row, device, rotation_bytes):
    take, channels = _turns(row, device, rotation_bytes, 1), row["heads"] * row["dim"]
    weight = torch.randn_like(take()[0, :4].reshape(-1)[: channels * 4]).view(channels, 1, 4)

    @torch.no_grad()
    def conv():
        x = take().view(1, row["T"], channels).transpose(1, 2)
        F.silu(F.conv1d(x, weight, padding=3, groups=channels)[..., : row["T"]]).transpose(1, 2)
    yield "torch conv1d, SiLU", conv


def rope(row, device, rotation_bytes):
    take, dim = _turns(row, device, rotation_bytes, 1), row["dim"]
    angles = torch.outer(torch.arange(row["T"]).float(), 1e4 ** (-torch.arange(0, dim, 2).float() / dim))
    angles = torch.cat([angles, angles], -1)[:, None].to(device)
    cos, sin = (f().to(take().dtype) for f in (angles.cos, angles.sin))

    @torch.no_grad()
    def rotate():
        x = take()[0]
        low, high = x.chunk(2, -1)
        return x * cos + torch.cat([-high, low], -1) * sin
    yield "torch, angles precomputed", rotate


def gated_rms_norm(row, device, rotation_bytes):
    take = _turns(row, device, rotation_bytes, 2)
    weight = torch.ones(row["dim"], dtype=take().dtype, device=device)

    @torch.no_grad()
    def norm():
        x, gate = take()
        wide = x.float()
        wide = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + 1e-5)
        return (weight * wide.to(x.dtype) * F.silu(gate.float())).to(x.dtype)
    yield "torch, as Qwen3-Next", norm


def linear_cross_entropy(row, device, rotation_bytes):
    dtype = torch.bfloat16 if row["dtype"] == "bf16" else torch.float32
    leaves = [torch.randn(row["T"], row["dim"], device=device).to(dtype),
              (torch.randn(row["vocab"], row["dim"], device=device) * 0.02).to(dtype)]
    targets = torch.randint(row["vocab"], (row["T"],), device=device)
    yield "torch linear, cross_entropy", _call(
        row, leaves, lambda: F.cross_entropy(F.linear(*leaves).float(), targets, reduction="none"))
