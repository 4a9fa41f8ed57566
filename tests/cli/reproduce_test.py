"""`oryx reproduce` at a toy scale: the report, what a kill leaves, fixed hybrids, bad input."""
import json
import pathlib
import signal
import subprocess
import time
import unittest

from oryx_case import ORYX, OryxCase, book

PLAN = """
seeds = [0, 1]
[model]
hidden_size = 32
num_hidden_layers = 2
num_attention_heads = 2
num_key_value_heads = 2
head_dim = 8
value_head_dim = 8
intermediate_size = 64
[data]
valid = ["text.txt"]
vocab = 512
context = 64
[[data.sources]]
text = ["text.txt"]
weight = 0.5
[[data.sources]]
task = "recall"
pairs = 3
length = 64
vocab = 64
weight = 0.5
[mixing]
strategy = "phases"
[[mixing.phases]]
until = 0.5
strategy = "random"
chunk = 64
[[mixing.phases]]
strategy = "random"
[train]
tokens = 4096
batch_tokens = 512
eval_tokens = 512
checkpoint_every = 2
[[models]]
name = "transformer"
preset = "transformer-tiny"
[[models]]
name = "gdn"
preset = "gdn-tiny"
[[models]]
name = "oryx"
preset = "oryx-gdn-tiny"
mixing = { both = true }
[[models]]
name = "hybrid"
preset = "oryx-gdn-tiny"
mixing = { strategy = "schedule", schedule = "*=recurrent;1=attention" }
[evaluation]
tasks = ["piqa"]
retrieval = ["factbook"]
places = ["tail", "question", "entropy"]
fractions = [0, 0.05, 0.5, 1]
limit = 3
contexts = [16, 64]
[evaluation.recall]
pairs = 3
length = 64
vocab = 64
"""
VERDICTS = {"shown", "not shown at this scale", "contradicted"}


