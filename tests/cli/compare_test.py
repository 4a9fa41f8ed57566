"""`oryx compare`: the same tokens for all, statistics by hand, kills and resumes, bad input."""
import fcntl
import json
import math
import os
import shutil
import signal
import statistics
import subprocess
import time
import unittest
from html.parser import HTMLParser

from oryx_case import ORYX, RECALL, OryxCase, book

SHAPE = """hidden_size = 32
num_hidden_layers = 1
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 8
value_head_dim = 8
intermediate_size = 64
"""
BASE = RECALL.replace('preset = "oryx-gdn-tiny"\n', "") + "eval_every = 2\neval_tokens = 256\n"
MODELS = """
[[models]]
name = "transformer"
preset = "transformer-tiny"
[[models]]
name = "gdn"
preset = "gdn-tiny"
train.lr = 2e-3
[[models]]
preset = "oryx-gdn-tiny"
mixing.strategy = "alternate"
"""
SEEDS = "seeds = [3, 5]\n"
NAMES = ["transformer", "gdn", "oryx-gdn-tiny"]


def timeless(results):
    """Without what a clock decides."""
    if isinstance(results, dict):
        return {k: timeless(v) for k, v in results.items() if k not in ("seconds", "tokens_per_s")}
    return [timeless(v) for v in results] if isinstance(results, list) else results


class Balanced(HTMLParser):
    """Every element is closed, and nothing is fetched."""

    def __init__(self, test, text):
        super().__init__()
        self.test, self.open = test, []
        self.feed(text)
        test.assertEqual(self.open, [])

    def handle_starttag(self, tag, attributes):
        self.test.assertFalse({"src", "href"} & {k for k, _ in attributes})
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        self.test.assertEqual(self.open.pop(), tag)


