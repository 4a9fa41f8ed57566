"""lm-evaluation-harness over the adapter beside `oryx eval`, example by example: the same choices, the same
log-likelihoods. The harness's own task files are used, with our data in place of its downloads.

    agreement.py build/release/oryx                                    a small model, the samples in tasks/data
    agreement.py build/release/oryx --model DIR --data DIR --limit 200 --schedules attention recurrent
"""
import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import optional

optional.require("lm_eval", "datasets")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "python"))

from lm_eval import simple_evaluate  # noqa: E402
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
