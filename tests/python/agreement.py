"""lm-evaluation-harness over the adapter beside `oryx eval`, example by example: the same choices, the same
log-likelihoods. The harness's own task files are used, with our data in place of its downloads.

    agreement.py build/release/oryx                           a small model, the samples in tasks/data
    agreement.py build/release/oryx --model MODEL --data DIR --limit 200 --schedules attention recurrent alternate:64

DIR holds SET/FILE as `oryx eval fetch` writes them. The exit status is 1 when
anything differs.
"""
import argparse
import json
import math
import os
import pathlib
import subprocess
import sys
import tempfile

import optional

optional.require("lm_eval", "datasets", install="pip install ./python")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from lm_eval import simple_evaluate  # noqa: E402
from lm_eval.tasks import TaskManager  # noqa: E402
from oryx_lm_eval.model import OryxLM  # noqa: E402

TOLERANCE = 1e-3  # nats


def lambada(e):
    return {"text": e["context"] + " " + e["answers"][0]}


def hellaswag(e):
    label, _, context = e["context"].partition(": ")
    return {"activity_label": label, "ctx_a": context, "ctx_b": "", "endings": e["choices"], "label": str(e["answer"])}


def piqa(e):
    return {"goal": e["context"], "sol1": e["choices"][0], "sol2": e["choices"][1], "label": e["answer"]}


def arc(e):
    labels = [chr(ord("A") + i) for i in range(len(e["choices"]))]
    return {"question": e["context"], "choices": {"text": e["choices"], "label": labels},
            "answerKey": labels[e["answer"]]}


def winogrande(e):
    return {"sentence": f"{e['context']} _ {e['continuation']}", "option1": e["choices"][0], "option2": e["choices"][1],
            "answer": str(e["answer"] + 1)}


# Task: its name in the harness, the split that is evaluated, the fields that its file expects, where the data lies.
TASKS = {
    "lambada": ("lambada_openai", "test", lambada, "lambada/lambada_openai_test.jsonl"),
    "hellaswag": ("hellaswag", "validation", hellaswag, "hellaswag/hellaswag_val.jsonl.zst"),
    "piqa": ("piqa", "validation", piqa, "piqa/piqa_valid.jsonl"),
    "arc_easy": ("arc_easy", "test", arc, "arc_easy/arc_easy_test.jsonl"),
    "winogrande": ("winogrande", "validation", winogrande, "winogrande/winogrande_xl_dev.jsonl"),
}

METRICS = {"acc,none": "acc", "acc_norm,none": "acc_norm", "perplexity,none": "perplexity",
           "acc_stderr,none": "acc_stderr", "acc_norm_stderr,none": "acc_norm_stderr"}


def read_examples(path, limit):
    data = path.read_bytes()
    if path.suffix == ".zst":
        data = subprocess.run(["zstd", "-dcq", path], check=True, capture_output=True).stdout
    return [json.loads(line) for line in data.split(b"\n") if line.strip()][:limit]


def read_tasks(data, limit):
    """Task: the first examples of its file below `data`, or of the sample."""
    return {task: read_examples(data / path if data else ROOT / f"tasks/data/{task}.jsonl", limit)
            for task, (*_, path) in TASKS.items()}


