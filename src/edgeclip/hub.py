"""Fetch files of the Hugging Face hub, or from its local cache where there is no network.

With `data.hub_data` it is the only part of edgeclip that opens a connection, and only where a hub id was given.
Nothing is sent but by `upload`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from edgeclip.errors import HubError
from edgeclip.progress import Advance, task

SMALL_FILES = ["*.json", "*merges.txt", "*vocab.txt", "[0-9]_Dense/*"]
"""Configurations and tokenizers, and what sentence-transformers put after a tower."""
WEIGHTS = (
    ["model.safetensors", "model-*.safetensors", "[0-9]_*/model.safetensors"],
    ["open_clip_model.safetensors"],
    ["pytorch_model.bin", "pytorch_model-*.bin", "[0-9]_*/pytorch_model.bin"],
    ["open_clip_pytorch_model.bin"],
)
"""Weights in the order of preference; the first kind that a repository has is the only one that is fetched."""
PATIENCE_S = 10.0


def download_checkpoint(hub_id: str) -> Path:
    """Fetch configuration, tokenizer and weights; what is in the cache is not fetched again.

    Raises:
        HubError: it doesn't exist, needs permission, or there is no network and it is not in the cache.
    """
    for patterns in WEIGHTS:
        folder = snapshot(hub_id, SMALL_FILES + patterns)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            break
    return folder


def snapshot(hub_id: str, patterns: list[str], *, revision: str | None = None) -> Path:
    """Fetch files of a repository, and tell the observer how many bytes have come.

    Args:
        hub_id: organisation/name.
        patterns: of file names.
        revision: a branch or commit; the newest of the main branch by default.

    Returns:
        The folder of the cache that holds them, named after the commit.

    Raises:
        HubError: see `download_checkpoint`.
    """
    from huggingface_hub import snapshot_download  # takes longer to import than all the rest

    with _told_in_one_line(hub_id), task(f"downloading {hub_id}", None, unit="bytes") as advance:
        bar = _telling(advance)
        return Path(snapshot_download(hub_id, revision=revision, allow_patterns=patterns, tqdm_class=bar))


def file_names(hub_id: str, revision: str) -> set[str]:
    """What a commit of a repository has, as the hub says and not its cache.

    Raises:
        HubError: see `download_checkpoint`.
    """
    from huggingface_hub import list_repo_files

    with _told_in_one_line(hub_id):
        return set(list_repo_files(hub_id, revision=revision))


def is_reached(data_set: str) -> bool:
    """Whether the hub answers when it is asked once for a data set, whatever it says.

    What has no connection would be asked five times more, for half a minute, by the library that loads it.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HTTPError  # type: ignore[attr-defined]

    try:
        HfApi().dataset_info(data_set, timeout=PATIENCE_S)
    except HfHubHTTPError:  # an answer too
        return True
    except (HTTPError, OSError, ValueError):  # ValueError: an id of another form
        return False
    return True


@contextmanager
def _told_in_one_line(hub_id: str) -> Iterator[None]:
    """Whatever the hub's client raises is a `HubError`."""
    from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of whatever client it uses
        EntryNotFoundError,
        GatedRepoError,
        HTTPError,
        RepositoryNotFoundError,
    )

    try:
        yield
    except GatedRepoError as error:
        raise HubError(
            f"{hub_id}, a gated model",
            expected="permission to download it",
            fix="accept its terms and log in with `hf auth login`",
        ) from error
    except RepositoryNotFoundError as error:
        raise HubError(
            f"{hub_id}, which the hub doesn't have or doesn't show you",
            expected="a public model",
            fix="give organisation/name as its page has it, or log in with `hf auth login`",
        ) from error
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
        raise HubError(
            f"{hub_id} is no local folder, not in the hub's cache, and cannot be downloaded ({type(error).__name__})",
            expected="a network connection or an earlier download",
            fix="connect once, or give a local folder",
        ) from error


def upload(folder: Path, hub_id: str, names: list[str], *, private: bool) -> str:
    """Put files of a folder into a repository of the hub, in one commit; the repository is made where there is none.

    Args:
        folder: where the files are.
        hub_id: user/name.
        names: of the files, by their path in the folder; those that are not there are left out.
        private: whether a new repository is only its owner's.

    Returns:
        The commit's address.

    Raises:
        HubError: nobody is logged in, the repository isn't theirs, or there is no network.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError, LocalTokenNotFoundError  # type: ignore[attr-defined]

    api = HfApi(library_name="edgeclip")
    try:
        with task(f"uploading {hub_id}", None):
            api.create_repo(hub_id, private=private, exist_ok=True)
            commit = api.upload_folder(
                repo_id=hub_id, folder_path=folder, allow_patterns=names, commit_message="A bundle of edgeclip"
            )
    except LocalTokenNotFoundError as error:
        raise HubError("no token of the hub", expected="one", fix="log in with `hf auth login`") from error
    except (HTTPError, OSError) as error:
        raise HubError(
            f"{hub_id}, which can't be uploaded ({str(error).splitlines()[0] if str(error) else type(error).__name__})",
            expected="a network connection, and a repository that is yours",
            fix="log in with `hf auth login`, and give your own user/name",
        ) from error
    return str(commit.commit_url)


def _telling(advance: Advance) -> Any:
    """A class of progress bars for the hub's client that draw nothing and pass on how many bytes were written."""
    from huggingface_hub.utils.tqdm import tqdm

    class Telling(tqdm):
        def __init__(self, *args: Any, **options: Any) -> None:
            self._counts = options.get("unit") == "B" and not str(options.get("name", "")).endswith(".transfer")
            super().__init__(*args, **options | {"disable": True})

        def update(self, n: float | None = 1) -> None:
            """See `tqdm.update`."""
            if self._counts:
                advance(int(n or 0))

    return Telling
