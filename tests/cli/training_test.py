"""Training as its user meets it: the recipe is said, signals save, a full disk keeps what was there."""
import json
import re
import resource
import signal
import subprocess
import time
import unittest

from oryx_case import ORYX, RECALL, TEXT, OryxCase, book

LONG = RECALL.replace("tokens = 2048", "tokens = 200_000_000") + "checkpoint_every = 20\neval_every = 30\neval_tokens = 256\n"

MEMORY = """
[model]
preset = "oryx-gdn-10m"
num_hidden_layers = 3
[data]
task = "recall"
pairs = 32
length = 256
vocab = 4096
[train]
tokens = 4096
batch_tokens = 2048
eval_tokens = 256
"""


def files(directory):
    return {str(p.relative_to(directory)): p.read_bytes() for p in directory.rglob("*") if p.is_file()}


class Training(OryxCase):
    def start(self, recipe, *args):
        """A run that has logged a few steps."""
        before = self.logged()
        run = subprocess.Popen([ORYX, "train", recipe, "--out", self.dir / "run", *args], stderr=subprocess.PIPE,
                               stdout=subprocess.DEVNULL, text=True)
        self.addCleanup(run.stderr.close)
        self.addCleanup(run.kill)
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and run.poll() is None:
            if self.logged() > before + 15:
                return run
            time.sleep(0.02)
        self.fail(f"no metrics: {run.communicate()[1]}")

    def logged(self):
        metrics = self.dir / "run/metrics.jsonl"
        return metrics.read_text().count("\n") if metrics.exists() else 0

    def steps(self):
        """Of the checkpoints, oldest first."""
        return sorted(int(p.name[5:]) for p in (self.dir / "run/checkpoints").glob("step-*"))

    def test_resolved_recipe_is_said_first(self):
        recipe = self.write("recall.toml", RECALL)
        result = self.run_oryx("train", recipe, "--out", "run", "--set", "train.lr=3e-4", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        json.loads(result.stdout)
        text = result.stderr[:result.stderr.rindex("[train]")] + "[train]" + result.stderr.split("[train]")[1]
        for line in ("[model]", "[data]", "[mixing]", "[train]", "lr = 0.0003", "batch_tokens = 256", 'optimizer = "adamw"',
                     "pairs = 4", 'strategy = "random"', "seed = 0", 'precision = "fp32"', "checkpoint_every = 0"):
            self.assertIn(line, text.splitlines())
        saved = json.loads((self.dir / "run/recipe.json").read_text())
        self.assertEqual(saved["train"]["lr"], 3e-4)

    def test_sigterm_saves_and_ends_well(self):
        recipe = self.write("recall.toml", LONG)
        run = self.start(recipe)
        run.send_signal(signal.SIGTERM)
        error = run.communicate(timeout=60)[1]
        self.assertEqual(run.returncode, 0, error)
        self.assertIn("--resume", error)
        last = json.loads((self.dir / "run/metrics.jsonl").read_text().splitlines()[-1])["step"]
        self.assertGreaterEqual(self.steps()[-1], last)  # every step is saved, also one that was not logged
        again = self.start(recipe, "--resume")
        again.send_signal(signal.SIGTERM)
        self.assertEqual(again.wait(timeout=60), 0)
        self.assertGreater(self.steps()[-1], last)

    def test_training_begins_with_given_weights(self):
        """A text model is trained on, its tokenizer with it: the first loss is where the last one was."""
        (self.dir / "text.txt").write_text(book())
        self.write("text.toml", TEXT.replace("tokens = 2048", "tokens = 16384\nlr = 3e-3"))
        self.assertEqual(self.run_oryx("train", "text.toml", "--out", "first").returncode, 0)
        again = re.sub(r"preset.*\nnum_hidden_layers.*", 'weights = "first/model"', TEXT)
        self.write("again.toml", again + "lr = 0\nlog_every = 1\n")
        result = self.run_oryx("train", "again.toml", "--out", "second")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual((self.dir / "second/model/model.safetensors").read_bytes(),
                         (self.dir / "first/model/model.safetensors").read_bytes())
        self.assertEqual((self.dir / "second/model/tokenizer.model").read_bytes(),
                         (self.dir / "first/model/tokenizer.model").read_bytes())
        for change, says in (('weights = "none"', "none/config.json"),
                             ('weights = "first/model"\npreset = "gdn-tiny"', "takes the place of 'preset'"),
                             ('weights = "first/model"\nhidden_size = 64', "another shape")):
            self.write("bad.toml", re.sub(r"preset.*\nnum_hidden_layers.*", change, TEXT))
            result = self.run_oryx("train", "bad.toml", "--out", "bad")
            self.assertEqual((result.returncode, says in result.stderr), (2, True), result.stderr)

    def test_only_one_process_trains_a_run(self):
        recipe = self.write("recall.toml", LONG)
        run = self.start(recipe)
        self.bad("in use by another training process", "train", recipe, "--out", "run", "--resume")
        run.send_signal(signal.SIGINT)
        self.assertEqual(run.wait(timeout=60), 130)

    def test_full_disk_keeps_the_last_checkpoint(self):
        """A limit on file sizes stands for a full disk: the checkpoint's write fails in the middle of a file."""
        recipe = self.write("recall.toml", LONG)
        run = self.start(recipe)
        run.send_signal(signal.SIGTERM)
        self.assertEqual(run.wait(timeout=60), 0)
        folder = self.dir / "run/checkpoints"
        before = files(folder)

        def limit():
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (60000, 60000))

        self.assertGreater(max(map(len, before.values())), 60000)
        result = self.bad(["cannot write", ".safetensors", "File too large"], "train", recipe, "--out", "run", "--resume",
                          preexec_fn=limit)
        self.assertNotIn("terminate", result.stderr)
        self.assertEqual(files(folder), before)
        again = self.start(recipe, "--resume")
        again.send_signal(signal.SIGTERM)
        self.assertEqual(again.wait(timeout=60), 0)
        self.assertNotEqual(files(folder), before)

    def test_predicted_memory(self):
        """`info --train` against what a run occupies."""
        recipe = self.write("memory.toml", MEMORY)
        for settings in ([], ["train.recompute=true", "train.optimizer=muon"], ["train.micro_batch_tokens=512", "train.precision=bf16"]):
            with self.subTest(settings=settings):
                options = [x for setting in settings for x in ("--set", setting)]
                predicted = self.ok_json("info", "--train", recipe, *options)["train"]
                measured = self.ok_json("train", recipe, "--out", "-".join(["run", *settings]), *options)["step_peak_bytes"]
                self.assertLess(abs(predicted["peak_bytes"] / measured - 1), 0.15, (predicted, measured))
                self.assertGreater(measured, 1.5 * predicted["program"])  # or little was measured
        self.assertIn("peak memory of a step", self.ok("info", "--train", recipe))
        alone, shared = (self.ok_json("info", "--train", recipe, "--ranks", ranks)["train"] for ranks in (1, 4))
        self.assertEqual(shared["optimizer"], alone["optimizer"] // 4)
        self.assertLess(shared["activations"], 0.3 * alone["activations"])
        self.bad("cannot be shared by 3 ranks", "info", "--train", recipe, "--ranks", 3)
        self.bad("did you mean", "info", "--train", recipe, "--set", "train.recompue=true")
        self.bad("MODEL", "info")


if __name__ == "__main__":
    unittest.main()
