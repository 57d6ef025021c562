"""Subsets to the Hugging Face Hub, with the user's own token: of the environment, or of their login.

Notable choices:
- a repository is made private, and one that everybody can read is refused unless that is asked for;
- all files come in one commit, which takes away those of an earlier subset, so that no two are mixed;
- a README.md that came of no push, with no run file beside it, is the user's own: then no card is put there.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from datapruner.errors import UsageError

DATA = "data"
"""The folder of a repository in which `datasets` looks for rows."""
RUN = "subset.run.json"
"""The run file among those of a card."""


def check(repo: str) -> None:
    """Find out before the work starts that nothing can be pushed. Raises UsageError."""
    from huggingface_hub import get_token
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise UsageError(f"{repo!r} is no repository: {error}", remedy="as in me/subset") from error
    if "/" not in repo:
        raise UsageError(f"{repo!r} does not say whose it is", remedy=f"as in me/{repo}")
    if get_token() is None:
        raise UsageError("there is no token for the Hub", remedy="hf auth login, or set HF_TOKEN")


def address(repo: str) -> str:
    """Where a dataset repository is."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/datasets/{repo}"


def name_of(file: Path) -> str:
    """What a file with all rows is called in a repository."""
    return f"{DATA}/train-00000-of-00001{file.suffix}"


def push(
    path: Path,
    repo: str,
    folder: str,
    files: Mapping[str, Path],
    card: Mapping[str, bytes],
    *,
    public: bool,
    message: str,
) -> str:
    """Put the files of `path`, by their names there, into a dataset repository, which is made if need be, and
    its card beside the `folder` that they are in.

    Other files that were in `folder` go. Returns the address of the repository. Raises UsageError when the
    Hub refuses or cannot be reached; then nothing in the repository has changed.
    """
    check(repo)
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    api = HfApi()
    try:
        made = api.create_repo(repo, repo_type="dataset", private=not public, exist_ok=True)
        if not public and not api.dataset_info(repo).private:
            raise UsageError(f"{made} can be read by everybody", remedy="give --public as well")
        before = api.list_repo_files(repo, repo_type="dataset")
        gone = [name for name in before if name.startswith(f"{folder}/") and name not in files]
        if "README.md" in before and RUN not in before:
            card = {}
        changes: list[CommitOperationAdd | CommitOperationDelete] = [
            *(CommitOperationDelete(name) for name in gone),
            *(CommitOperationAdd(name, str(file)) for name, file in files.items()),
            *(CommitOperationAdd(name, content) for name, content in card.items()),
        ]
        with disable_progress_bars():  # which would be in what scripts read
            api.create_commit(repo, changes, commit_message=message, repo_type="dataset")
    except UsageError:
        raise
    except Exception as error:  # of many families: of the protocol, of the transfer, of files
        reasons = [error, *([error.__cause__] if error.__cause__ is not None else [])]
        said = ": ".join(" ".join(str(reason).split()).rstrip(".") for reason in reasons)
        place = folder if path.is_dir() else next(iter(files))
        again = f"hf upload {repo} {shlex.quote(str(path))} {place} --repo-type dataset"
        raise UsageError(
            f"it was not pushed to {repo}: {said}",
            remedy=f"{path} is written; try again, or: {again}{'' if public else ' --private'}",
        ) from error
    return str(made)