def write_lines(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def train_small_model(oryx, directory):
    """A model and tokenizer of a minute's work: what is compared is how it is read, not what it knows."""
    (directory / "text.txt").write_text("\n".join(
        e["context"] for e in read_examples(ROOT / "tasks/data/squad.jsonl", None)))
    recipe = directory / "recipe.toml"
    recipe.write_text("""
[model]
preset = "oryx-gdn-tiny"
[data]
text = ["text.txt"]
vocab = 600
context = 64
[train]
tokens = 20480
batch_tokens = 512
lr = 3e-3
""")
    subprocess.run([oryx, "train", recipe, "--out", directory / "run"], check=True, capture_output=True, cwd=directory)
    return directory / "run/model"


class Harness:
    """The tasks of `files` with our examples."""

    def __init__(self, files, directory):
        self.manager, self.names, specs = TaskManager(), list(files), []
        for task, examples in files.items():
            name, split, convert, _ = TASKS[task]
            data = write_lines(directory / f"{task}.harness.jsonl", map(convert, examples))
            config = {"include": str(self.manager.task_index[name].yaml_path), "dataset_path": "json", "dataset_name": None,
                      "dataset_kwargs": {"data_files": {split: data}, "cache_dir": str(directory / "cache")},
                      "training_split": None, "validation_split": None, "test_split": None, f"{split}_split": split,
                      "fewshot_split": split}
            specs.append(directory / f"{task}.yaml")
            specs[-1].write_text(json.dumps(config))
        self.tasks = self.manager.load(list(map(str, specs)))["tasks"]

    def run(self, lm, task, **options):
        """Its samples, in order, and its results."""
        name = TASKS[task][0]
        out = simple_evaluate(model=lm, tasks=[self.tasks[name]], task_manager=self.manager, log_samples=True, **options)
        return sorted(out["samples"][name], key=lambda s: s["doc_id"]), out["results"][name]


def run_oryx(oryx, model, schedule, task, examples, directory):
    data = write_lines(directory / f"{task}.jsonl", examples)
    lines = directory / f"{task}.out.jsonl"
    result = subprocess.run([oryx, "eval", task, model, "--schedule", schedule, "--data", data, "--examples-out", lines,
                             "--json"], check=True, capture_output=True, text=True)
    return read_examples(lines, None), json.loads(result.stdout)[task]


def best(values):
    return max(range(len(values)), key=values.__getitem__)


def compare(ours, harness):
    """Differences, as text; and the largest one between log-likelihoods."""
    (lines, result), (samples, reference) = ours, harness
    wrong, largest = [], 0.0
    if len(lines) != len(samples):
        return [f"{len(lines)} examples, the harness has {len(samples)}"], math.inf
    for line, sample in zip(lines, samples):
        responses = [r[0] for r in sample["resps"]]
        theirs = [logprob for logprob, _ in responses]
        gap = max(abs(a - b) for a, b in zip(line["logprobs"], theirs, strict=True))
        largest = max(largest, gap)
        if gap > TOLERANCE:
            wrong.append(f"{line['id']}: {line['logprobs']}, the harness has {theirs}")
        if "choices" in line and line["prediction"] != best(theirs):
            wrong.append(f"{line['id']}: chooses {line['prediction']}, the harness {best(theirs)}")
        if "greedy" in line and line["greedy"] != responses[0][1]:
            wrong.append(f"{line['id']}: greedy {line['greedy']}, the harness {responses[0][1]}")
    for theirs, mine in METRICS.items():
        if theirs in reference and not math.isclose(result[mine], reference[theirs], rel_tol=1e-3, abs_tol=1e-9):
            wrong.append(f"{mine} {result[mine]}, the harness {reference[theirs]}")
    return wrong, largest


def main():
    parser = argparse.ArgumentParser(description="lm-evaluation-harness beside oryx eval")
    parser.add_argument("oryx")
    parser.add_argument("--model")
    parser.add_argument("--data", type=pathlib.Path)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--schedules", nargs="+", default=["recurrent", "alternate:16"])
    args = parser.parse_args()
    args.oryx = os.path.abspath(args.oryx)
    failed = False
    with tempfile.TemporaryDirectory() as name:
        directory = pathlib.Path(name)
        model = args.model or train_small_model(args.oryx, directory)
        files = read_tasks(args.data, args.limit)
        harness = Harness(files, directory)
        for schedule in args.schedules:
            lm = OryxLM(model, args.oryx, schedule=schedule)
            for task in TASKS:
                ours = run_oryx(args.oryx, model, schedule, task, files[task], directory)
                theirs = harness.run(lm, task)
                wrong, largest = compare(ours, theirs)
                failed |= bool(wrong)
                shown = "  ".join(f"{mine} {ours[1][mine]:.4f}" for key, mine in METRICS.items() if key in theirs[1])
                print(f"{schedule:<14} {task:<12} {len(files[task])} examples, log-likelihoods within {largest:.1e}, "
                      f"{len(wrong)} differences; {shown}", flush=True)
                for line in wrong[:5]:
                    print(f"    {line}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
