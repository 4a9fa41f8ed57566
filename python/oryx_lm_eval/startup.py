"""Makes `--model oryx` known to lm-evaluation-harness, which has no entry point for models of other packages.

A .pth file imports this whenever Python starts, so it imports nothing itself: it waits for `lm_eval.models`, the module
that registers the harness's own models, and registers ours after them.
"""
import sys


class _AfterModels:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if name != "lm_eval.models":
            return None
        sys.meta_path.remove(_AfterModels)
        from importlib.util import find_spec

        spec = find_spec(name)
        if spec is None:
            return None
        execute = spec.loader.exec_module

        def execute_and_register(module):
            execute(module)
            import oryx_lm_eval.model  # noqa: F401

        spec.loader.exec_module = execute_and_register
        return spec


sys.meta_path.insert(0, _AfterModels)
