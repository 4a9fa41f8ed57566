#!/usr/bin/env python3
"""Examples per second of `oryx eval` beside lm-evaluation-harness with a PyTorch model: the same examples, tokens, number of
parameters and cores.

    PEERS/bin/python bench/peers/compare_eval.py [--oryx build/release/oryx] [--data DIR] [--limit 200] [--dtypes fp32,bf16]

Both models are random. Oryx's (31M, a Gated DeltaNet with attention) is timed as a whole command, in attention and in recurrence; the
harness's (transformers' Llama of the same size, its `hf` model) once Python, model and examples are loaded, with the fastest of
the batch sizes. The second ratio leaves out what the same command takes for one example, as the harness's time does. On a machine that others use too, --threads 1 --cpu-time counts processor time.
"At most" is what a program would reach that did nothing but the products it must, each shared beginning once and logits where they are scored,
at the rate of a large matrix product measured beside it; "of that rate" is what the harness's own products reach, padding included.
DIR holds SET/FILE as `oryx eval fetch` writes them; without it the samples in tasks/data are used, too few to say much.
"""
import argparse
import json
import os
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/python"))

import agreement  # noqa: E402
import torch  # noqa: E402
from compare import TUNABLES  # noqa: E402
from lm_eval.models.huggingface import HFLM  # noqa: E402
from tokenizers import ByteLevelBPETokenizer  # noqa: E402
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # noqa: E402

VOCAB, WIDTH, LAYERS, HEADS, MLP, CONTEXT = 16384, 512, 6, 8, 1408, 1024
END = "<|endoftext|>"


def make_tokenizer(directory):
    """For both: byte-level BPE of the project's own text."""
    text = directory / "text.txt"
    with text.open("wb") as file:
        subprocess.run(["zstd", "-dcq", ROOT / "data/books/train.txt.zst"], check=True, stdout=file)
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train([str(text)], vocab_size=VOCAB, special_tokens=[END], show_progress=False)
    tokenizer.save(str(directory / "tokenizer.json"))
    return directory / "tokenizer.json"


def make_oryx(oryx, directory, tokenizer):
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "num_key_value_heads": HEADS,
             "head_dim": WIDTH // HEADS, "value_head_dim": WIDTH // HEADS, "intermediate_size": MLP,
             "max_position_embeddings": CONTEXT, "tie_word_embeddings": "true"}
    options = [x for key, value in sizes.items() for x in ("--set", f"{key}={value}")]
    model = directory / "model"
    subprocess.run([oryx, "init", "oryx-gdn-10m", model, "--vocab", str(VOCAB), *options], check=True)
    (model / "tokenizer.json").write_bytes(tokenizer.read_bytes())
    return model


def make_llama(tokenizer, dtype):
    # Two projections fewer in each layer's mixer: the MLP has their parameters.
    config = LlamaConfig(vocab_size=VOCAB, hidden_size=WIDTH, intermediate_size=MLP + 2 * WIDTH // 3, num_hidden_layers=LAYERS,
                         num_attention_heads=HEADS, max_position_embeddings=CONTEXT, tie_word_embeddings=True)
    model = LlamaForCausalLM(config).to(dtype).eval()
    return model, PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), eos_token=END, bos_token=END, pad_token=END)


def now(args):
    if not args.cpu_time:
        return time.perf_counter()
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def time_oryx(args, model, schedule, dtype, files, directory):
    """Seconds of a task's command, and of the same one for a single example: medians."""
    env = {**os.environ, "GLIBC_TUNABLES": TUNABLES}

    def once(task, data, *more):
        begin = now(args)
        subprocess.run([args.oryx, "eval", task, model, "--schedule", schedule, "--data", data, "--threads",
                        str(args.threads), "--dtype", dtype, "--shots", str(args.shots), "--json", *more], check=True,
                       capture_output=True, env=env)
        return now(args) - begin

    seconds = {}
    for task, examples in files.items():
        data = agreement.write_lines(directory / f"{task}.jsonl", examples)
        times = [(once(task, data), once(task, data, "--limit", "1")) for _ in range(args.repeat)]
        seconds[task] = tuple(statistics.median(x) for x in zip(*times))
    return seconds