class Compare(OryxCase):
    def compare(self, text=SEEDS + BASE + MODELS):
        return self.write("c.toml", text)

    def last_losses(self, run):
        lines = [json.loads(x) for x in (self.dir / run / "metrics.jsonl").read_text().splitlines()]
        return [x["val_loss"] for x in lines if "val_loss" in x][-1]

    def test_report(self):
        results = self.ok_json("compare", self.compare(), "--out", "out")
        self.assertTrue(results["finished"])
        self.assertEqual(results, json.loads((self.dir / "out/comparison.json").read_text()))
        self.assertEqual([m["name"] for m in results["models"]], NAMES)
        losses = {(name, seed): self.last_losses(f"out/{name}/seed-{seed}") for name in NAMES for seed in (3, 5)}
        transformer, gdn, oryx = results["models"]
        for model in results["models"]:
            self.assertEqual(model["parameters"], sum(v for k, v in self.ok_json(
                "info", self.dir / "out" / model["name"] / "seed-3/model")["parameters"].items() if k not in ("total", "embedding")))
            for mode, spread in model["val_loss"].items():
                values = [losses[model["name"], seed][mode] for seed in (3, 5)]
                self.assertAlmostEqual(spread["mean"], statistics.mean(values), places=12)
                self.assertAlmostEqual(spread["standard_error"], statistics.stdev(values) / math.sqrt(2), places=12)
            for run in model["runs"]:
                positions = run["positions"]
                self.assertEqual([p["begin"] for p in positions], list(range(0, 32, 2)))
                self.assertEqual([p["targets"] for p in positions[:4]], [0] * 4)  # the pairs
                for mode in model["tie_ratio"]:
                    parts = [p[mode] * p["targets"] for p in positions if p["targets"]]
                    self.assertAlmostEqual(sum(parts) / sum(p["targets"] for p in positions), run["validation"][-1][mode], places=5)
        self.assertEqual(sorted(oryx["val_loss"]), ["attention", "mixed", "recurrent", "tail"])
        self.assertEqual((list(transformer["val_loss"]), list(gdn["val_loss"])), (["attention"], ["recurrent"]))
        self.assertEqual((transformer["against_baseline"], gdn["against_baseline"]), ({}, {}))
        for mode, baseline in (("attention", "transformer"), ("recurrent", "gdn")):
            found = oryx["against_baseline"][mode]
            values = [losses["oryx-gdn-tiny", seed][mode] - losses[baseline, seed][mode] for seed in (3, 5)]
            self.assertEqual(found["baseline"], baseline)
            self.assertAlmostEqual(found["mean"], statistics.mean(values), places=12)
            self.assertAlmostEqual(found["standard_error"], statistics.stdev(values) / math.sqrt(2), places=12)
        # What all share is said once, and the recipes are whole with it.
        self.assertEqual(results["common"]["data"]["pairs"], 4)
        self.assertEqual(gdn["recipe"]["train"], {"lr": 2e-3})
        self.assertEqual(oryx["recipe"]["mixing"], {"strategy": "alternate"})
        whole = json.loads((self.dir / "out/gdn/seed-5/recipe.json").read_text())
        self.assertEqual(whole["train"]["seed"], 5)
        self.assertEqual(whole["train"]["lr"], 2e-3)
        page, text = ((self.dir / "out" / f"comparison.{kind}").read_text() for kind in ("html", "md"))
        for spread in (transformer["val_loss"]["attention"], oryx["val_loss"]["tail"]):
            for form in page, text:
                self.assertIn(f"{spread['mean']:.4f} ± {spread['standard_error']:.4f}", form)
        self.assertIn(f"{oryx['against_baseline']['recurrent']['mean']:+.4f} ±", text)
        Balanced(self, page)
        for title in ("Validation loss, attention", "Validation loss, recurrent", "Training loss",
                      "Validation loss by position, attention"):
            self.assertIn(title, page)
        table = [line for line in text.splitlines() if line.startswith("|")]
        self.assertEqual({line.count("|") for line in table}, {table[0].count("|")})

    def test_each_run_is_an_ordinary_one(self):
        """Its weights are those of `oryx train` with the resolved recipe."""
        self.ok("compare", self.compare(), "--out", "out", "--set", "seeds=[7]")
        recipe = self.write("alone.toml", BASE.replace("[model]\n", '[model]\npreset = "gdn-tiny"\n'))
        self.ok("train", recipe, "--out", "alone", "--set", "train.lr=2e-3", "--set", "train.seed=7")
        same = [(self.dir / run / "model/model.safetensors").read_bytes() for run in ("out/gdn/seed-7", "alone")]
        self.assertEqual(*same)

    def test_resume_after_kills(self):
        comparison = self.compare((SEEDS + BASE + MODELS).replace("tokens = 2048", "tokens = 102_400"))
        options = ["--set", "train.checkpoint_every=10", "--set", "train.log_every=1", "--set", "train.eval_every=50"]
        whole = self.ok_json("compare", comparison, "--out", "whole", *options)
        for i, name in enumerate((NAMES[0], NAMES[2])):
            run = subprocess.Popen([ORYX, "compare", comparison, "--out", self.dir / "out", "--resume", *options],
                                   stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
            metrics = self.dir / "out" / name / "seed-3/metrics.jsonl"
            deadline = time.monotonic() + 60
            while time.monotonic() < deadline and not (metrics.exists() and metrics.stat().st_size > 8000):
                time.sleep(0.005)
            run.send_signal(signal.SIGINT if i else signal.SIGKILL)
            self.assertEqual(run.wait(timeout=60), 130 if i else -signal.SIGKILL)
            self.assertFalse((self.dir / "out" / name / "seed-3/model").exists())
            partial = json.loads((self.dir / "out/comparison.json").read_text())
            self.assertFalse(partial["finished"])
            self.assertEqual([len(m["runs"]) for m in partial["models"]], [i, i, 0])
            self.assertIn("Not all runs are finished", (self.dir / "out/comparison.md").read_text())
        self.bad("already holds a comparison", "compare", comparison, "--out", "out", *options)
        first = self.dir / "out/transformer/seed-3/model/model.safetensors"
        before = first.stat().st_mtime_ns
        result = self.run_oryx("compare", comparison, "--out", "out", "--resume", "--json", *options)
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(timeless(json.loads(result.stdout)), timeless(whole))
        self.assertEqual(first.stat().st_mtime_ns, before)
        # Killed after its training, a run is only measured. Once more: nothing is left to do. With another seed: only that is.
        (self.dir / "out/gdn/seed-3/position_losses.json").unlink()
        self.assertEqual(timeless(self.ok_json("compare", comparison, "--out", "out", "--resume", *options)), timeless(whole))
        self.assertNotIn("seed", self.run_oryx("compare", comparison, "--out", "out", "--resume", *options).stderr)
        more = self.ok_json("compare", comparison, "--out", "out", "--resume", "--set", "seeds=[3, 5, 6]", *options)
        self.assertEqual([len(m["runs"]) for m in more["models"]], [3, 3, 3])
        self.assertEqual(first.stat().st_mtime_ns, before)
        self.bad(["transformer/seed-3", "train.lr is 0.5 now"], "compare", comparison, "--out", "out", "--resume",
                 "--set", "train.lr=0.5", *options)
        # A recipe of an earlier program lacks newer keys, which had their defaults; another value is another recipe.
        written = self.dir / "out/transformer/seed-3/recipe.json"
        recipe = json.loads(written.read_text())
        del recipe["mixing"]["key_gradient"], recipe["model"]["query_activation"]
        written.write_text(json.dumps(recipe))
        self.ok_json("compare", comparison, "--out", "out", "--resume", *options)
        recipe["model"]["query_activation"] = "none"
        written.write_text(json.dumps(recipe))
        self.bad(["transformer/seed-3", 'model.query_activation is "silu" now'], "compare", comparison, "--out", "out",
                 "--resume", *options)

    def test_jobs(self):
        """Processes side by side leave what one run after another does, also after a SIGTERM; one that fails stands alone."""
        comparison = self.compare((SEEDS + BASE + MODELS).replace("tokens = 2048", "tokens = 25_600"))
        options = ["--set", "train.checkpoint_every=5", "--set", "train.log_every=1"]
        whole = self.ok_json("compare", comparison, "--out", "whole", "--threads", "1", *options)
        jobs = ["compare", comparison, "--out", "out", "--jobs", "3", "--threads", "3", *options]
        run = subprocess.Popen([ORYX, *map(str, jobs)], cwd=self.dir, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        begun = [self.dir / "out" / name / "seed-3/metrics.jsonl" for name in NAMES]
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not all(path.exists() for path in begun):
            time.sleep(0.01)
        run.send_signal(signal.SIGTERM)
        errors = run.communicate(timeout=60)[1]
        self.assertEqual(run.returncode, 0, errors)
        self.assertIn("--resume goes on", errors)
        for path in begun:  # nobody trains there any more
            with open(path.parent / "lock") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        result = self.run_oryx(*jobs, "--resume", "--json")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(timeless(json.loads(result.stdout)), timeless(whole))
        self.assertIn("6 runs, 3 at a time", result.stderr)
        self.assertIn("seed 5", (self.dir / "out/gdn/seed-5/log.txt").read_text())
        shutil.rmtree(self.dir / "out/gdn/seed-3/model")
        (self.dir / "out/gdn/seed-5/model/config.json").unlink()
        for file in (self.dir / "out/gdn/seed-3/checkpoints").glob("*/*.json"):
            file.write_text("{")
        self.bad(["gdn:3: exit status 2: oryx: ", "log.txt"], *jobs, "--resume")
        self.assertTrue((self.dir / "out/gdn/seed-5/model/config.json").exists())

    def test_one_run(self):
        whole = self.ok_json("compare", self.compare(), "--out", "whole", "--threads", "1")
        for name in NAMES:
            for seed in (3, 5):
                self.ok("compare", self.compare(), "--out", "out", "--threads", "1", "--run", f"{name}:{seed}")
        self.assertFalse((self.dir / "out/comparison.json").exists())
        results = self.ok_json("compare", self.compare(), "--out", "out", "--resume")
        self.assertEqual(timeless(results), timeless(whole))
        # One that comes from a machine with other data.
        (self.dir / "out/gdn/seed-5/tokens.sha256").write_text("other")
        self.bad(["gdn/seed-5", "other tokens"], "compare", self.compare(), "--out", "out", "--resume")
        self.bad(["gdn:4", "transformer:3"], "compare", self.compare(), "--out", "out", "--run", "gdn:4")
        self.bad("--jobs", "compare", self.compare(), "--out", "out", "--run", "gdn:3", "--jobs", "2")
        self.bad("--jobs", "compare", self.compare(), "--out", "out", "--jobs", "0")

    def test_text_has_one_tokenizer_and_may_not_change(self):
        self.write("text.txt", book())
        self.write("recipes/base.toml", f"""[model]
{SHAPE}
[data]
text = ["../text.txt"]
valid = ["../text.txt"]
vocab = 512
context = 32
[train]
tokens = 1024
batch_tokens = 256
eval_tokens = 256
seed = 4
""")
        comparison = self.compare('recipe = "recipes/base.toml"\n' + MODELS)
        results = self.ok_json("compare", comparison, "--out", "out")
        self.assertEqual([m["runs"][0]["seed"] for m in results["models"]], [4, 4, 4])
        self.assertIsNone(results["models"][0]["val_loss"]["attention"]["standard_error"])
        tokenizers = {(self.dir / f"out/{name}/seed-4/model/tokenizer.model").read_bytes() for name in NAMES}
        self.assertEqual(len(tokenizers), 1)
        # A run that is done again on another text would not have seen the same tokens.
        (self.dir / "out/gdn/seed-4/model").rename(self.dir / "aside")
        self.write("text.txt", book(300))
        self.bad(["tokens of seed 4", "restore the data"], "compare", comparison, "--out", "out", "--resume")

    def test_bad_input(self):
        def bad(words, old, new):
            with self.subTest(new=new):
                self.bad(words, "compare", self.compare((SEEDS + BASE + MODELS).replace(old, new)), "--out", "out")

        more = "train.lr = 2e-3"
        for key in ("train.tokens", "train.batch_tokens", "train.micro_batch_tokens", "train.seed", "train.eval_tokens",
                    "train.eval_every"):
            bad(["'gdn'", key, "the same for all models"], more, f"{key} = 512")
        bad(["'gdn'", "no [data] of its own"], more, "data.pairs = 2")
        bad(["'gdn'", "lrr"], more, "train.lrr = 1")
        bad(["[[models]] 2", "prset", "preset"], more, 'prset = "x"')
        bad(["gdn-tinny", "gdn-tiny"], "gdn-tiny", "gdn-tinny")
        bad(["'gdn'", "train"], more, "train = 3")
        bad(["taken"], 'name = "gdn"', 'name = "transformer"')
        bad(["folder"], 'name = "gdn"', 'name = "../gdn"')
        bad(["'name'"], 'name = "gdn"\npreset = "gdn-tiny"', "")
        bad(["nothing to compare"], MODELS, "")
        bad(["seeds"], "[3, 5]", "[3, -5]")
        bad(["twice"], "[3, 5]", "[3, 3]")
        bad(["seeds"], "[3, 5]", "3")
        bad(["sedes"], SEEDS, "sedes = [1]\n")
        bad(["'train'"], "[train]\n", "train = 3\n[trains]\n")
        bad(["valid"], 'task = "recall"\npairs = 4\nlength = 32\nvocab = 32', 'text = ["t.txt"]\ncontext = 32')
        self.bad("no.toml", "compare", "no.toml")
        self.bad("none.toml", "compare", self.compare('recipe = "none.toml"\n' + MODELS))
        self.bad("lrr", "compare", self.compare(), "--out", "out", "--set", "train.lrr=1")
        self.assertFalse((self.dir / "out").exists())
        self.bad("", "compare", self.compare(), "--out", "/dev/null/out")
        ranks = {"WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost",
                 "MASTER_PORT": "29500"}
        self.bad("without torchrun", "compare", self.compare(), "--out", "out", env={**os.environ, **ranks})


if __name__ == "__main__":
    unittest.main()
