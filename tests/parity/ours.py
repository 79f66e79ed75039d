"""Our package under the names that a suite's reference has."""

from types import SimpleNamespace

from nanovllm import sampling_params