class Reproduce(OryxCase):
    def setUp(self):
        super().setUp()
        self.write("text.txt", book())
        self.plan = self.write("toy.toml", PLAN)

    def test_report(self):
        results = self.ok_json("reproduce", "--config", self.plan, "--out", "out")
        self.assertTrue(results["finished"])
        self.assertEqual(results, json.loads((self.dir / "out/reproduction.json").read_text()))
        self.assertEqual([c["id"] for c in results["claims"]], ["parameters", "switching", "language_modelling", "retrieval"])
        self.assertLessEqual({c["verdict"] for c in results["claims"]}, VERDICTS)
        rows = {(r["model"], r["mode"]): r for r in results["language_modelling"]}
        self.assertEqual(list(rows), [("transformer", "attention"), ("gdn", "recurrent"), ("oryx", "attention"),
                                      ("oryx", "recurrent"), ("hybrid", "schedule")])
        for seed in "01":
            difference = rows["oryx", "attention"]["val_loss"]["by_seed"][seed] - rows["transformer", "attention"]["val_loss"]["by_seed"][seed]
            self.assertAlmostEqual(rows["oryx", "attention"]["against_baseline"]["val_loss"]["by_seed"][seed], difference)
            # What oryx eval says of a run is what the report averages.
            run = self.dir / f"out/oryx/seed-{seed}/model"
            piqa = self.ok_json("eval", "piqa", run, "--schedule", "recurrent", "--limit", "3")["piqa"]
            self.assertAlmostEqual(rows["oryx", "recurrent"]["tasks"]["piqa"]["by_seed"][seed], piqa["acc"])
            recall = self.ok_json("eval", "recall", run, "--schedule", "tail:0.05", "--examples", "3", "--vocab", "64",
                                  "--pairs", "3", "--length", "64", "--query-placement", "end")
            facts = self.ok_json("eval", "factbook", run, "--sweep", "fraction=0.05", "--where", "tail", "--limit", "3")
            point = next(r for r in results["retrieval"] if (r["model"], r["where"], r["fraction"]) == ("oryx", "tail", 0.05))
            self.assertAlmostEqual(point["accuracy"]["by_seed"][seed],
                                   (recall["accuracy"] + facts["factbook"]["sweep"][0]["acc"]) / 2)
        places = {(r["model"], r["where"], r["mode"]) for r in results["retrieval"]}
        self.assertEqual({p for p in places if p[0] != "oryx"},
                         {("transformer", "all", "attention"), ("gdn", "all", "recurrent"), ("hybrid", "all", "schedule")})
        self.assertEqual({where for model, where, _ in places if model == "oryx"}, {"all", "tail", "question", "entropy"})
        self.assertEqual({m["name"]: m["passes"] for m in results["comparison"]["models"]},
                         {"transformer": 1, "gdn": 1, "oryx": 2, "hybrid": 1})
        self.assertTrue(all("both modes" in line for line in results["claims"][2]["evidence"]))
        memory = {(r["model"], r["mode"], r["length"]): r["cache_bytes"] for r in results["contexts"]}
        self.assertEqual(memory["oryx", "recurrent", 16], memory["oryx", "recurrent", 64])
        self.assertGreater(memory["oryx", "attention", 64], memory["oryx", "attention", 16])
        for kind in ("md", "html"):
            text = (self.dir / f"out/reproduction.{kind}").read_text()
            for claim in results["claims"]:
                self.assertIn(claim["verdict"], text)
            self.assertIn("hybrid", text)

    def test_resumes_after_a_kill(self):
        command = [ORYX, "reproduce", "--config", str(self.plan), "--out", "out"]
        for file in ("gdn/seed-0/metrics.jsonl", "oryx/seed-0/evaluations.json"):
            with subprocess.Popen([*command, "--resume"], cwd=self.dir, stderr=subprocess.DEVNULL,
                                  stdout=subprocess.DEVNULL) as process:
                while not (self.dir / "out" / file).exists() and process.poll() is None:
                    time.sleep(0.01)
                process.send_signal(signal.SIGKILL)
                process.wait()
        trained = (self.dir / "out/transformer/seed-0/model/model.safetensors").stat().st_mtime_ns
        results = self.ok_json(*command[1:], "--resume")
        self.assertEqual((self.dir / "out/transformer/seed-0/model/model.safetensors").stat().st_mtime_ns, trained)
        whole = self.ok_json("reproduce", "--config", self.plan, "--out", "whole")
        for key in ("language_modelling", "retrieval", "claims"):
            self.assertEqual(results[key], whole[key])
        self.bad("--resume", *command[1:])

    def test_jobs(self):
        whole = self.ok_json("reproduce", "--config", self.plan, "--out", "whole", "--threads", "1")
        results = self.ok_json("reproduce", "--config", self.plan, "--out", "out", "--jobs", "3", "--threads", "3")
        for key in ("finished", "language_modelling", "retrieval", "claims"):
            self.assertEqual(results[key], whole[key])
        self.assertTrue((self.dir / "out/hybrid/seed-1/evaluations.json").exists())

    def test_whole_sets(self):
        """A folder of sets takes the place of the samples, whichever process evaluates."""
        plan = self.write("sets.toml", PLAN.replace("limit = 3", 'limit = 3\ndata = "sets"').replace("seeds = [0, 1]", "seeds = [0]"))
        tasks = pathlib.Path(__file__).parents[2] / "tasks/data"
        for name in ("piqa", "factbook"):
            lines = (tasks / f"{name}.jsonl").read_text().splitlines(True)
            self.write(f"sets/{name}/{name}_valid.jsonl", "".join(lines[3:5]))
        results = self.ok_json("reproduce", "--config", plan, "--out", "out")
        row = next(r for r in results["language_modelling"] if r["model"] == "gdn")
        piqa = self.ok_json("eval", "piqa", self.dir / "out/gdn/seed-0/model", "--schedule", "recurrent", "--data", "sets/piqa/piqa_valid.jsonl")["piqa"]
        self.assertEqual(piqa["n"], 2)
        self.assertEqual(row["tasks"]["piqa"]["by_seed"]["0"], piqa["acc"])

    def test_cost(self):
        cost = self.ok_json("reproduce", "--config", self.plan, "--cost")
        self.assertEqual([m["name"] for m in cost["models"]], ["transformer", "gdn", "oryx", "hybrid"])
        self.assertAlmostEqual(sum(m["hours"] for m in cost["models"]), cost["hours"])
        self.assertFalse((self.dir / "out").exists())

    def test_laid_over_another(self):
        """`recipe` may name another reproduction: its data, evaluation and training, with what differs."""
        own = 'recipe = "../toy.toml"\n[train]\ntokens = 8192\n[[models]]\nname = "alone"\npreset = "gdn-tiny"\n[evaluation]\nlimit = 2\n'
        plan = self.write("other/own.toml", own)
        models = self.ok_json("reproduce", "--config", plan, "--cost")["models"]
        self.assertEqual([(m["name"], m["tokens"]) for m in models], [("alone", 8192)])

    def test_bad_input(self):
        def bad(words, old, new):
            with self.subTest(new=new):
                self.bad(words, "reproduce", "--config", self.write("bad.toml", PLAN.replace(old, new)), "--out", "out")

        bad(["[evaluation]", "oryx compare"], PLAN[PLAN.index("[evaluation]"):], "")
        bad(["fractions", "[0, 1]"], "0.05, 0.5", "0.05, 5")
        bad(["fractionz", "fractions"], "fractions =", "fractionz =")
        bad(["contexts"], "[16, 64]", "[0]")
        bad(["limit"], "limit = 3", "limit = 0")
        bad(["sets/piqa", "oryx eval fetch"], "limit = 3", 'limit = 3\ndata = "sets"')
        bad(["piqb", "piqa"], '"piqa"', '"piqb"')
        bad(["tial"], '["tail", ', '["tial", ')
        self.bad("--scale", "reproduce", "--scale", "tiny")
        self.bad("missing", "reproduce", "--project", "nowhere")
        self.assertFalse((self.dir / "out").exists())


if __name__ == "__main__":
    unittest.main()
