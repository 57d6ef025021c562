"""Loading a proxy model: what it is ready for, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import torch
import transformers

from scorers.conversations.chat import ChatRenderer, Encoded
from scorers.models import proxy
from scorers.models.sources import ModelSourceError
from tests import chat_templates as ct
from tests.chats import of_messages

DATA = Path(__file__).parents[3] / ".." / "shared" / "data"


def save(folder: Path, vocabulary: int, **config: Any) -> Path:
    small = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(vocab_size=vocabulary, **small, **config))
    model.save_pretrained(folder)
    ct.byte_level(ct.CHATML).save_pretrained(folder)
    return folder


def test_smollm2_loads_ready_to_measure(smollm2: Path) -> None:
    loaded = proxy.load(smollm2, device="cpu")
    assert (loaded.device, loaded.dtype) == (torch.device("cpu"), torch.float32)
    assert loaded.max_positions == 8192
    assert not loaded.model.training
    assert not any(parameter.requires_grad for parameter in loaded.model.parameters())
    assert loaded.tokenizer.is_fast
    assert loaded.tokenizer.eos_token == "<|im_end|>"


@pytest.mark.slow
def test_smollm2_predicts_alpaca_answers_as_well_as_it_should(smollm2: Path) -> None:
    path = DATA / "alpaca/alpaca_52k.parquet"
    if not path.exists():
        pytest.skip(f"needs {path}")
    loaded = proxy.load(smollm2, device="cpu")
    total, count = 0.0, 0
    for row in pl.read_parquet(path, n_rows=10).to_dicts():
        messages = [
            {"role": "user", "content": f"{row['instruction']}\n{row['input']}".strip()},
            {"role": "assistant", "content": row["output"]},
        ]
        (encoded,) = ChatRenderer(loaded.tokenizer).render([of_messages(messages)])
        assert isinstance(encoded, Encoded)
        ids = torch.from_numpy(encoded.input_ids).long()
        with torch.no_grad():
            log_p = loaded.model(ids[None]).logits[0].log_softmax(-1)
        at = torch.from_numpy(encoded.position).long()
        total -= float(log_p[at - 1, ids[at]].sum())
        count += len(at)
    assert 1.6 < total / count < 2.3  # 1.957 over all of Alpaca; a wrong tokenizer or layout is far above


@pytest.mark.parametrize("dtype", proxy.DTYPES)
def test_the_weights_come_in_the_dtype_asked_for(tmp_path: Path, dtype: str) -> None:
    loaded = proxy.load(save(tmp_path, 400), device="cpu", dtype=dtype)
    assert loaded.model.lm_head.weight.dtype == loaded.dtype == getattr(torch, dtype)


def test_an_unknown_dtype_is_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ModelSourceError, match=r"dtype 'int4' is not known \(one of: float32, bfloat16, float16\)"
    ):
        proxy.load(tmp_path, device="cpu", dtype="int4")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match="torch sees no GPU"):
        proxy.load(tmp_path, device="cuda:0")


def test_a_tokenizer_larger_than_the_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelSourceError, match=r"has \d+ tokens but the model embeds 100"):
        proxy.load(save(tmp_path, 100), device="cpu")


def test_code_in_a_model_folder_is_not_run(tmp_path: Path) -> None:
    save(tmp_path, 400)
    ran = tmp_path / "ran"
    (tmp_path / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {
        "model_type": "evil",
        "auto_map": dict.fromkeys(("AutoConfig", "AutoModelForCausalLM"), "modeling_evil.Evil"),
    }
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelSourceError, match="transformers cannot load the model"):
        proxy.load(tmp_path, device="cpu")
    assert not ran.exists()


def test_pickle_weights_are_not_loaded(tmp_path: Path) -> None:
    save(tmp_path, 400)
    (tmp_path / "model.safetensors").unlink()
    torch.save({}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ModelSourceError, match="transformers cannot load the model"):
        proxy.load(tmp_path, device="cpu")
