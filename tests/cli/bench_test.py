"""`oryx bench`: the JSON that others read, and bad input. No times are judged, only that they are plausible."""
import math
import unittest

from oryx_case import OryxCase

ROW = ("op", "pass", "dtype", "T", "heads", "dim", "ms", "gflops", "fraction_of_ceiling", "tokens_per_s", "peak_bytes",
       "spread", "samples", "bound", "batch")
OPS = ("attention", "gated_delta_rule", "ssd", "mixed_gated_delta_rule", "mixed_ssd", "gated_delta_rule_step", "ssd_step",
       "attention_step", "short_conv", "rope", "gated_rms_norm", "linear_cross_entropy")


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
            if row["op"] == "linear_cross_entropy":
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

    def test_accuracy(self):
        result = self.ok_json("bench", "accuracy", "--quick", "--ops", "rope,ssd", "--dtype", "bf16")
        self.assertEqual({(r["op"], r["dtype"]) for r in result["rows"]}, {("rope", "bf16"), ("ssd", "bf16")})
        self.assertEqual(result["failed"], 0)
        text = self.ok("bench", "accuracy", "--quick", "--ops", "rope")
        self.assertIn("| rope | positions from 0 | fp32 |", text)

    def test_bad_input(self):
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
