"""Kills training at random moments, checkpoint writes included, and resumes it: kill_test.py ORYX [--kills N].

Every resume must succeed and lose at most an interval between checkpoints, and the run must end with the weights and the
losses of one that was never disturbed.
"""
import argparse
import json
import pathlib
import random
import re
import shutil
import signal
import subprocess
import tempfile
import time

from oryx_case import RECALL

STEPS, EVERY = 400, 10  # of a run; between checkpoints
RECIPE = (RECALL.replace("tokens = 2048", f"tokens = {256 * STEPS}").replace("log_every = 2", "log_every = 1")
          + f"checkpoint_every = {EVERY}\neval_every = 40\neval_tokens = 256\n")


def metrics(run):
    path = run / "metrics.jsonl"
    lines = []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            lines.append({k: v for k, v in json.loads(line).items() if k != "tokens_per_s"})
        except json.JSONDecodeError:
            pass  # cut short by the kill
    return lines


def checkpoints(run):
    folder = run / "checkpoints"
    return sorted(int(p.name[5:]) for p in folder.iterdir() if re.fullmatch(r"step-\d+", p.name)) if folder.exists() else []


class Kills:
    def __init__(self, oryx, seed):
        self.oryx, self.random = oryx, random.Random(seed)
        self.dir = pathlib.Path(tempfile.mkdtemp(prefix="oryx_kill_"))
        self.recipe = self.dir / "recipe.toml"
        self.recipe.write_text(RECIPE)
        self.during_write, self.lost, self.runs = 0, [], 0

    def start(self, run):
        return subprocess.Popen([self.oryx, "train", self.recipe, "--out", run, "--resume", "--threads", "1"],
                                stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def finish(self, run):
        process = self.start(run)
        error = process.communicate(timeout=300)[1]
        assert process.returncode == 0, f"exit {process.returncode}: {error}"

    def kill(self, run):
        """One start and one kill; whether the run had ended before."""
        before = len(metrics(run))
        process = self.start(run)
        log = run / "metrics.jsonl"
        stamp = log.stat().st_mtime_ns if log.exists() else 0
        if self.random.random() < 0.8:  # once training is under way; else at any moment, loading included
            deadline = time.monotonic() + 60
            while process.poll() is None and time.monotonic() < deadline:
                if log.exists() and log.stat().st_mtime_ns != stamp and len(metrics(run)) != before:
                    break
                time.sleep(0.005)
        time.sleep(self.random.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        error = process.communicate()[1]
        assert process.returncode in (0, -signal.SIGKILL), f"a resume failed with {process.returncode}: {error}"
        if process.returncode == 0:
            return True
        lines, saved = metrics(run), checkpoints(run)
        step, newest = (lines[-1]["step"] if lines else 0), (saved[-1] if saved else 0)
        self.during_write += any(p.name.startswith(".step") for p in (run / "checkpoints").glob(".*"))
        self.lost.append(step - newest)
        assert step - newest <= EVERY, f"killed at step {step}, the newest checkpoint is of {newest}"
        return False

    def check_equal(self, run, whole):
        same = (run / "model/model.safetensors").read_bytes() == (whole / "model/model.safetensors").read_bytes()
        assert same, "the weights differ from those of the run that was not disturbed"
        assert metrics(run) == metrics(whole), "the losses differ from those of the run that was not disturbed"
        left = [p.name for p in [*run.glob(".*"), *(run / "checkpoints").glob(".*")]]
        assert not left, f"left behind: {left}"

    def run(self, kills):
        whole = self.dir / "whole"
        self.finish(whole)
        done = 0
        while done < kills:
            run = self.dir / f"run-{self.runs}"
            self.runs += 1
            while done < kills and not self.kill(run):
                done += 1
            self.finish(run)
            self.check_equal(run, whole)
            shutil.rmtree(run)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    from oryx_case import ORYX
    test = Kills(ORYX, options.seed)
    begin = time.monotonic()
    try:
        test.run(options.kills)
    finally:
        shutil.rmtree(test.dir, ignore_errors=True)
    lost = sorted(test.lost)
    print(f"{len(lost)} kills over {test.runs} runs of {STEPS} steps, {test.during_write} while a checkpoint was being written: "
          f"every resume succeeded, weights and losses as undisturbed; steps lost: median {lost[len(lost) // 2]}, most "
          f"{lost[-1]} (checkpoint_every = {EVERY}); {time.monotonic() - begin:.0f} s")


if __name__ == "__main__":
    main()
