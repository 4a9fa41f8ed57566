"""Model directories as Hugging Face's safetensors sees them: usage: test_safetensors.py path/to/oryx"""

import json
import math
import pathlib
import shutil
import subprocess
import sys
import tempfile
import unittest

from optional import require

require("torch", "numpy", "safetensors.torch")

import safetensors.torch  # noqa: E402
import torch  # noqa: E402

VARIANTS = {
    "oryx-gdn": ["attention", "gated_deltanet"],
    "oryx-mamba2": ["attention", "mamba2"],
    "transformer": ["attention"],
    "mamba2": ["mamba2"],
    "gdn": ["gated_deltanet"],
}
VOCAB = 97


def oryx(*arguments, stdin=""):
    return subprocess.run([ORYX, *map(str, arguments)], input=stdin, capture_output=True, text=True, timeout=120)


def expected_shapes(config):
    """Names and shapes that config.json promises."""
    width, vocab, inner = config["hidden_size"], config["vocab_size"], config["intermediate_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    keys, values, kernel = config["head_dim"], config["value_head_dim"], config["conv_kernel"]
    shapes = {"model.embed_tokens.weight": [vocab, width], "model.norm.weight": [width]}
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = [vocab, width]
    per_layer = {
        "mixer_norm.weight": [width],
        "mlp_norm.weight": [width],
        "mixer.k_proj.weight": [kv_heads * keys, width],
        "mixer.k_conv.weight": [kv_heads * keys, kernel],
        "mixer.v_proj.weight": [kv_heads * values, width],
        "mixer.v_conv.weight": [kv_heads * values, kernel],
        "mixer.gate_proj.weight": [heads * values, width],
        "mixer.o_norm.weight": [values],
        "mixer.o_proj.weight": [width, heads * values],
        "mlp.gate_proj.weight": [inner, width],
        "mlp.up_proj.weight": [inner, width],
        "mlp.down_proj.weight": [width, inner],
    }
    if "attention" in config["mixers"]:
        per_layer["mixer.attention.q_proj.weight"] = [heads * keys, width]
        per_layer["mixer.attention.scale"] = [heads]
    if config["mixers"] != ["attention"]:
        per_layer["mixer.recurrent.q_proj.weight"] = [heads * keys, width]
        per_layer["mixer.recurrent.a_proj.weight"] = [kv_heads, width]
        per_layer["mixer.recurrent.A_log"] = [kv_heads]
        per_layer["mixer.recurrent.dt_bias"] = [kv_heads]
    if "gated_deltanet" in config["mixers"]:
        per_layer["mixer.recurrent.b_proj.weight"] = [kv_heads, width]
    if "mamba2" in config["mixers"]:
        per_layer["mixer.recurrent.scale"] = [heads]
        per_layer["mixer.recurrent.D"] = [heads]
    for layer in range(config["num_hidden_layers"]):
        shapes.update({f"model.layers.{layer}.{name}": shape for name, shape in per_layer.items()})
    return shapes


class ModelDirectories(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="oryx-safetensors-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def init(self, preset, *settings, name="model"):
        model = self.folder / name
        made = oryx("init", preset, model, "--seed", 1, "--vocab", VOCAB, *settings)
        self.assertEqual(made.returncode, 0, made.stderr)
        return model

    def test_names_shapes_and_dtypes(self):
        for variant, mixers in VARIANTS.items():
            for dtype in (torch.float32, torch.bfloat16):
                name = str(dtype).removeprefix("torch.")
                with self.subTest(variant=variant, dtype=name):
                    model = self.init(f"{variant}-tiny", "--set", f"dtype={name}", name=f"{variant}-{name}")
                    config = json.loads((model / "config.json").read_text())
                    self.assertEqual(config["model_type"], "oryx")
                    self.assertEqual(config["architectures"], ["OryxForCausalLM"])
                    self.assertEqual(config["mixers"], mixers)
                    self.assertEqual(config["vocab_size"], VOCAB)
                    weights = safetensors.torch.load_file(model / "model.safetensors")
                    self.assertEqual({n: list(w.shape) for n, w in weights.items()}, expected_shapes(config))
                    self.assertEqual({w.dtype for w in weights.values()}, {dtype})
                    self.check_initialisation(weights, config)

    def check_initialisation(self, weights, config):
        for name, weight in weights.items():
            self.assertTrue(torch.isfinite(weight.float()).all(), name)
        embedding = weights["model.embed_tokens.weight"].float()
        self.assertAlmostEqual(embedding.std().item(), config["initializer_range"], delta=0.003)
        self.assertTrue((weights["model.norm.weight"] == 1).all())
        a_log = weights.get("model.layers.0.mixer.recurrent.A_log")
        if a_log is not None:
            self.assertTrue(((a_log >= 0) & (a_log <= math.log(16) + 0.01)).all(), "A is drawn from [1, 16]")

    def test_total_is_what_info_says(self):
        model = self.init("oryx-mamba2-tiny")
        weights = safetensors.torch.load_file(model / "model.safetensors")
        info = json.loads(oryx("info", model, "--json").stdout)
        self.assertEqual(info["parameters"]["total"], sum(w.numel() for w in weights.values()))

    def score(self, model, schedule):
        generator = torch.Generator().manual_seed(0)
        lines = [
            json.dumps({"id": f"s{i}", "tokens": torch.randint(0, VOCAB, (n,), generator=generator).tolist()})
            for i, n in enumerate((2, 31, 70))
        ]
        done = oryx("score", model, "-", "--schedule", schedule, "--json", stdin="\n".join(lines) + "\n")
        self.assertEqual(done.returncode, 0, done.stderr)
        scores = [json.loads(line) for line in done.stdout.splitlines()]
        self.assertEqual([s["id"] for s in scores], ["s0", "s1", "s2"])
        for score, n in zip(scores, (2, 31, 70)):
            self.assertEqual(len(score["logprobs"]), n)
            self.assertIsNone(score["logprobs"][0])
            self.assertTrue(all(p < 0 for p in score["logprobs"][1:]))
        return scores

    def shard(self, model):
        """The same weights in two files and an index, as Hugging Face writes large models."""
        copy = self.folder / "sharded"
        copy.mkdir()
        shutil.copy(model / "config.json", copy)
        weights = safetensors.torch.load_file(model / "model.safetensors")
        names = sorted(weights)
        files = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
        for file, part in files.items():
            safetensors.torch.save_file({n: weights[n] for n in part}, copy / file, metadata={"format": "pt"})
        size = sum(w.numel() * w.element_size() for w in weights.values())
        index = {"metadata": {"total_size": size}, "weight_map": {n: f for f, part in files.items() for n in part}}
        (copy / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
        return copy

    def test_sharded_copy_reads_the_same(self):
        model = self.init("oryx-gdn-tiny")
        copy = self.shard(model)
        info, info_copy = (json.loads(oryx("info", m, "--json").stdout) for m in (model, copy))
        for key in ("parameters", "tie_ratio", "flops_per_token", "cache_bytes_per_token", "state_bytes"):
            self.assertEqual(info[key], info_copy[key])
        schedules = ("attention", "recurrent", "alternate:8", "tail:0.3")
        scores = {s: self.score(model, s) for s in schedules}
        self.assertNotEqual(scores["attention"], scores["recurrent"])
        for schedule in schedules:
            self.assertEqual(scores[schedule], self.score(copy, schedule), schedule)

    def test_incomplete_shards_are_refused(self):
        copy = self.shard(self.init("oryx-gdn-tiny"))
        missing = copy / "model-00002-of-00002.safetensors"
        missing.rename(self.folder / "elsewhere")
        done = oryx("score", copy, "-", "--schedule", "attention", stdin='{"tokens": [1, 2]}\n')
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(missing.name, done.stderr)
        self.assertEqual(len(done.stderr.strip().splitlines()), 1, done.stderr)

    def test_a_tensor_of_another_shape_is_refused(self):
        model = self.init("oryx-gdn-tiny")
        weights = safetensors.torch.load_file(model / "model.safetensors")
        name = "model.layers.0.mixer.k_proj.weight"
        weights[name] = weights[name][:-1].clone()
        safetensors.torch.save_file(weights, model / "model.safetensors")
        done = oryx("score", model, "-", "--schedule", "attention", stdin='{"tokens": [1, 2]}\n')
        self.assertEqual(done.returncode, 2, done.stderr)
        self.assertIn(name, done.stderr)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    ORYX = str(pathlib.Path(sys.argv.pop(1)).resolve())
    unittest.main(verbosity=2)
