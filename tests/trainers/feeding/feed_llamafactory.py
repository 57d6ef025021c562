"""LLaMA-Factory, by the function behind its command."""

from __future__ import annotations

import sys
from importlib.machinery import ModuleSpec
from types import ModuleType

import transformers
import yaml
from feeding import hand_back, job, recorded, rows_of

# It imports this for its plugins for sound, and there is none beside the PyTorch for CPUs.
sys.modules["torchaudio"] = ModuleType("torchaudio")
sys.modules["torchaudio"].__spec__ = ModuleSpec("torchaudio", None)

if __name__ == "__main__":
    from llamafactory.train.tuner import run_exp

    given = job()
    batches = recorded(transformers.Trainer)
    here = {
        "output_dir": f"{given['place']}/trained",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 4,
        "save_strategy": "no",
        "report_to": "none",
        "use_cpu": True,
        "packing": given["packing"],
    }
    run_exp(yaml.safe_load(given["configuration"]) | here)
    hand_back(given, rows_of(batches), "llamafactory", "transformers", "datasets")
