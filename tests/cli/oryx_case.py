"""Runs the oryx binary named by the first argument; a temporary folder, a small model, and checks for each test."""
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

ORYX = os.path.abspath(sys.argv.pop(1)) if len(sys.argv) > 1 else "oryx"

TINY = ["--vocab", "64", "--set", "hidden_size=32", "--set", "num_hidden_layers=2", "--set", "num_attention_heads=2",
        "--set", "num_key_value_heads=2", "--set", "head_dim=8", "--set", "value_head_dim=8", "--set", "intermediate_size=64"]

RECALL = """
[model]
preset = "oryx-gdn-tiny"
hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 8
value_head_dim = 8
intermediate_size = 64
[data]
task = "recall"
pairs = 4
length = 32
vocab = 32
[train]
tokens = 2048
batch_tokens = 256
log_every = 2
"""

TEXT = """
[model]
preset = "oryx-gdn-tiny"
num_hidden_layers = 1
[data]
text = ["text.txt"]
valid = ["text.txt"]
vocab = 512
context = 32
[train]
tokens = 2048
batch_tokens = 256
eval_tokens = 256
"""

WORDS = "the old house stood by the river and the wind went over it all night; nobody came, nobody asked why"


def book(lines=400):
    """Invented words with enough variety for a small vocabulary; two documents."""
    parts = "ka lo mi ren tus ven dor bel sha qui ing est pra gon ulf".split()
    words = WORDS.split() + [a + b + c for a in parts for b in parts for c in parts[:3]]
    rows = [" ".join(words[(i * 31 + j * 17 + i * j) % len(words)] for j in range(12)) for i in range(lines)]
    half = lines // 2
    return "\n".join(rows[:half]) + "\n<|endoftext|>\n" + "\n".join(rows[half:]) + "\n"


class OryxCase(unittest.TestCase):
    def setUp(self):
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="oryx_cli_"))
        self.addCleanup(shutil.rmtree, self.dir, ignore_errors=True)

    def run_oryx(self, *args, stdin="", **kwargs):
        return subprocess.run([ORYX, *map(str, args)], input=stdin, capture_output=True, text=True, cwd=self.dir,
                              timeout=240, **kwargs)

    def ok(self, *args, stdin=""):
        result = self.run_oryx(*args, stdin=stdin)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result.stdout

    def ok_json(self, *args):
        return json.loads(self.ok(*args, "--json"))

    def bad(self, words, *args, stdin="", **kwargs):
        """Exit 2, one line on standard error that holds `words` (a string or several), no traceback, no crash."""
        result = self.run_oryx(*args, stdin=stdin, **kwargs)
        self.assertEqual(result.returncode, 2, f"{args}: exit {result.returncode}: {result.stderr}")
        lines = [line for line in result.stderr.splitlines() if line.startswith("oryx: ")]
        self.assertEqual(len(lines), 1, result.stderr)
        for word in [words] if isinstance(words, str) else words:
            self.assertIn(word, lines[0])
        return result

    def model(self, name="model", kind="oryx-gdn-tiny", *more):
        self.ok("init", kind, self.dir / name, *TINY, *more)
        return self.dir / name

    def write(self, name, text):
        path = self.dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path
