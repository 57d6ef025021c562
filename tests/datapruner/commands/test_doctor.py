"""Each check of `doctor` finds what it is there to find, and says what to do about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from datapruner.commands import doctor
from scorers.models import sources
from tests.command_line import Said


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home with a model folder that is whole, but not a model; used once, so that its digests are known."""
    folder = tmp_path / "home" / "models" / "smollm2-135m"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text("{}")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ 1 }}"}))
    save_file({"weight": np.arange(64, dtype=np.float32)}, folder / "model.safetensors")
    sources.resolve("smollm2-135m", tmp_path / "home", local_only=True)
    return tmp_path / "home"


def weights(home: Path) -> Path:
    return home / "models" / "smollm2-135m" / "model.safetensors"


def test_this_python_and_its_packages_are_as_asked() -> None:
    assert doctor.python().state == "ok"
    found = doctor.packages()
    assert found.state == "ok", found
    assert "polars" in found.found
    assert "pytest" not in found.found  # optional


def test_a_package_that_is_too_old_or_missing_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ["numpy>=9999", "no-such-package-of-ours>=1", "rich>=1", 'pytest>=9999; extra == "dev"']
    monkeypatch.setattr(doctor, "requires", lambda _: asked)
    found = doctor.packages()
    assert found.state == "fail"
    assert "no-such-package-of-ours is missing" in found.found
    assert ", not >=9999" in found.found
    assert "rich" not in found.found


def test_storage_is_made_and_its_room_told(tmp_path: Path) -> None:
    found = doctor.storage(tmp_path / "new" / "home")
    assert found.state in ("ok", "warn")  # how full the disk is here is not ours to say
    assert "free" in found.found
    assert list((tmp_path / "new" / "home").iterdir()) == []


def test_storage_that_cannot_be_written_fails(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    found = doctor.storage(tmp_path / "file" / "home")
    assert found.state == "fail"
    assert "DATAPRUNER_HOME" in str(found.remedy)


def test_too_little_room_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_MIN_DISK", 1 << 62)
    assert doctor.storage(tmp_path).state == "fail"


def test_memory_and_processors_are_counted() -> None:
    assert "free of" in doctor.memory().found
    assert int(doctor.processors().found.split()[0]) >= 1


def test_a_whole_model_is_fine(home: Path) -> None:
    found = doctor.model(home)
    assert found.state == "ok", found


def test_a_model_that_is_not_there_is_only_a_warning(tmp_path: Path) -> None:
    found = doctor.model(tmp_path)
    assert (found.state, found.remedy) == ("warn", "run: datapruner models pull smollm2-135m")


def test_a_model_with_a_flipped_bit_fails(home: Path) -> None:
    stat = weights(home).stat()
    content = bytearray(weights(home).read_bytes())
    content[-1] ^= 1
    weights(home).write_bytes(content)
    os.utime(weights(home), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    found = doctor.model(home)
    assert (found.state, "model.safetensors" in found.found) == ("fail", True)
    assert "models pull" in str(found.remedy)


def test_a_model_that_was_cut_short_fails(home: Path) -> None:
    weights(home).write_bytes(weights(home).read_bytes()[:-8])
    assert doctor.model(home).state == "fail"


def test_a_model_without_its_tokenizer_fails(home: Path) -> None:
    (home / "models" / "smollm2-135m" / "tokenizer.json").unlink()
    found = doctor.model(home)
    assert (found.state, "tokenizer" in found.found) == ("fail", True)


def test_a_model_fetched_again_is_fine(home: Path) -> None:
    save_file({"weight": np.zeros(64, dtype=np.float32)}, weights(home))
    assert doctor.model(home).state == "ok"


def test_a_torch_that_does_not_start_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBE", "raise ImportError('libcudart is missing')")
    found = doctor.gpu()
    assert (found.state, "libcudart is missing" in found.found) == ("fail", True)


def test_gpus_are_named_with_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    answer = {"built_for": "13.0", "gpus": [["Accelerator X", 80 << 30]]}
    monkeypatch.setattr(doctor, "_PROBE", f"print({json.dumps(json.dumps(answer))})")
    assert doctor.gpu().found == "Accelerator X with 80.0 GiB"


def test_pip_is_needed_only_where_the_model_is_not_there(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert doctor.pip(home).state == "ok"
    monkeypatch.setattr(doctor, "find_spec", lambda _: None)
    assert doctor.pip(home).state == "warn"
    assert doctor.pip(tmp_path / "empty").state == "fail"


@pytest.mark.slow
def test_the_command_ends_with_one_when_a_check_fails(home: Path, command: Callable[..., Said]) -> None:
    weights(home).write_bytes(b"")
    said = command("doctor", "--json", home=home)
    assert said.code == 1
    assert not said.json["ok"]
    states = {check["name"]: check["state"] for check in said.json["checks"]}
    assert states["model"] == "fail"
    assert list(states) == ["python", "packages", "storage", "memory", "processors", "gpu", "model", "pip"]
    assert sys.executable in said.json["checks"][0]["found"]