class CountingLM(HFLM):
    """Counts the products that the harness makes, and those that scoring its requests needs."""

    made = needed = 0  # flops

    def _model_call(self, inputs, *rest, **named):
        self.made += 2 * inputs.numel() * sum(p.numel() for p in self.model.parameters())
        return super()._model_call(inputs, *rest, **named)

    def _loglikelihood_tokens(self, requests, *rest, **named):
        read, scored = set(), set()  # beginnings of sequences, each by its tokens
        for _, context, continuation in requests:
            tokens = tuple(context + continuation)
            read.update(tokens[:i] for i in range(1, len(tokens)))
            scored.update(tokens[:i] for i in range(len(context), len(tokens)))
        # Of the last layer only its keys and values are needed where nothing is scored: left out.
        layers = sum(p.numel() for p in self.model.parameters()) - VOCAB * WIDTH
        self.needed += 2 * (layers * ((LAYERS - 1) * len(read) + len(scored)) / LAYERS + VOCAB * WIDTH * len(scored))
        return super()._loglikelihood_tokens(requests, *rest, **named)


def time_harness(args, tokenizer, dtype, harness):
    """Of each task: seconds, and the flops that were made and needed in them."""
    model, wrapped = make_llama(tokenizer, torch.bfloat16 if dtype == "bf16" else torch.float32)
    best = {}
    for batch in args.batches:
        lm = CountingLM(pretrained=model, tokenizer=wrapped, batch_size=batch, max_length=CONTEXT, device="cpu")
        for task in harness.names:
            lm.made = lm.needed = 0
            begin = now(args)
            harness.run(lm, task, num_fewshot=args.shots, bootstrap_iters=0)
            taken = (now(args) - begin, lm.made, lm.needed)
            best[task] = min(taken, best.get(task, taken))
    return best


def product_rate(args, dtype):
    """Flops per second of a matrix product as large as suits the library."""
    a, b = (torch.randn(2048, 2048, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32) for _ in "ab")
    rates = []
    for _ in range(8):
        begin = now(args)
        a @ b.T
        rates.append(2 * 2048**3 / (now(args) - begin))
    return max(rates)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--oryx", default=str(ROOT / "build/release/oryx"))
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--shots", type=int, default=0, help="answered examples before each")
    parser.add_argument("--tasks", default=",".join(agreement.TASKS))
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--cpu-time", action="store_true")
    parser.add_argument("--repeat", type=int, default=3, help="runs of Oryx, whose median counts (3); the harness's best counts")
    parser.add_argument("--dtypes", default="fp32,bf16")
    parser.add_argument("--batches", type=lambda text: [int(x) for x in text.split(",")], default=[8, 32],
                        help="of the harness (8,32)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    files = {task: examples for task, examples in agreement.read_tasks(args.data, args.limit).items()
             if task in args.tasks.split(",")}
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        harness = agreement.Harness(files, directory)
        tokenizer = make_tokenizer(directory)
        model = make_oryx(args.oryx, directory, tokenizer)
        llama = sum(p.numel() for p in make_llama(tokenizer, torch.float32)[0].parameters())
        info = json.loads(subprocess.run([args.oryx, "info", model, "--json"], check=True, capture_output=True).stdout)
        print(f"{args.threads} threads; oryx {info['parameters']['total'] / 1e6:.1f}M parameters, Llama {llama / 1e6:.1f}M\n")
        print("| task | examples | dtype | harness, examples/s | of that rate | oryx attention | oryx recurrent | at most |\n"
              "|---|---|---|---|---|---|---|---|")
        for dtype in args.dtypes.split(","):
            ours = {schedule: time_oryx(args, model, schedule, dtype, files, directory)
                    for schedule in ("attention", "recurrent")}
            theirs, rate = time_harness(args, tokenizer, dtype, harness), product_rate(args, dtype)
            for task, examples in files.items():
                n, rates = len(examples), ""
                seconds, made, needed = theirs[task]
                for taken, start in (ours[schedule][task] for schedule in ours):
                    rates += (f" {n / taken:.1f} ({seconds / taken:.1f} times, {seconds / (taken - start):.1f} "
                              "once loaded) |")
                print(f"| {task} | {n} | {dtype} | {n / seconds:.1f} | {made / seconds / rate:.0%} |{rates} "
                      f"{seconds * rate / needed:.1f} times |", flush=True)


if __name__ == "__main__":
    main()
