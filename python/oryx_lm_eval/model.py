"""The `oryx` model of lm-evaluation-harness: `oryx score` and `oryx generate`, JSON lines in and out."""
import json
import logging
import shutil
import subprocess
import tempfile

import lm_eval.models  # noqa: F401  (the registry takes itself for complete once it holds a model)
from lm_eval.api.model import LM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import normalize_gen_kwargs
from tqdm import tqdm

log = logging.getLogger(__name__)


@register_model("oryx")
class OryxLM(LM):
    """A model directory under one schedule or policy.

    path        the model directory
    binary      the oryx program (default: the one in PATH)
    schedule    mixer of each token, e.g. recurrent, tail:0.1; or
    policy      what decides it instead
    max_length  tokens that a prediction may be made from. Left out, nothing is ever cut: contexts longer than the
                training context are read whole, and only loglikelihood_rolling goes by windows of that length.
                Given, contexts lose their beginning, as with the harness's own models.
    gpu         true: --device cuda
    dtype, threads   as the program's options
    """

    def __init__(self, path, binary="oryx", schedule=None, policy=None, max_length=None, max_gen_toks=256, dtype="fp32",
                 gpu=False, threads=None, device=None, batch_size=None, max_batch_size=None):
        super().__init__()
        # Batches are packed by tokens; the harness's --device is cuda:0 unless somebody says otherwise.
        del device, batch_size, max_batch_size
        self.path, self.binary, self.max_gen_toks = str(path), shutil.which(str(binary)), max_gen_toks
        if self.binary is None:
            raise ValueError(f"binary={binary}: no such program; give the path of oryx, e.g. build/release/oryx")
        with open(f"{self.path}/config.json", encoding="utf-8") as file:
            self.context = json.load(file)["max_position_embeddings"]
        self.max_length = max_length
        options = {"--schedule": schedule, "--policy": policy, "--dtype": dtype, "--threads": threads,
                   "--device": "cuda" if gpu else None}
        self.options = [str(x) for item in options.items() if item[1] is not None for x in item]

    @property
    def tokenizer_name(self):
        return self.path

    def get_model_info(self):
        return {"oryx_options": " ".join(self.options)}

    def loglikelihood(self, requests, disable_tqdm=False):
        lines = []
        for context, continuation in (request.args for request in requests):
            # As the harness's own models do: whitespace at the border goes with the token that it begins.
            bare = context.rstrip()
            lines.append({"context": bare, "continuation": context[len(bare):] + continuation})
        results = [(r["sum"], r["greedy"]) for r in self._run("score", lines, self.max_length, disable_tqdm)]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood", request.args, result)
        return results

    def loglikelihood_rolling(self, requests, disable_tqdm=False):
        texts = [request.args[0] for request in requests]
        lines = [{"context": "", "continuation": text} for text in texts if text]
        sums = (r["sum"] for r in self._run("score", lines, self.max_length or self.context, disable_tqdm))
        results = [next(sums) if text else 0.0 for text in texts]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("loglikelihood_rolling", request.args, result)
        return results

    def generate_until(self, requests, disable_tqdm=False):
        lines = []
        for context, arguments in (request.args for request in requests):
            wanted = normalize_gen_kwargs(arguments, self.max_gen_toks)
            unknown = wanted.keys() - {"until", "max_gen_toks", "do_sample", "temperature"}
            if unknown:
                raise ValueError(f"generation argument '{min(unknown)}' is not supported by --model oryx; it takes "
                                 "until, max_gen_toks, do_sample and temperature")
            lines.append({"prompt": context, "max_tokens": wanted["max_gen_toks"], "until": wanted["until"],
                          "temperature": wanted.get("temperature", 0)})
        results = [r["text"] for r in self._run("generate", lines, self.max_length, disable_tqdm)]
        for request, result in zip(requests, results, strict=True):
            self.cache_hook.add_partial("generate_until", request.args, result)
        return results

    def _run(self, command, lines, max_length, disable_tqdm):
        """One process for all requests: the harness asks for everything of a kind at once."""
        if not lines:
            return []
        arguments = [self.binary, command, self.path, *self.options]
        if max_length is not None:
            arguments += ["--max-length", str(max_length)]
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", suffix=".jsonl") as file:
            for line in lines:
                file.write(json.dumps(line) + "\n")
            file.flush()
            arguments += [file.name] if command == "score" else ["--requests", file.name]
            with tempfile.TemporaryFile("w+", encoding="utf-8") as messages:
                with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=messages, text=True,
                                      encoding="utf-8") as process:
                    progress = tqdm(process.stdout, f"oryx {command}", len(lines), disable=disable_tqdm)
                    results = [json.loads(line) for line in progress]
                messages.seek(0)
                said = messages.read().strip()
        if process.returncode != 0:
            raise RuntimeError(said or f"oryx {command} ended with status {process.returncode}")
        if said:  # contexts that were cut, or longer than the training context
            log.warning("%s", said)
        return results
