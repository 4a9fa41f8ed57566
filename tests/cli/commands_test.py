"""The commands and their JSON, as users and other programs rely on them."""
import json
import math
import unittest

from oryx_case import RECALL, TEXT, OryxCase, book


class Commands(OryxCase):
    def test_info(self):
        info = self.ok_json("info", "oryx-gdn-10m")
        parameters = info["parameters"]
        self.assertEqual(parameters["total"], sum(parameters[k] for k in ("embedding", "shared", "attention", "recurrent")))
        for mode in ("attention", "recurrent"):
            self.assertGreaterEqual(info["tie_ratio"][mode], 0.9)
            self.assertGreater(info["flops_per_token"][mode], 1e6)
        self.assertGreater(info["cache_bytes_per_token"], 0)
        self.assertGreater(info["state_bytes"], 0)
        self.assertIn("tie ratio", self.ok("info", "oryx-gdn-10m"))
        self.assertNotIn("recurrent", self.ok_json("info", "transformer-10m")["tie_ratio"])

    def test_init_is_a_function_of_the_seed(self):
        a, b = self.model("a", "oryx-gdn-tiny", "--seed", 1), self.model("b", "oryx-gdn-tiny", "--seed", 1)
        c = self.model("c", "oryx-gdn-tiny", "--seed", 2)
        weights = [(d / "model.safetensors").read_bytes() for d in (a, b, c)]
        self.assertEqual(weights[0], weights[1])
        self.assertNotEqual(weights[0], weights[2])
        self.assertEqual(self.ok_json("info", a)["config"]["vocab_size"], 64)

    def test_score_tokens(self):
        model = self.model()
        lines = [{"id": "x", "tokens": [1, 2, 3, 4, 5]}, {"tokens": [7]}, {"id": 3, "tokens": list(range(64))}]
        for schedule in ("attention", "recurrent", "alternate:2", "random:4:0.5:7", "tail:0.3", "*=recurrent;1=attention"):
            out = self.ok("score", model, "--schedule", schedule, stdin="\n".join(map(json.dumps, lines)) + "\n")
            results = [json.loads(line) for line in out.splitlines()]
            self.assertEqual([r["id"] for r in results], ["x", None, 3])
            for line, result in zip(lines, results):
                self.assertEqual(result["tokens"], line["tokens"])
                self.assertEqual(len(result["logprobs"]), len(line["tokens"]))
                self.assertIsNone(result["logprobs"][0])
                self.assertTrue(all(p < 0 for p in result["logprobs"][1:]))

    def test_score_by_windows(self):
        model, tokens = self.model(), [(7 * i) % 64 for i in range(30)]
        result = self.run_oryx("score", model, "--max-length", 12, stdin=json.dumps({"tokens": tokens}))
        self.assertEqual(result.stderr, "")
        by_windows = json.loads(result.stdout)["logprobs"]
        # Tokens 1 to 12 are predicted from all before them, and so on from the window's first; the last window is full.
        windows = "\n".join(json.dumps({"tokens": tokens[b:e]}) for b, e in ((0, 13), (12, 25), (17, 30)))
        a, b, c = (json.loads(line)["logprobs"] for line in self.ok("score", model, stdin=windows).splitlines())
        for got, expected in zip(by_windows[1:], a[1:] + b[1:] + c[8:], strict=True):
            self.assertAlmostEqual(got, expected, places=4)
        long = json.dumps({"tokens": tokens * 40})
        self.assertIn("1199 tokens; the model's training context is", self.run_oryx("score", model, stdin=long).stderr)

    def test_score_is_a_distribution(self):
        model = self.model()
        lines = "\n".join(json.dumps({"tokens": [5, 9, t]}) for t in range(64))
        out = self.ok("score", model, "--schedule", "recurrent:..1,attention:1..", stdin=lines)
        total = sum(math.exp(json.loads(line)["logprobs"][-1]) for line in out.splitlines())
        self.assertAlmostEqual(total, 1, places=4)

    def test_recall_run(self):
        recipe = self.write("recall.toml", RECALL)
        trained = self.ok_json("train", recipe, "--out", "run")
        self.assertEqual((trained["steps"], trained["tokens"]), (8, 2048))
        metrics = [json.loads(line) for line in (self.dir / "run/metrics.jsonl").read_text().splitlines()]
        for key in ("step", "tokens", "loss", "lr", "grad_norm", "tokens_per_s"):
            self.assertIn(key, metrics[0])
        self.assertIn("val_loss", metrics[-1])
        result = self.ok_json("eval", "recall", "run/model", "--schedule", "recurrent:..8,attention:8..", "--examples", 20)
        self.assertEqual(result["examples"], 20)
        self.assertEqual(result["attention_fraction"], 0.75)
        again = self.ok_json("train", recipe, "--out", "run", "--resume")
        self.assertTrue(again["finished"])

    def test_policies_on_recall(self):
        recipe = self.write("recall.toml", RECALL)
        self.ok("train", recipe, "--out", "run")
        report = self.ok_json("gate", "train", "run/model", recipe, "--tokens", 20000, "--width", 8)
        self.assertGreaterEqual(report["tokens"], 20000)
        self.assertEqual(set(report["caught"]), set(report["best"]))
        for fraction, part in report["best"].items():
            self.assertLessEqual(report["caught"][fraction] * report["mean_gain"], part * report["mean_gain"] + 1e-12)
        self.assertIn("run/model/gate.safetensors", self.ok("gate", "train", "run/model", recipe, "--tokens", 3000))
        for policy in ("entropy:0.25:4", "margin:0.25:4", "gate:0.25:4", "oracle:0.25:4"):
            result = self.ok_json("eval", "recall", "run/model", "--policy", policy, "--examples", 20)
            self.assertEqual(result["attention_fraction"], 0.25)
        one = self.ok_json("eval", "recall", "run/model", "--policy", "gate:1", "--examples", 20)
        self.assertEqual(one, self.ok_json("eval", "recall", "run/model", "--schedule", "attention", "--examples", 20))

    def test_joint_training(self):
        recipe = self.write("recall.toml", RECALL)
        self.ok("train", recipe, "--out", "run")
        weights = (self.dir / "run/model/model.safetensors").read_bytes()
        joint = ("gate", "train", "run/model", recipe, "--tokens", 3000, "--width", 8, "--joint", "--out", "joint")
        report = self.ok_json(*joint)
        self.assertEqual(set(report["val_loss"]["before"]), set(report["val_loss"]["after"]))
        self.assertIn("recurrent", report["val_loss"]["after"])
        self.assertEqual(weights, (self.dir / "run/model/model.safetensors").read_bytes())
        self.assertNotEqual(weights, (self.dir / "joint/model.safetensors").read_bytes())
        self.assertFalse((self.dir / "run/model/gate.safetensors").exists())
        self.ok("eval", "recall", "joint", "--policy", "gate:0.25:1", "--examples", 20)
        self.assertEqual(sorted(p.name for p in self.dir.glob("*joint*")), ["joint"])  # nothing half made
        self.bad("exists already", *joint)
        self.bad("go together", *joint[:-2])
        self.bad("go together", *joint[:-3], "--out", "other")

    def test_text_run(self):
        self.write("text.txt", book())
        recipe = self.write("text.toml", TEXT)
        self.ok("train", recipe, "--out", "run", "--set", "train.lr=1e-3")
        for schedule, fraction in (("attention", 1), ("recurrent", 0), ("alternate:8", None), ("tail:0.25", None)):
            result = self.ok_json("eval", "perplexity", "run/model", "text.txt", "--schedule", schedule, "--context", 32)
            self.assertAlmostEqual(result["perplexity"], math.exp(result["nats_per_token"]), places=3)
            self.assertGreater(result["tokens"], 500)
            self.assertGreater(result["bits_per_byte"], 0)
            if fraction is not None:
                self.assertEqual(result["attention_fraction"], fraction)
        one = self.ok_json("generate", "run/model", "--prompt", "the old", "--schedule", "recurrent:..6,attention:6..",
                           "--max-tokens", 12, "--temperature", 0.8, "--seed", 3)
        two = self.ok_json("generate", "run/model", "--prompt", "the old", "--schedule", "recurrent:..6,attention:6..",
                           "--max-tokens", 12, "--temperature", 0.8, "--seed", 3)
        self.assertEqual(one["tokens"], two["tokens"])
        self.assertEqual(len(one["tokens"]), len(one["mixers"]))
        nats = {}
        for choice in ("--schedule=recurrent", "--policy=entropy:0", "--policy=entropy:0.25:1", "--policy=oracle:0.25:1"):
            result = self.ok_json("eval", "perplexity", "run/model", "text.txt", choice, "--context", 32)
            nats[choice] = result["nats_per_token"]
        self.assertEqual(nats["--schedule=recurrent"], nats["--policy=entropy:0"])
        self.assertLess(nats["--policy=oracle:0.25:1"], nats["--policy=entropy:0.25:1"])
        one = self.ok_json("generate", "run/model", "--prompt", "the old house", "--policy", "margin:0.5:2", "--max-tokens", 30)
        self.assertEqual(one["policy"], "margin:0.5:2")
        self.assertEqual(set(one["mixers"]), {"attention", "recurrent"})
        self.assertGreater(one["attention_fraction"], 0.2)
        self.assertLessEqual(set(one["mixers"]), {"attention", "recurrent"})
        self.assertEqual(self.ok("generate", "run/model", "--prompt", "the old", "--max-tokens", 3)[-1], "\n")
        lines = [{"id": 1, "prompt": "the old", "max_tokens": 12}, {"prompt": "the river", "until": ["e", "zz"]}]
        written = [json.loads(x) for x in self.ok("generate", "run/model", "--requests", "-", "--schedule", "alternate:4",
                                                  stdin="\n".join(map(json.dumps, lines))).splitlines()]
        alone = self.ok_json("generate", "run/model", "--prompt", "the old", "--schedule", "alternate:4", "--max-tokens", 12)
        self.assertEqual((written[0]["id"], written[0]["tokens"], written[0]["text"]), (1, alone["tokens"], alone["text"]))
        self.assertNotIn("e", written[1]["text"])
        self.assertIn(written[1]["stop"], ("until", "end_of_text", "max_tokens"))
        cut = self.run_oryx("generate", "run/model", "--requests", "-", "--max-length", 6,
                            stdin=json.dumps({"prompt": "nobody came, nobody asked why", "max_tokens": 3}))
        self.assertEqual(json.loads(cut.stdout)["prompt_tokens"], 3)
        self.assertIn("1 prompts lost their beginning", cut.stderr)
        self.bad(["standard input:1", "'prompt'"], "generate", "run/model", "--requests", "-", stdin='{"promt": "x"}')
        self.bad("leaves no room", "generate", "run/model", "--prompt", "the", "--max-length", 6)
        whole = {"context": "the old house stood by the river", "continuation": " and the wind"}
        cut = self.run_oryx("score", "run/model", "--max-length", 8, stdin=json.dumps(whole))
        self.assertIn("1 sequences of more than 8 tokens lost their beginning", cut.stderr)
        lines = [{"context": "the old house ", "continuation": "stood by"}, {"context": "", "continuation": "the"},
                 {"text": "nobody came"}]
        out = [json.loads(x) for x in self.ok("score", "run/model", stdin="\n".join(map(json.dumps, lines))).splitlines()]
        self.assertAlmostEqual(out[0]["sum"], sum(out[0]["logprobs"]), places=6)
        self.assertIsInstance(out[0]["greedy"], bool)
        self.assertEqual(len(out[0]["tokens"]), len(out[0]["logprobs"]))
        self.assertEqual(len(out[1]["tokens"]), len(out[1]["logprobs"]))
        self.assertIsNone(out[2]["logprobs"][0])

    def test_standard_output_is_json_alone(self):
        result = self.run_oryx("eval", "recall", self.model(), "--vocab", 32, "--pairs", 4, "--length", 32, "--examples", 4,
                               "--json")
        json.loads(result.stdout)
        self.assertEqual(len(result.stdout.splitlines()), 1)

    def test_help(self):
        self.assertIn("generate", self.ok("--help"))
        self.assertIn("--schedule", self.ok("score", "--help"))


if __name__ == "__main__":
    unittest.main()
