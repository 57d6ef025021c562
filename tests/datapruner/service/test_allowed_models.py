"""What a client may name as a proxy model, and that a refusal tells nothing of the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from datapruner.errors import DeniedError, UsageError
from datapruner.request.config import Measuring
from datapruner.service.allowed_models import check_model, check_models
from datapruner.settings import Settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "models"
    (folder / "tiny").mkdir(parents=True)
    return folder


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", import_roots=[root], allow_hub=True)


@pytest.mark.parametrize(
    "name", ["smollm2-135m", "org/name", "org/name@main", "org/name.v2@refs/pr/3", "Qwen/Qwen3-0.6B"]
)
def test_aliases_and_hub_names_are_allowed(settings: Settings, name: str) -> None:
    check_model(settings, name)


def test_without_the_hub_only_aliases_and_paths_are(settings: Settings, root: Path) -> None:
    closed = settings.model_copy(update={"allow_hub": False})
    check_model(closed, "smollm2-135m")
    check_model(closed, str(root / "tiny"))
    with pytest.raises(DeniedError, match="nothing from the Hub") as caught:
        check_model(closed, "org/name")
    assert caught.value.field == "measuring.model"


def test_the_proxy_model_tuned_is_allowed_where_the_proxy_model_is(settings: Settings) -> None:
    check_models(settings, Measuring(model="smollm2-135m", reference="tuned"))
    with pytest.raises(DeniedError) as caught:
        check_models(settings, Measuring(model="/etc", reference="tuned"))
    assert caught.value.field == "measuring.model"


def test_what_lies_below_an_import_root_is_allowed(settings: Settings, root: Path) -> None:
    for name in ("tiny", "tiny.gguf", "not there yet", "tiny/../tiny"):
        check_model(settings, f"{root}/{name}")


@pytest.mark.parametrize(
    "name",
    [
        "/etc",
        "/etc/passwd",
        "/nothing/of/this/name",
        "relative",
        "./tiny",
        "..",
        "../name",
        "org/..",
        "org/name@../../refs",
        "model.gguf",
        "org/model.gguf",
        "~",
        "~root/model",
        "~nobody-of-this-name/model",
        "",
        "https://example.org/model",
        "x" * 900,
    ],
)
def test_other_paths_are_refused_alike_whether_they_exist_or_not(settings: Settings, name: str) -> None:
    with pytest.raises(DeniedError, match="neither a known model nor a path in the import roots"):
        check_model(settings, name)


def test_a_link_that_leads_out_of_the_root_is_refused(settings: Settings, root: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (root / "link").symlink_to(tmp_path / "secret")
    (root / "loop").symlink_to(root / "loop")
    (root / "inside").symlink_to(root / "tiny")
    for name in (f"{root}/link", f"{root}/loop", f"{root}/../secret", f"{root}x"):
        with pytest.raises(DeniedError):
            check_model(settings, name)
    check_model(settings, f"{root}/inside")


def test_a_hub_name_that_is_also_a_path_here_is_judged_as_that_path(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "org" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DeniedError, match="import roots"):
        check_model(settings, "org/name")


@pytest.mark.parametrize("name", ["x" * 5000, "a\0b", "line\nbreak", "/tmp/\x1b[31m"])
def test_what_is_no_name_at_all_is_wrong(settings: Settings, name: str) -> None:
    with pytest.raises(UsageError, match="not the name of a model"):
        check_model(settings, name)


def test_a_reward_model_is_judged_like_a_proxy_model(settings: Settings, root: Path) -> None:
    for name in (str(root / "tiny"), "org/name"):
        check_models(settings, Measuring(reward_model=name))
    for name in ("/etc", f"{root}/../secret", "smollm2-135m"):
        with pytest.raises(DeniedError) as caught:
            check_models(settings, Measuring(reward_model=name))
        assert caught.value.field == "measuring.reward_model"
