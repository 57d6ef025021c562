"""The proxy model tuned on a target set: its weights by a plain loop, its scores by transformers' losses."""

from __future__ import annotations

import hashlib
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file

import datapruner
from datapruner.errors import UsageError, WorkerError
from datapruner.measuring import tuned
from datapruner.measuring.tuned import RATE, _drawn
from datapruner.result import Result
from datapruner.tuning.training import RANK
from tests.tiny_model import FACTS, rendered

AIM = [{"instruction": f"Name river {at}.", "output": "The Rhine and the Nile."} for at in range(11)]
NEAR = {"instruction": "Name the rivers.", "output": "The Rhine and the Nile."}
FAR = [{"instruction": question, "output": answer} for question, answer in FACTS[5:15]]
STEPS = 40

Run = Callable[..., Result]


@pytest.fixture(scope="module")
def run(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Prune a row like the target's and others; by default always in one home."""
    home = tmp_path_factory.mktemp("home")

    def made(method: str = "loss-drop", **given: Any) -> Result:
        settings = {"home": home, "target": AIM, "reference": "tuned", "tune_steps": STEPS} | given
        return datapruner.prune([NEAR, *FAR], method, 0.3, model=str(tiny_folder), device="cpu", **settings)

    return made


@pytest.fixture(scope="module")
def first(run: Run) -> Result:
    return run()


def folder(home: Path) -> Path:
    (found,) = (home / "tuned").glob("[!.]*")
    return found


def chat(row: dict[str, str]) -> list[dict[str, str]]:
    return [{"role": "user", "content": row["instruction"]}, {"role": "assistant", "content": row["output"]}]


def mean_loss(model: Any, tokens: list[int], where: list[int]) -> torch.Tensor:
    logits = model(torch.tensor([tokens])).logits[0].log_softmax(-1)
    return -torch.stack([logits[at - 1, tokens[at]] for at in where]).mean()


def test_the_score_is_the_share_of_the_loss_that_is_gone(first: Result, tiny_folder: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_folder)
    losses = []
    for place in (tiny_folder, folder(first.home)):
        model = tf.AutoModelForCausalLM.from_pretrained(place, dtype=torch.float64)
        with torch.no_grad():
            losses.append([mean_loss(model, *rendered(tokenizer, chat(row))).item() for row in (NEAR, *FAR)])
    before, after = map(np.array, losses)
    scores = first.scores.sort("row")
    assert scores["loss_drop"].to_list() == pytest.approx(((before - after) / before).tolist(), rel=1e-3)
    assert scores["reference_nll"].to_list() == pytest.approx(after.tolist(), rel=1e-4)


def test_what_is_like_the_target_set_loses_most(first: Result) -> None:
    scores = first.scores.sort("row")["loss_drop"]
    assert scores[0] > 0.1
    assert scores[0] > 2 * scores[1:].max()  # type: ignore[operator]
    about = first.run.lineage["tuned"]
    assert about["loss_after"] < about["loss_before"]
    assert (about["rows"], about["steps"], first.run.lineage["target"][0]["samples"]) == (11, STEPS, 11)
    assert first.report.warnings == []


def test_the_weights_are_those_of_a_plain_loop(first: Result, tiny_folder: Path) -> None:
    tokenizer = tf.AutoTokenizer.from_pretrained(tiny_folder)
    base = tf.AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=torch.float32)
    config = peft.LoraConfig(r=RANK, lora_alpha=2 * RANK, lora_dropout=0.0, target_modules="all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of transformers to peft
        model = peft.get_peft_model(base, config)
    torch.manual_seed(0)
    for module in model.modules():
        if hasattr(module, "reset_lora_parameters"):
            module.reset_lora_parameters("default", True)
    order = by_sample_id(tiny_folder, first.home)
    optimiser = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], weight_decay=0.0)
    rising = max(1, round(STEPS / 10))
    for number, rows in enumerate(_drawn(len(AIM), STEPS, 0)):
        share = (number + 1) / rising if number < rising else (STEPS - number) / (STEPS - rising)
        optimiser.param_groups[0]["lr"] = RATE * share
        texts = [rendered(tokenizer, chat(order[row])) for row in rows]
        count = sum(len(where) for _, where in texts)
        total = sum(mean_loss(model, *text) * len(text[1]) for text in texts) / count
        total.backward()  # type: ignore[union-attr]
        torch.nn.utils.clip_grad_norm_([p for p in model.parameters() if p.requires_grad], 1.0)
        optimiser.step()
        optimiser.zero_grad()
    expected = model.merge_and_unload().state_dict()
    start = load_file(tiny_folder / "model.safetensors")
    for name, found in load_file(folder(first.home) / "model.safetensors").items():
        moved = (expected[name] - start[name]).abs().max()
        torch.testing.assert_close(found, expected[name], rtol=0, atol=float(0.02 * moved + 1e-6))


