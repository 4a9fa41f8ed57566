"""Oryx models in lm-evaluation-harness; `oryx_lm_eval.model` holds the class."""
