#!/usr/bin/env python3
"""Training steps of one model as PyTorch users have them today, in this process: a row of JSON.

    python train.py --kind transformer|gdn|mamba2 --width 640 --layers 9 --parameters 49600000 [--mode eager|compile]

transformers' LlamaForCausalLM (SDPA), Qwen3NextForCausalLM with Gated DeltaNet in every layer and a dense MLP, and
Mamba2ForCausalLM (state 128), with random weights, tied embeddings and heads of 64. `--parameters` counts without
embeddings: the width of the MLP, or the number of Mamba-2 layers, is what comes nearest to it. A step is forward, backward,
clipping and fused AdamW on new random tokens; bf16 is autocast over float32 weights.
"""
import argparse
import json
import logging
import statistics
import time

import torch
import transformers

from measure import peak_bytes

WARM_UP, MIN_SAMPLES, MAX_SAMPLES = 2, 3, 15  # as in src/bench/train_bench.cpp


def make(args, size):
    """The model; `size` is the MLP's width, or Mamba-2's number of layers."""
    common = {"vocab_size": args.vocab, "hidden_size": args.width, "num_hidden_layers": args.layers, "tie_word_embeddings": True,
              "use_cache": False, "pad_token_id": None, "bos_token_id": None, "eos_token_id": None}
    heads = args.width // 64
    if args.kind == "mamba2":
        config = transformers.Mamba2Config(**{**common, "num_hidden_layers": size}, num_heads=2 * heads, head_dim=64,
                                           state_size=128, n_groups=1)
        return transformers.Mamba2ForCausalLM(config)
    common |= {"intermediate_size": size, "num_attention_heads": heads, "num_key_value_heads": heads, "head_dim": 64}
    if args.kind == "transformer":
        return transformers.LlamaForCausalLM(transformers.LlamaConfig(**common, attn_implementation="sdpa"))
    config = transformers.Qwen3NextConfig(**common, num_experts=0, layer_types=["linear_attention"] * args.layers,
                                          linear_num_key_heads=heads, linear_num_value_heads=heads, linear_key_head_dim=64,
                                          linear_value_head_dim=64)
    return transformers.Qwen3NextForCausalLM(config)


def parameters(model, args):
    return sum(p.numel() for p in model.parameters()) - args.vocab * args.width


def fitting_size(args):
    """The size that gives the wanted number of parameters, on the line through two others."""
    step, unit = (32, 32) if args.kind != "mamba2" else (1, 1)
    with torch.device("meta"):
        one, two = (parameters(make(args, n * step), args) for n in (1, 2))
    return max(unit, round((args.parameters - one) / (two - one) + 1) * step)


def run(args, row):
    """Trains until there are enough samples; the caller watches the memory meanwhile."""
    with torch.device(args.device):
        model = make(args, fitting_size(args)).train()
    row["parameters"] = parameters(model, args)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    forward = torch.compile(model) if args.mode == "compile" else model

    def step():
        ids = torch.randint(args.vocab, (args.batch // args.length, args.length), device=args.device)
        with torch.autocast(args.device, torch.bfloat16, enabled=args.dtype == "bf16"):
            loss = forward(input_ids=ids, labels=ids).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss.item()

    samples = []
    for i in range(WARM_UP + MAX_SAMPLES):
        begin = time.perf_counter()
        step()
        if args.device == "cuda":
            torch.cuda.synchronize()
        took = time.perf_counter() - begin
        if i == 0:
            row["first_s"] = took
        if i >= WARM_UP:
            samples.append(took)
        if len(samples) >= MIN_SAMPLES and sum(samples) >= args.budget:
            break
    middle = statistics.median(samples)
    row.update(ms=middle * 1e3, spread=(max(samples) - min(samples)) / middle, samples=len(samples),
               tokens_per_s=args.batch / middle)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", required=True, choices=["transformer", "gdn", "mamba2"])
    for name in ("width", "layers", "parameters"):
        parser.add_argument("--" + name, type=int, required=True)
    parser.add_argument("--mode", default="eager", choices=["eager", "compile"])
    parser.add_argument("--vocab", type=int, default=32000)
    parser.add_argument("--length", type=int, default=1024, help="tokens of a sequence")
    parser.add_argument("--batch", type=int, default=4096, help="tokens of a step")
    parser.add_argument("--dtype", default="bf16", choices=["fp32", "bf16"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--budget", type=float, default=20, help="seconds of samples")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    logging.disable(logging.WARNING)  # transformers says that it takes its torch path
    row = {"kind": args.kind, "mode": args.mode, "torch": torch.__version__, "transformers": transformers.__version__}
    row["peak_bytes"] = peak_bytes(lambda: run(args, row), args.device)
    print(json.dumps(row))


if __name__ == "__main__":
    main()