def by_sample_id(tiny_folder: Path, home: Path) -> list[dict[str, str]]:
    """The target's rows in the order of their ids."""
    scored = datapruner.score(AIM, "length", model=str(tiny_folder), device="cpu", home=home)
    return [AIM[row] for row in scored.scores.sort("sample_id")["row"].to_list()]


def test_the_same_again_tunes_nothing_and_gives_the_same_bytes_elsewhere(
    first: Result, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(home: Path) -> str:
        return hashlib.sha256((folder(home) / "model.safetensors").read_bytes()).hexdigest()

    other = run(home=tmp_path / "a")
    assert digest(tmp_path / "a") == digest(first.home)
    assert other.run.run_id == first.run.run_id
    monkeypatch.setattr(tuned, "WORKER", ("-c", "raise SystemExit('nothing is to be tuned')"))
    assert run().run.measured == 0
    with pytest.raises(WorkerError, match="nothing is to be tuned"):
        run(seed=1)


def test_other_methods_can_read_the_tuned_model(first: Result, run: Run) -> None:
    made = run("rho")
    assert made.run.measured == 0
    excess = made.scores.sort("row")
    drop = first.scores.sort("row")
    expected = drop["ppl"].log() - drop["reference_nll"]
    assert excess["rho"].to_list() == pytest.approx(expected.to_list(), abs=1e-4)


def test_a_tuned_model_that_is_not_whole_is_made_again(first: Result, run: Run, tmp_path: Path) -> None:
    shutil.copytree(folder(first.home), tmp_path / "tuned" / folder(first.home).name)
    (folder(tmp_path) / "tokenizer.json").unlink()
    assert run(home=tmp_path).scores.equals(first.scores)


def test_a_tuning_that_time_or_the_rows_cut_short_says_so(run: Run, tmp_path: Path) -> None:
    long = [{"instruction": "Summarise. " + "All work and no play. " * 80, "output": "Dull."}]
    made = run(home=tmp_path, target={"rivers": AIM[:2], "work": long}, tune_seconds=1e-9)
    assert made.run.lineage["tuned"]["steps"] == 1
    assert [(each["task"], each["samples"]) for each in made.run.lineage["target"]] == [
        ("rivers", 2),
        ("work", 1),
    ]
    assert made.report.warnings[-2:] == [
        f"tuning on the target set stopped short, for time, after 1 of {STEPS} steps: another machine may "
        "get further; give more tune_seconds, or fewer tune_steps",
        "1 rows of the target set could not be read, and were not tuned on",
    ]
    with pytest.raises(UsageError, match=r"no row of the target set can be read; the first: .*max_length"):
        run(home=tmp_path, target=long)


def test_a_loss_that_did_not_fall_is_warned_of() -> None:
    was = tuned.Outcome(3, 3, 5, 0, 60, loss_before=1.5, loss_after=1.625, seconds=2.0)
    (warning,) = tuned.Tuned(Path("there"), "tiny", was, drawn=(5,)).warnings
    assert warning == (
        "tuning on the target set did not lower its loss (1.5 nats a token before, 1.625 after): what it "
        "prefers is not what is like the target"
    )


@pytest.mark.parametrize(
    ("given", "message", "field"),
    [
        ({"target": None}, "the reference tuned needs a target set", "target"),
        ({"reference": "smollm2-135m", "target": None}, "no model is tuned", "measuring.tune_steps"),
        ({"method": "ppl"}, "no reference is read by ppl", "measuring.reference"),
        ({"tune_steps": 0}, "must be at least 1", "measuring.tune_steps"),
    ],
)
def test_what_does_not_go_together_is_refused(
    run: Run, given: dict[str, Any], message: str, field: str
) -> None:
    with pytest.raises(UsageError, match=message) as refused:
        run(**given)
    assert refused.value.field == field
