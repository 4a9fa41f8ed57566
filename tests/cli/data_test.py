"""`oryx data prepare`: its output, its messages, and what a killed run leaves."""
import gzip
import hashlib
import json
import signal
import subprocess
import time
import unittest

from oryx_case import ORYX, TEXT, OryxCase, book


MIXTURE = """
[[data.sources]]
shards = ["shards"]
weight = 3
[[data.sources]]
text = ["text.txt"]
[[data.sources]]
task = "recall"
pairs = 4
length = 16
vocab = 32
[[data.sources]]
task = "copy"
length = 8
[[data.sources]]
task = "phone_book"
queries = 1
[[data.sources]]
task = "needle"
queries = 1
needles = 1
weight = 0.5
"""


class Data(OryxCase):
    def setUp(self):
        super().setUp()
        self.write("text.txt", book())
        self.ok("train", self.write("r.toml", TEXT), "--out", "run")

    def prepare(self, *args):
        return ["data", "prepare", *args, "--tokenizer", "run/model"]

    def test_prepare_and_train(self):
        self.write("in/a.jsonl.gz", gzip.compress(b"\n".join(json.dumps({"text": line}).encode() for line in book().splitlines())))
        self.write("in/b.txt", book())
        made = self.ok_json(*self.prepare("in", "--out", "shards", "--threads", 2))
        self.assertEqual(made["documents"], 401 + 2)
        self.assertEqual(made["corrupt"], 0)
        self.assertTrue(made["finished"])
        manifest = json.loads((self.dir / "shards/manifest.json").read_text())
        self.assertEqual(manifest["tokens"], made["tokens"])
        for shard in manifest["shards"]:
            data = (self.dir / "shards" / shard["file"]).read_bytes()
            self.assertEqual(hashlib.sha256(data).hexdigest(), shard["sha256"])
        recipe = TEXT.replace('text = ["text.txt"]', 'shards = ["shards"]').replace("vocab = 512", 'tokenizer = "run/model"')
        self.ok("train", self.write("s.toml", recipe), "--out", "from_shards")
        mixture = TEXT.replace('text = ["text.txt"]\n', "").replace("context = 32", "context = 256").replace("[train]", MIXTURE + "[train]")
        trained = self.ok_json("train", self.write("m.toml", mixture), "--out", "mixture")
        self.assertEqual(trained["tokens"], 2048)
        self.assertIn("MB/s", self.ok(*self.prepare("in", "--out", "again")))
        self.assertEqual(self.ok_json(*self.prepare("in", "--out", "shards", "--resume"))["tokens"], made["tokens"])

    def test_killed_run_goes_on(self):
        line = json.dumps({"text": book()}) + "\n"
        self.write("big.jsonl", line * 100)
        arguments = self.prepare("big.jsonl", "--shard-tokens", 40000)
        self.ok(*arguments, "--out", "whole")
        process = subprocess.Popen([ORYX, *map(str, arguments), "--out", "killed"], cwd=self.dir, stderr=subprocess.DEVNULL)
        progress = self.dir / "killed.partial/progress.json"
        while not progress.exists() and process.poll() is None:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        process.wait()
        self.assertFalse((self.dir / "killed").exists())
        self.bad("--resume", *arguments, "--out", "killed")
        self.ok(*arguments, "--out", "killed", "--resume")
        for name in sorted(p.name for p in (self.dir / "whole").iterdir()):
            self.assertEqual((self.dir / "whole" / name).read_bytes(), (self.dir / "killed" / name).read_bytes(), name)

    def test_bad_input(self):
        self.bad("--out", *self.prepare("text.txt"))
        self.bad("none.txt", *self.prepare("none.txt", "--out", "x"))
        self.bad("holds no tokenizer", "data", "prepare", "text.txt", "--out", "x", "--tokenizer", ".")
        self.write("bad.jsonl", '{"text": "good"}\n{"text": "cut\n')
        result = self.run_oryx(*self.prepare("bad.jsonl", "--out", "lenient"))
        self.assertEqual(result.returncode, 0)
        self.assertIn("bad.jsonl:2", result.stderr)
        self.bad("bad.jsonl:2", *self.prepare("bad.jsonl", "--out", "x", "--strict"))
        self.bad("exists", *self.prepare("text.txt", "--out", "lenient"))
        self.assertEqual(list(self.dir.glob("x*")), [])


if __name__ == "__main__":
    unittest.main()
