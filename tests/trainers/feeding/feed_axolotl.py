"""axolotl, by the function behind its command."""

from __future__ import annotations

import os
from pathlib import Path

import transformers
import yaml
from feeding import hand_back, job, recorded, rows_of

if __name__ == "__main__":
    os.environ |= {"AXOLOTL_DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
    from axolotl.cli.args import TrainerCliArgs
    from axolotl.cli.config import load_cfg
    from axolotl.cli.train import do_train

    given = job()
    batches = recorded(transformers.Trainer)
    here = {
        "output_dir": f"{given['place']}/trained",
        "dataset_prepared_path": f"{given['place']}/prepared",
        "dataset_num_proc": 1,
        "num_epochs": 1,
        "micro_batch_size": 1 if given["packing"] else 4,
        "gradient_accumulation_steps": 1,
        "optimizer": "adamw_torch",
        "learning_rate": 1e-4,
        "lr_scheduler": "cosine",
        "save_strategy": "no",
        "bf16": False,
        "sample_packing": given["packing"],
        "attn_implementation": "sdpa",
    }
    path = Path(given["place"], "configuration.yaml")
    path.write_text(yaml.safe_dump(yaml.safe_load(given["configuration"]) | here), encoding="utf-8")
    do_train(load_cfg(str(path)), TrainerCliArgs())
    hand_back(given, rows_of(batches), "axolotl", "transformers", "datasets")
