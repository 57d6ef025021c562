"""ms-swift, by the function behind its command."""

from __future__ import annotations

import shlex

import transformers
from feeding import hand_back, job, recorded, rows_of

if __name__ == "__main__":
    from swift.arguments.sft_args import SftArguments
    from swift.pipelines import sft_main

    given = job()
    if given["packing"]:
        # It packs for flash attention alone, which no CPU has; what it packs is the same.
        SftArguments._check_padding_free = lambda _: None
    batches = recorded(transformers.Trainer)
    _swift, _sft, *arguments = shlex.split(given["configuration"].replace("\\\n", ""))
    here = {
        "model_type": "llama",
        "tuner_type": "full",
        "torch_dtype": "float32",
        "num_train_epochs": 1,
        "per_device_train_batch_size": 1 if given["packing"] else 4,
        "gradient_accumulation_steps": 1,
        "split_dataset_ratio": 0,
        "save_strategy": "no",
        "report_to": "none",
        "output_dir": f"{given['place']}/trained",
        "packing": str(given["packing"]).lower(),
    }
    sft_main([*arguments, *(str(each) for name, value in here.items() for each in (f"--{name}", value))])
    hand_back(given, rows_of(batches), "ms-swift", "transformers", "datasets")
