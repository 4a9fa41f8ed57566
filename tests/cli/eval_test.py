"""oryx eval TASK... MODEL: results as table, JSON and lines; sweeps; bad input."""
import json
import shutil
import unittest

from oryx_case import TEXT, OryxCase, book

CHOICES = [{"id": f"q{i}", "context": f"the old house number {i} stood by", "choices": ["the river", "a wind that went", "why"],
            "answer": i % 3} for i in range(12)]
FACTS = [{"context": f"house: river {i}\nwind: night", "question": "house", "answers": [f"river {i}"]} for i in range(6)]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


class Eval(OryxCase):
    def setUp(self):
        super().setUp()
        self.write("text.txt", book())
        self.write("recipe.toml", TEXT)
        self.ok("train", "recipe.toml", "--out", "run")
        self.model_dir = self.dir / "run" / "model"

    def evaluate(self, *args):
        return self.ok_json("eval", *args)

    def test_list(self):
        names = {task["name"] for task in self.ok_json("eval", "list")}
        self.assertLessEqual({"lambada", "hellaswag", "piqa", "arc_easy", "arc_challenge", "openbookqa", "winogrande", "blimp",
                              "wikitext", "squad", "nq_open", "triviaqa", "drop", "factbook"}, names)
        self.assertIn("hellaswag", self.ok("eval", "list"))

    def test_choices_agree_with_score(self):
        data = self.write("choices.jsonl", lines(CHOICES))
        for schedule in ("attention", "recurrent", "tail:0.4", "recurrent:..6,attention:6.."):
            result = self.evaluate("piqa", self.model_dir, "--data", data, "--schedule", schedule, "--examples-out", "out.jsonl")
            result = result["piqa"]
            out = [json.loads(line) for line in (self.dir / "out.jsonl").read_text().splitlines()]
            requests = [{"context": f"Question: {row['context']}\nAnswer:", "continuation": " " + choice}
                        for row in CHOICES for choice in row["choices"]]
            scores = [json.loads(line)["sum"] for line in
                      self.ok("score", self.model_dir, "--schedule", schedule, stdin=lines(requests)).splitlines()]
            acc, norm = [], []
            for i, (row, line) in enumerate(zip(CHOICES, out)):
                own = scores[3 * i:3 * i + 3]
                for got, want in zip(line["logprobs"], own):
                    self.assertAlmostEqual(got, want, delta=1e-4)
                self.assertEqual(line["prediction"], own.index(max(own)))
                self.assertEqual((line["id"], line["answer"], line["prompt"]),
                                 (row["id"], row["answer"], requests[3 * i]["context"]))
                by_length = [x / len(choice) for x, choice in zip(own, row["choices"])]
                acc.append(line["prediction"] == row["answer"])
                norm.append(by_length.index(max(by_length)) == row["answer"])
                self.assertEqual(line["score"], acc[-1])
            n = len(CHOICES)
            self.assertEqual(result["n"], n)
            for name, values in (("acc", acc), ("acc_norm", norm)):
                mean = sum(values) / n
                self.assertAlmostEqual(result[name], mean)
                variance = sum((x - mean) ** 2 for x in values) / (n - 1)
                self.assertAlmostEqual(result[name + "_stderr"], (variance / n) ** 0.5)
            self.assertEqual(result["stderr"], result["acc_stderr"])
            fraction = {"attention": 1.0, "recurrent": 0.0}.get(schedule)
            if fraction is not None:
                self.assertEqual(result["attention_fraction"], fraction)
            else:
                self.assertTrue(0.1 < result["attention_fraction"] < 0.9)

    def test_every_task_runs(self):
        both = self.evaluate("language_modelling", "retrieval", self.model_dir, "--limit", "2", "--schedule", "alternate:16")
        self.assertGreaterEqual(len(both), 14)
        for name, result in both.items():
            self.assertEqual(result["n"], 2, name)
            self.assertIn("stderr", result)
        self.assertIn("perplexity", both["lambada"])
        self.assertIn("bits_per_byte", both["wikitext"])
        for name in ("squad", "triviaqa", "factbook"):
            self.assertLessEqual({"acc", "contains", "exact_match", "f1"}, set(both[name]))
        more = self.evaluate("in_context", self.model_dir, "--context", "32", "--limit", "2")
        self.assertEqual(more["position_loss"]["positions"][-1]["from"], 32)
        self.assertIn("repeated_nats", more["repeated_text"])

    def test_shots(self):
        data = self.write("choices.jsonl", lines(CHOICES))

        def prompts(*more):
            self.evaluate("piqa", self.model_dir, "--data", data, "--shots", "3", "--examples-out", "out.jsonl", *more)
            return [json.loads(line)["prompt"] for line in (self.dir / "out.jsonl").read_text().splitlines()]

        shown = prompts("--seed", "5")
        self.assertEqual(shown, prompts("--seed", "5"))
        self.assertNotEqual(shown, prompts("--seed", "6"))
        answered = [f"Question: {row['context']}\nAnswer: {row['choices'][row['answer']]}" for row in CHOICES]
        for row, own, prompt in zip(CHOICES, answered, shown):
            *shots, last = prompt.split("\n\n")
            self.assertEqual(last, f"Question: {row['context']}\nAnswer:")
            self.assertEqual(len(set(shots)), 3)
            self.assertLessEqual(set(shots), set(answered) - {own})

    def test_question_schedule_and_generation(self):
        data = self.write("facts.jsonl", lines(FACTS))
        result = self.evaluate("factbook", self.model_dir, "--data", data, "--schedule", "question", "--examples-out", "out.jsonl")
        self.assertTrue(0 < result["factbook"]["attention_fraction"] < 1)
        for line in (self.dir / "out.jsonl").read_text().splitlines():
            self.assertRegex(json.loads(line)["schedule"], r"^recurrent:\.\.\d+,attention:\d+\.\.$")

    def test_sweep(self):
        data = self.write("choices.jsonl", lines(CHOICES))
        points = self.evaluate("hellaswag", self.model_dir, "--data", data, "--sweep", "fraction=0,0.25,1", "--where", "tail,every",
                               "--where", "question", "--html", "sweep.html")["hellaswag"]["sweep"]
        self.assertEqual([(p["where"], p["fraction"]) for p in points if p["where"] != "question"],
                         [(where, f) for where in ("tail", "every") for f in (0, 0.25, 1)])
        by_place = {(p["where"], p["fraction"]): p for p in points if p["where"] != "question"}
        for mode, fraction in (("recurrent", 0), ("attention", 1)):
            alone = self.evaluate("hellaswag", self.model_dir, "--data", data, "--schedule", mode)["hellaswag"]
            for where in ("tail", "every"):
                self.assertEqual(by_place[where, fraction]["acc"], alone["acc"])
                self.assertEqual(by_place[where, fraction]["attention_fraction"], fraction)
        page = (self.dir / "sweep.html").read_text()
        self.assertIn("<svg", page)
        self.assertIn("hellaswag", page)

    def test_bad_input(self):
        model = self.model_dir
        data = self.write("choices.jsonl", lines(CHOICES))
        self.bad("eval list", "eval")
        self.bad("eval list", "eval", "hellaswag")
        self.bad(["helaswag", "hellaswag"], "eval", "helaswag", model)
        self.bad("none.jsonl", "eval", "hellaswag", model, "--data", "none.jsonl")
        self.bad("nowhere", "eval", "hellaswag", "nowhere")
        self.bad("one task", "eval", "hellaswag", "piqa", model, "--data", data)
        self.bad(["choices.jsonl:1", "answers"], "eval", "lambada", model, "--data", data)
        for line in ("{", '{"choices": ["a", "b"], "answer": 2}', '{"context": "x"}', '{"context": 1, "answers": ["a"]}'):
            wrong = self.write("wrong.jsonl", lines(CHOICES) + line + "\n")
            self.bad("wrong.jsonl:13", "eval", "hellaswag", model, "--data", wrong)
        self.bad("atention", "eval", "piqa", model, "--schedule", "atention")
        for sweep in ("0,1", "fraction=", "fraction=0,x", "fraction=0,1.5", "fraction=-0.1"):
            self.bad("--sweep", "eval", "piqa", model, "--sweep", sweep)
        self.bad(["tale", "tail"], "eval", "piqa", model, "--sweep", "fraction=0", "--where", "tale")
        self.bad("--sweep", "eval", "piqa", model, "--where", "tail")
        self.bad("--schedule", "eval", "piqa", model, "--sweep", "fraction=0", "--schedule", "attention")
        self.bad("--shots", "eval", "piqa", model, "--data", data, "--shots", "12")
        self.bad("--shots", "eval", "wikitext", model, "--shots", "1")
        self.bad("--limit", "eval", "piqa", model, "--limit", "0")
        self.bad("context", "eval", "position_loss", model, "--context", "1000000")
        self.ok("init", "transformer-tiny", "t", "--vocab", "512")
        self.bad("tokenizer", "eval", "piqa", "t")
        shutil.copy(model / "tokenizer.model", self.dir / "t")
        self.bad("attention", "eval", "piqa", "t", "--schedule", "recurrent")
        self.bad("recurrent", "eval", "piqa", "t", "--sweep", "fraction=0.5")


if __name__ == "__main__":
    unittest.main()
