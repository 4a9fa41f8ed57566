"""`oryx bench`: the JSON that others read, and bad input. No times are judged, only that they are plausible."""
import json
import math
import os
import subprocess
import unittest

from oryx_case import ORYX, OryxCase

ROW = ("op", "pass", "dtype", "T", "heads", "dim", "ms", "gflops", "fraction_of_ceiling", "tokens_per_s", "peak_bytes",
       "spread", "samples", "bound", "batch")
OPS = ("attention", "gated_delta_rule", "ssd", "mixed_gated_delta_rule", "mixed_ssd", "gated_delta_rule_step", "ssd_step",
       "attention_step", "short_conv", "rope", "gated_rms_norm", "linear_cross_entropy",
       "linear_cross_entropy_sum")


class Bench(OryxCase):
    def test_everything_quick(self):
        result = self.ok_json("bench", "ops", "--quick", "--threads", 2)
        self.assertEqual((result["device"], result["threads"]), ("cpu", 2))
        for key in ("fp32_gflops", "bf16_gflops", "read_gb_per_s"):
            for when in ("ceilings", "ceilings_after"):
                self.assertGreater(result[when][key], 0.1)
        self.assertGreaterEqual(result["ceilings"]["bf16_gflops"], result["ceilings"]["fp32_gflops"])
        rows = result["rows"]
        self.assertEqual({r["op"] for r in rows}, {*OPS, "linear"})
        self.assertEqual({(r["pass"], r["dtype"]) for r in rows if r["op"] == "ssd"},
                         {(p, d) for p in ("forward", "forward+backward") for d in ("fp32", "bf16")})
        for row in rows:
            with self.subTest(row=row):
                self.assertLessEqual(set(ROW), set(row))
                for key in ("ms", "fraction_of_ceiling", "tokens_per_s"):
                    self.assertTrue(math.isfinite(row[key]) and row[key] > 0, key)
                if row["bound"] == "flops":
                    self.assertGreater(row["gflops"], 0)
                else:
                    self.assertGreater(row["gb_per_s"], 0)
                self.assertGreaterEqual(row["samples"], 3)
                self.assertGreaterEqual(row["spread"], 0)
                self.assertTrue(row["peak_bytes"] is None or row["peak_bytes"] >= 0)
                if row["T"] > 1 and row["op"] != "attention_step":
                    self.assertAlmostEqual(row["tokens_per_s"] * row["ms"] / 1e3, row["T"], places=3)
        grown = {(g["op"], g["pass"], g["dtype"]) for g in result["growth"]}
        self.assertIn(("ssd", "forward+backward", "bf16"), grown)
        self.assertTrue(all(math.isfinite(g["exponent"]) for g in result["growth"]))
        self.assertEqual(len(result["mixed"]), sum(r["op"].startswith("mixed") for r in rows))
        self.assertTrue(all(m["ratio_to_sum"] > 0 for m in result["mixed"]))
        for row in rows:
            if row["op"].startswith("linear_cross_entropy"):
                self.assertGreater(row["fraction_of_library"], 0)

    def test_choices(self):
        result = self.ok_json("bench", "ops", "--quick", "--ops", "ssd,rope", "--lengths", "32,48", "--dims", "16", "--heads", 3,
                              "--dtypes", "bf16", "--passes", "forward")
        self.assertEqual([(r["op"], r["T"], r["heads"], r["dim"], r["dtype"]) for r in result["rows"]],
                         [("ssd", 32, 3, 16, "bf16"), ("ssd", 48, 3, 16, "bf16"), ("rope", 48, 3, 16, "bf16")])
        rows = self.ok_json("bench", "ops", "--quick", "--ops", "rope", "--dtype", "bf16")["rows"]
        self.assertEqual({r["dtype"] for r in rows}, {"bf16"})

    def test_tables(self):
        text = self.ok("bench", "ops", "--quick", "--ops", "ssd,rope")
        for title in ("GFLOP/s", "## Bound by arithmetic", "## Bound by memory", "## Growth with T", "## Formulas"):
            self.assertIn(title, text)

    def test_threads_of_the_environment(self):
        environment = dict(os.environ, OMP_NUM_THREADS="1")
        run = subprocess.run([ORYX, "bench", "ops", "--quick", "--ops", "rope", "--json"], env=environment, cwd=self.dir,
                             capture_output=True, text=True, check=True)
        self.assertEqual(json.loads(run.stdout)["threads"], 1)

    def test_accuracy(self):
        result = self.ok_json("bench", "accuracy", "--quick", "--ops", "rope,ssd", "--dtype", "bf16")
        self.assertEqual({(r["op"], r["dtype"]) for r in result["rows"]}, {("rope", "bf16"), ("ssd", "bf16")})
        self.assertEqual(result["failed"], 0)
        text = self.ok("bench", "accuracy", "--quick", "--ops", "rope")
        self.assertIn("| rope | positions from 0 | fp32 |", text)

    def test_train(self):
        trace = self.dir / "trace.json"
        result = self.ok_json("bench", "train", "oryx-gdn-tiny", "--quick", "--threads", 2, "--trace", trace)
        (row,) = result["rows"]
        flops = self.ok_json("info", "oryx-gdn-tiny")["flops_per_token"]
        self.assertEqual((row["preset"], row["precision"], row["T"], row["batch_tokens"]), ("oryx-gdn-tiny", "bf16", 64, 128))
        self.assertTrue(0 <= row["attention_fraction"] <= 1)
        self.assertGreaterEqual(row["samples"], 3)
        self.assertAlmostEqual(row["tokens_per_s"] * row["ms"] / 1e3, 128)
        self.assertAlmostEqual(row["gflops"], row["tokens_per_s"] * row["flops_per_token"] / 1e9)
        self.assertAlmostEqual(row["fraction_of_ceiling"], row["gflops"] / max(
            result["ceilings"][key] for key in ("bf16_gflops", "bf16_library_gflops")))
        # At 64 tokens attention does a sixteenth of what it does at the 1024 of the preset.
        self.assertTrue(0 < row["flops_per_token"] < 3 * max(flops.values()))
        self.assertGreater(row["peak_bytes"], 3 * 4 * row["parameters"])  # weights and two moments, if nothing else
        names = {r["name"]: r for r in result["trace"]["rows"]}
        for name in ("oryx::gated_delta_rule", "oryx::attention", "aten::mm"):
            self.assertGreater(names[name]["calls"], 0)
        self.assertAlmostEqual(sum(r["share"] for r in names.values()), 1)
        self.assertTrue(all(r["ms"] > -0.01 for r in names.values()))
        self.assertGreater(len(json.loads(trace.read_text())["traceEvents"]), 100)
        self.assertLess(result["trace"]["ms"], 3 * row["ms"] + 50)

    def test_train_of_a_size(self):
        text = self.ok("bench", "train", "tiny", "--quick", "--dtype", "fp32", "--length", 32, "--batch", 96)
        rows = [[c.strip() for c in line.split("|")[1:-1]] for line in text.splitlines() if "-tiny" in line]
        self.assertEqual([r[:5] for r in rows if not r[0].startswith("oryx")],
                         [[f"{k}-tiny", "fp32", f"{f}%", "32", "96"] for k, f in (("transformer", 100), ("mamba2", 0), ("gdn", 0))])
        self.assertEqual(len(rows), 5)
        rows = self.ok_json("bench", "train", "oryx-gdn-tiny", "--quick", "--mixing", "recurrent", "--set",
                            "train.optimizer=muon")["rows"]
        self.assertEqual((rows[0]["attention_fraction"], rows[0]["mixing"]), (0, "recurrent"))
        result = self.ok_json("bench", "train", "gdn-tiny", "--quick", "--set", "train.precision=fp32")
        (row,) = result["rows"]
        self.assertEqual(row["precision"], "fp32")
        self.assertAlmostEqual(row["fraction_of_ceiling"], row["gflops"] / max(
            result["ceilings"][key] for key in ("fp32_gflops", "fp32_library_gflops")))

    def test_bad_input(self):
        self.bad(["gdn-10n", "did you mean"], "bench", "train", "gdn-10n")
        self.bad(["--batch", "multiple"], "bench", "train", "--batch", 1000)
        self.bad("--length", "bench", "train", "--length", -1)
        self.bad("one preset", "bench", "train", "tiny", "--trace", "t.json")
        self.bad("too short to measure", "bench", "train", "tiny", "--set", "train.tokens=8192")
        self.bad("mixng", "bench", "train", "--set", "mixng.chunk=3")
        self.bad("strategy", "bench", "train", "--mixing", "both")
        self.bad("/nowhere/t.json", "bench", "train", "gdn-tiny", "--quick", "--trace", "/nowhere/t.json")
        self.bad(["rop", "did you mean 'rope'"], "bench", "accuracy", "--ops", "rop")
        self.bad("fp64", "bench", "accuracy", "--dtypes", "fp64")
        self.bad("", "bench")
        self.bad(["atention", "did you mean 'attention'", "ssd_step"], "bench", "ops", "--ops", "atention")
        self.bad("--lengths", "bench", "ops", "--lengths", "0")
        self.bad("", "bench", "ops", "--lengths", "x")
        self.bad("--dims", "bench", "ops", "--dims", "5")
        self.bad("", "bench", "ops", "--heads", "-1")
        self.bad(["backward", "forward+backward"], "bench", "ops", "--passes", "backward")
        self.bad("fp64", "bench", "ops", "--dtypes", "fp64")


if __name__ == "__main__":
    unittest.main()
