"""Bad input gets one line that says what is wrong, exit 2, and leaves nothing half-written."""
import json
import os
import resource
import signal
import struct
import subprocess
import time
import unittest

from oryx_case import ORYX, RECALL, TEXT, OryxCase, book


class BadInput(OryxCase):
    def test_usage(self):
        self.bad("")
        self.bad("", "frobnicate")
        self.bad("--frob", "info", "oryx-gdn-10m", "--frob")
        self.bad("--threads", "info", "oryx-gdn-10m", "--threads", "0")
        self.bad("fp64", "info", "oryx-gdn-10m", "--dtype", "fp64")

    def test_presets_and_missing_files(self):
        self.bad(["oryx-gdn-10mm", "oryx-gdn-10m'"], "info", "oryx-gdn-10mm")
        self.bad("no/such", "info", "no/such")
        self.bad("nothing", "score", "nothing", "--schedule", "attention")
        self.bad("none.jsonl", "score", self.model(), "none.jsonl")
        self.bad("none.toml", "train", "none.toml")
        self.bad("none.txt", "eval", "perplexity", self.dir / "model", "none.txt")

    def test_init(self):
        self.bad(["hiden_size", "hidden_size"], "init", "oryx-gdn-tiny", "m", "--set", "hiden_size=3")
        self.bad("num_key_value_heads", "init", "oryx-gdn-tiny", "m", "--set", "num_attention_heads=3", "--set",
                 "num_key_value_heads=2")
        self.bad("head_dim", "init", "oryx-gdn-tiny", "m", "--set", "head_dim=7")
        self.bad("", "init", "oryx-gdn-tiny", "m", "--vocab", "-3")
        self.model()
        self.bad("exists", "init", "oryx-gdn-tiny", self.dir / "model")
        self.bad("", "init", "oryx-gdn-tiny", "/dev/null/model")
        self.assertEqual(sorted(os.listdir(self.dir)), ["model"])

    def test_config(self):
        model = self.model()
        good = json.loads((model / "config.json").read_text())

        def with_(**changes):
            (model / "config.json").write_text(json.dumps({**good, **changes}))

        for changes, words in (({"num_layers": 2}, ["num_layers"]), ({"hidden_size": "64"}, ["hidden_size"]),
                               ({"hidden_size": -1}, ["hidden_size"]), ({"mixers": ["mamba3"]}, ["mamba3", "mamba2"]),
                               ({"mixers": ["mamba2", "gated_deltanet"]}, ["mixers"]), ({"vocab_size": 2**62}, ["vocab_size"]),
                               ({"eos_token_id": 64}, ["eos_token_id"]), ({"rope_theta": -1}, ["rope_theta"])):
            with_(**changes)
            self.bad(words, "info", model)
        for text in ("", "{", "[1]", '{"a": NaN}', "{" * 5000, '{"vocab_size": 1, "vocab_size": 2}'):
            (model / "config.json").write_text(text)
            self.bad("config.json", "info", model)

    def test_weights(self):
        model = self.model()
        path = model / "model.safetensors"
        good = path.read_bytes()
        size = struct.unpack("<Q", good[:8])[0]
        header = json.loads(good[8:8 + size])
        body = good[8 + size:]
        name = "model.layers.0.mixer.k_proj.weight"

        def pack(head):
            text = json.dumps(head).encode()
            return struct.pack("<Q", len(text)) + text + body

        def change(**entry):
            return pack({**header, name: {**header[name], **entry}})

        first = next(k for k in header if k not in (name, "__metadata__"))
        cases = [good[:-1], good[:20], b"", good[:5], struct.pack("<Q", 2**60) + good[8:], good + b"x",
                 change(dtype="I64"), change(dtype="F33"), change(shape=[1, 2]), change(shape=[2**40, 2**40]), change(shape=[-1]),
                 change(data_offsets=header[first]["data_offsets"]), change(data_offsets=[0, 2**62]),
                 change(data_offsets=[8, 4]), pack({k: v for k, v in header.items() if k != name}),
                 pack({("model.layers.0.mixer.k_prj.weight" if k == name else k): v for k, v in header.items()})]
        offset = 8 + size + header[name]["data_offsets"][0]
        cases.append(good[:offset] + struct.pack("<f", float("nan")) + good[offset + 4:])
        for i, content in enumerate(cases):
            path.write_bytes(content)
            with self.subTest(case=i):
                self.bad("model.safetensors", "score", model, stdin='{"tokens": [1, 2]}\n')
        path.unlink()
        self.bad("model.safetensors", "score", model, stdin='{"tokens": [1, 2]}\n')
        (model / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../x.safetensors"}}')
        self.bad("index", "score", model, stdin='{"tokens": [1, 2]}\n')

    def test_schedules(self):
        model = self.model()
        line = '{"tokens": [1, 2, 3, 4, 5, 6, 7, 8]}\n'
        for schedule in ("", "atention", "attention:..4", "attention:..5,recurrent:4..", "attention:..99,recurrent:99..",
                         "tail:1.5", "tail:x", "alternate:0", "alternate:-2", "random:4:0.5", "random:4:2:1", "mamba2",
                         "*=recurrent;9=attention", "attention:5..3", "*=", "3=attention", "recurrent:..2,attention:2..,",
                         "alternate:99999999999999999999"):
            with self.subTest(schedule=schedule):
                if schedule:
                    self.bad("", "score", model, "--schedule", schedule, stdin=line)
        self.bad("", "score", self.model("t", "transformer-tiny"), "--schedule", "recurrent", stdin=line)
        for schedule in ("tail:0.1", "recurrent:..-4,attention:-4.."):
            self.bad("", "generate", model, "--prompt", "x", "--schedule", schedule)

    def test_policies(self):
        model = self.model()
        recall = ("eval", "recall", model, "--vocab", 32, "--pairs", 2, "--length", 16)
        for policy, words in (("entropi:0.1", "did you mean 'entropy'"), ("entropy", "entropy:FRACTION[:CHUNK]"),
                              ("entropy:2", "from 0 to 1"), ("entropy:0.1:0", "number of tokens"),
                              ("gate:0.1", "oryx gate train")):
            self.bad(words, *recall, "--policy", policy)
        self.bad("excludes", *recall, "--policy", "entropy:0.1", "--schedule", "attention")
        self.bad("only attention", "eval", "recall", self.model("t", "transformer-tiny"), "--vocab", 32, "--pairs", 2,
                 "--length", 16, "--policy", "entropy:0.1")
        recipe = self.write("recall.toml", RECALL)
        self.bad("only gated_deltanet", "gate", "train", self.model("g", "gdn-tiny"), recipe)
        self.bad("vocabulary of 128", "gate", "train", model, recipe, "--set", "data.vocab=128")
        (model / "gate.safetensors").write_bytes(b"x" * 20)
        self.bad("gate.safetensors", *recall, "--policy", "gate:0.1")

    def test_scored_lines(self):
        model = self.model()
        for line, words in (("{", ":1"), ('{"tokens": [1, 99]}', "99"), ('{"tokens": [-1]}', "-1"), ('{"tokens": "x"}', "tokens"),
                            ('{"tokens": []}', ""), ('{"token": [1]}', ""), ('{"tokens": [1.5]}', ""), ('{"text": "x"}', "tokenizer"),
                            ('{"tokens": [1], "idd": 3}', "idd"), ("[]", "")):
            with self.subTest(line=line):
                self.bad(words, "score", model, stdin=line + "\n")
        self.bad(":2", "score", model, stdin='{"tokens": [1, 2]}\nnonsense\n')

    def test_recipes(self):
        for old, new, words in (("[train]", "[train", "recall.toml"), ("tokens = 2048", "tokns = 2048", ["tokns"]),
                                ("batch_tokens = 256", "batch_tokens = 250", ["multiple", "250"]),
                                ("pairs = 4", "pairs = 400", ["pairs"]), ("vocab = 32", "vocab = 2", ["vocab"]),
                                ("hidden_size = 32", "hidden_size = 0", ["hidden_size"]),
                                ("oryx-gdn-tiny", "oryx-gdn", ["oryx-gdn"])):
            with self.subTest(new=new):
                self.bad(words, "train", self.write("recall.toml", RECALL.replace(old, new)), "--out", "run")
        recipe = self.write("recall.toml", RECALL)
        self.bad("lrr", "train", recipe, "--out", "run", "--set", "train.lrr=1")
        self.bad("", "train", recipe, "--out", "run", "--set", "train.lr")
        self.assertFalse((self.dir / "run/model").exists())
        self.bad("", "train", recipe, "--out", "/dev/null/run")

    def test_text(self):
        recipe = self.write("text.toml", TEXT)
        self.bad("text.txt", "train", recipe, "--out", "run")
        for content in (b"", b"\n<|endoftext|>\n", b"\xff\xfe broken", b"\x28\xb5\x2f\xfd truncated"):
            self.write("text.txt", content)
            with self.subTest(content=content):
                self.bad("text.txt", "train", recipe, "--out", "run")
        self.write("text.txt", book())
        self.bad("vocab", "train", recipe, "--out", "run", "--set", "data.vocab=500000")
        self.ok("train", recipe, "--out", "run")
        model = self.dir / "run/model"
        self.write("empty.txt", "")
        self.bad("", "eval", "perplexity", model, "empty.txt")
        self.bad("prompt", "generate", model, "--prompt", "")
        self.bad("", "generate", model, "--prompt-file", "no.txt")
        self.bad("", "generate", model, "--prompt", "x", "--max-tokens", 0)
        self.bad("already holds a run", "train", recipe, "--out", "run")
        tokenizer = model / "tokenizer.model"
        good = tokenizer.read_bytes()
        for content in (b"", good[: len(good) // 2], b"\0" * 1000):
            tokenizer.write_bytes(content)
            self.bad("tokenizer.model", "eval", "perplexity", model, "text.txt")
        tokenizer.unlink()
        self.bad("tokenizer", "generate", model, "--prompt", "x")

    def test_full_disk(self):
        """A limit on file sizes stands for a full disk: the write fails in the middle of the file."""

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (20000, 20000))

        self.bad("", "init", "oryx-gdn-tiny", self.dir / "m", preexec_fn=limit)
        self.assertEqual(os.listdir(self.dir), [])
        recipe = self.write("recall.toml", RECALL)
        self.bad("", "train", recipe, "--out", "run", preexec_fn=limit)
        self.assertFalse((self.dir / "run/model").exists())
        self.assertEqual([p for p in (self.dir / "run").rglob("*.safetensors")], [])

    def test_output_that_cannot_be_written(self):
        for args in (["--version"], ["info", "oryx-gdn-tiny"], ["info", "oryx-gdn-tiny", "--json"]):
            with open("/dev/full", "w") as full:
                result = subprocess.run([ORYX, *args], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
            self.assertEqual(result.returncode, 1, args)
            self.assertEqual(result.stderr, "oryx: cannot write to standard output: No space left on device\n")

    def test_interrupted_training_keeps_its_checkpoint(self):
        recipe = self.write("recall.toml", RECALL.replace("tokens = 2048", "tokens = 200_000_000"))
        run = subprocess.Popen([ORYX, "train", recipe, "--out", self.dir / "run"], stderr=subprocess.DEVNULL,
                               stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        metrics = self.dir / "run/metrics.jsonl"
        while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size > 200):
            time.sleep(0.1)
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(timeout=60), 130)
        self.assertEqual(len(list((self.dir / "run/checkpoints").iterdir())), 1)
        self.assertFalse((self.dir / "run/model").exists())


if __name__ == "__main__":
    unittest.main()
