"""`oryx demo --quick`: every part runs, nothing finished is repeated, interrupted training goes on."""
import json
import os
import shutil
import signal
import subprocess
import time
import unittest

from oryx_case import ORYX, OryxCase


class Demo(OryxCase):
    def demo(self, *args):
        result = self.run_oryx("demo", "--quick", "--out", "out", *args)
        self.assertEqual(result.returncode, 0, result.stderr)
        return result

    def check_results(self, results):
        recall, text = results["recall"], results["text"]
        rows = {row["schedule"]: row for row in recall["schedules"]}
        self.assertEqual(list(rows), ["attention", "recurrent", "recurrent:..64,attention:64..", "attention:..64,recurrent:64.."])
        self.assertEqual([row["attention_fraction"] for row in rows.values()], [1.0, 0.0, 0.5, 0.5])
        curves = recall["curves"]
        self.assertEqual([(c["length"], c["attention_at"]) for c in curves],
                         [(128, "end"), (256, "end"), (512, "end"), (128, "start"), (128, "spread")])
        for row in list(rows.values()) + [p for c in curves for p in c["points"]]:
            self.assertTrue(0 <= row["accuracy"] <= 1)
            self.assertEqual(row["queries"], 32 * row["examples"])
        for curve in curves:
            fractions = [p["attention_fraction"] for p in curve["points"]]
            self.assertEqual(fractions, sorted(fractions))
            self.assertEqual((fractions[0], fractions[-1]), (0.0, 1.0))
        for part, tokens in (recall, 40960), (text, 12288):
            training = part["training"]
            self.assertEqual(training["tokens"], tokens)
            self.assertEqual(training["loss"][-1]["tokens"], tokens)
            self.assertGreater(training["tokens_per_s"], 0)
            self.assertIn("recurrent", training["validation"][-1])
        for row in text["perplexity"]:
            self.assertGreater(row["perplexity"], 1)
        pieces = text["sample"]["pieces"]
        self.assertEqual({p["mixer"] for p in pieces}, {"attention", "recurrent"})
        self.assertEqual(sum(p["tokens"] for p in pieces), 24)

    def test_runs_once(self):
        first = self.demo()
        out = self.dir / "out"
        self.assertIn(str(out / "index.html"), first.stdout)
        self.assertIn("context recurrent, queries in attention", first.stdout)
        results = json.loads((out / "results.json").read_text())
        self.check_results(results)
        page = (out / "index.html").read_text()
        self.assertIn("quick run", page)
        for row in results["text"]["perplexity"]:
            self.assertIn(f"<strong>{row['perplexity']:.2f}</strong>", page)
        for model in "recall/model", "text/model":
            self.ok("info", out / model)

        # The sample is what `oryx generate` writes.
        sample = results["text"]["sample"]
        again = self.ok_json("generate", sample["model"], "--prompt", sample["prompt"], "--schedule", sample["schedule"],
                             "--temperature", sample["temperature"], "--seed", sample["seed"], "--max-tokens", 24)
        self.assertEqual(again["text"], "".join(p["text"] for p in sample["pieces"]))

        before = {p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}
        evaluations = {p: p.stat().st_mtime_ns for p in out.rglob("evaluations.json")}
        self.assertEqual(len(evaluations), 2)
        second = self.demo("--json")
        self.assertEqual(json.loads(second.stdout), results)
        self.assertEqual(second.stderr.count("already trained"), 2)
        self.assertEqual({p: p.stat().st_mtime_ns for p in out.rglob("*.safetensors")}, before)
        self.assertEqual({p: p.stat().st_mtime_ns for p in out.rglob("evaluations.json")}, evaluations)

        # Training that did not come to its end goes on from the checkpoint, and its figures are the same.
        stage = out / "text/stage.json"
        stage.write_text(json.dumps(dict(json.loads(stage.read_text()), finished=False)))
        shutil.rmtree(out / "text/model")
        third = self.demo()
        self.assertIn("text: training goes on", third.stderr)
        self.assertEqual(json.loads((out / "results.json").read_text())["text"]["perplexity"], results["text"]["perplexity"])

    def test_another_recipe_starts_anew(self):
        project = self.dir / "project"
        (project / "configs").mkdir(parents=True)
        source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
        for name in "demo-recall.toml", "demo-text.toml":
            shutil.copy(os.path.join(source, "configs", name), project / "configs" / name)
        shutil.copytree(os.path.join(source, "data", "books"), project / "data" / "books")
        model = "models/oryx-gdn-31m"
        missing = self.run_oryx("demo", "--quick", "--out", "out", "--project", "project")
        self.assertEqual(missing.returncode, 2, missing.stderr)
        self.assertIn(model, missing.stderr)
        (project / "models").mkdir()
        (project / model).symlink_to(os.path.abspath(os.path.join(source, model)))
        self.demo("--project", "project")
        recipe = project / "configs/demo-recall.toml"
        recipe.write_text(recipe.read_text().replace("lr = 3e-3", "lr = 2e-3"))
        again = self.demo("--project", "project")
        self.assertIn("recall: the recipe is another one", again.stderr)
        self.assertIn("text: already trained", again.stderr)

    def test_interrupted(self):
        # Interrupted as soon as training has begun: a checkpoint is left, status 130, and the next run finishes.
        process = subprocess.Popen([ORYX, "demo", "--quick", "--out", "out"], cwd=self.dir, stdout=subprocess.DEVNULL,
                                   stderr=subprocess.PIPE, text=True)
        metrics = self.dir / "out/recall/metrics.jsonl"
        deadline = time.time() + 120
        while time.time() < deadline and process.poll() is None and not (metrics.exists() and metrics.stat().st_size):
            time.sleep(0.005)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=120)
        self.assertEqual(process.returncode, 130, errors)
        result = self.demo()
        self.assertRegex(result.stderr, "recall: (training goes on|already trained)")
        self.check_results(json.loads((self.dir / "out/results.json").read_text()))

    def test_refuses_what_is_not_its_own(self):
        self.model("out/recall/model")
        self.bad("did not make", "demo", "--quick", "--out", "out")
        self.bad("--project", "demo", "--quick", "--out", "elsewhere", "--project", "nowhere")
        self.assertFalse((self.dir / "elsewhere").exists())


if __name__ == "__main__":
    unittest.main()
