"""What the service reads on its own, and what it must not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from datapruner.errors import DataprunerError, DeniedError, InputError
from datapruner.schemas.datasets import HubSource, PathSource, UploadSource, UrlSource
from datapruner.service.allowed_sources import allowed_path, allowed_url, check_source
from datapruner.settings import Settings


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "key.jsonl").write_text("{}")
    root = tmp_path / "root"
    (root / "nightly").mkdir(parents=True)
    for name in ("one.jsonl", "two.jsonl", "nightly/three.jsonl", "nightly/.hidden.jsonl", "odd[1].jsonl"):
        (root / name).write_text("{}")
    return root


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home", import_roots=[tmp_path / "none", root], import_urls=["s3://b/in"])


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("one.jsonl", ["one.jsonl"]),
        ("{root}/one.jsonl", ["one.jsonl"]),
        ("nightly/../one.jsonl", ["one.jsonl"]),
        ("nightly", ["nightly"]),
        (".", [""]),
        ("*.jsonl", ["odd[1].jsonl", "one.jsonl", "two.jsonl"]),
        ("{root}/t*.jsonl", ["two.jsonl"]),
        ("**/t*.jsonl", ["nightly/three.jsonl", "two.jsonl"]),
        ("nightly/*", ["nightly/three.jsonl"]),
        ("odd[1].jsonl", ["odd[1].jsonl"]),
    ],
)
def test_a_path_names_files_and_folders_in_the_roots(
    settings: Settings, root: Path, path: str, found: list[str]
) -> None:
    assert allowed_path(settings, path.format(root=root)) == sorted(root / name for name in found)


@pytest.mark.parametrize(
    "path",
    [
        "../secret/key.jsonl",
        "../secret/none",
        "{root}/../secret",
        "/etc/passwd",
        "/none",
        "/etc/pass*",
        "../secret/*",
        "*/../../secret/*",
        "**/**/*",
        "one\x00.jsonl",
        "\n",
        "{root}x/one.jsonl",
    ],
)
def test_what_lies_elsewhere_is_refused_whether_it_exists_or_not(
    settings: Settings, root: Path, path: str
) -> None:
    with pytest.raises(DataprunerError) as refused:
        allowed_path(settings, path.format(root=root))
    assert not isinstance(refused.value, InputError)
    assert refused.value.field == "source.path"


@pytest.mark.parametrize("path", ["link.jsonl", "l*", "nightly", "nightly/*", "folder/key.jsonl", "folder"])
def test_a_link_that_leads_out_of_the_roots_is_refused(settings: Settings, root: Path, path: str) -> None:
    (root / "link.jsonl").symlink_to(root.parent / "secret" / "key.jsonl")
    (root / "folder").symlink_to(root.parent / "secret")
    (root / "nightly" / "deep").symlink_to(root.parent / "secret")
    with pytest.raises(DeniedError, match="outside of the import roots"):
        allowed_path(settings, path)


def test_a_link_that_stays_in_the_roots_is_followed(settings: Settings, root: Path) -> None:
    (root / "link").symlink_to(root / "nightly")
    assert allowed_path(settings, "link/three.jsonl") == [root / "nightly" / "three.jsonl"]


def test_what_is_not_there_or_no_file_is_told(settings: Settings, root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "round").symlink_to(root / "round")
    for path in ("none.jsonl", "n*.csv", "pipe", "round", "x" * 4000):
        with pytest.raises(InputError):
            allowed_path(settings, path)


def test_without_roots_no_path_is_read(tmp_path: Path) -> None:
    with pytest.raises(DeniedError, match="DATAPRUNER_IMPORT_ROOTS"):
        allowed_path(Settings(home=tmp_path), "one.jsonl")


def test_urls_below_an_allowed_prefix_are_read(settings: Settings) -> None:
    assert allowed_url(settings, "s3://b/in") == "s3://b/in"
    assert allowed_url(settings, "s3://b/in/2026/rows.jsonl") == "s3://b/in/2026/rows.jsonl"


@pytest.mark.parametrize(
    "url",
    [
        "s3://b/inside/rows",
        "s3://b",
        "s3://other/in/rows",
        "s3://b/in/../out",
        "s3://b/in/%2e%2e/out",
        "s3://b/in/x::file:///etc/passwd",
        "simplecache::s3://b/in/rows",
        "file:///etc/passwd",
        "/etc/passwd",
        "s3://b/in/\nrows",
        "s3://[b/in",
        "s3://b/in\\..\\out",
    ],
)
def test_other_urls_are_refused(settings: Settings, url: str) -> None:
    with pytest.raises(DeniedError, match="DATAPRUNER_IMPORT_URLS"):
        allowed_url(settings, url)


def test_a_local_url_is_refused_even_when_it_is_named_as_a_prefix(tmp_path: Path) -> None:
    settings = Settings(home=tmp_path, import_urls=["file:///etc"])
    with pytest.raises(DeniedError):
        allowed_url(settings, "file:///etc/passwd")


def test_each_kind_of_source_is_checked(settings: Settings) -> None:
    hub = HubSource(kind="hub", name="org/data")
    check_source(settings, hub)
    check_source(settings, UploadSource(upload_id="upl"))
    check_source(settings, PathSource(kind="path", path="one.jsonl"))
    with pytest.raises(DeniedError):
        check_source(settings, UrlSource(kind="url", url="s3://other"))
    with pytest.raises(DeniedError, match="DATAPRUNER_ALLOW_HUB"):
        check_source(settings.model_copy(update={"allow_hub": False}), hub)


def test_a_url_with_a_password_is_refused_even_below_an_allowed_prefix_and_not_quoted() -> None:
    settings = Settings(import_urls=["s3://AKIA:hidden-words@b/in"])
    with pytest.raises(DeniedError) as refused:
        allowed_url(settings, "s3://AKIA:hidden-words@b/in/rows.jsonl")
    assert refused.value.message == "s3://b/in/rows.jsonl: this service may not read it"
    place = "abfs://container@account.dfs.core.windows.net/in"
    assert allowed_url(Settings(import_urls=[place]), place) == place
