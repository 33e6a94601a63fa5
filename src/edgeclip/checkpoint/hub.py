"""Fetch a checkpoint from the Hugging Face hub, or from its local cache where there is no network."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of whatever client it uses
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
)

from edgeclip.errors import HubError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
SMALL_FILES = ["*.json", "merges.txt"]
SAFETENSORS = ["model.safetensors", "model-*.safetensors", "open_clip_model.safetensors"]
PICKLES = ["pytorch_model.bin", "pytorch_model-*.bin", "open_clip_pytorch_model.bin"]


def is_hub_id(source: str) -> bool:
    """Whether a name has the form organisation/model."""
    return HUB_ID.fullmatch(source) is not None


def download(hub_id: str) -> Path:
    """Fetch configuration, tokenizer and weights, with a progress bar; what is in the cache is not fetched again.

    Pickled weights are fetched only where there are no safetensors.

    Raises:
        HubError: it doesn't exist, needs permission, or there is no network and it is not in the cache.
    """
    folder = _snapshot(hub_id, SMALL_FILES + SAFETENSORS)
    if not any(folder.glob("*.safetensors")):
        folder = _snapshot(hub_id, SMALL_FILES + PICKLES)
    return folder


def _snapshot(hub_id: str, patterns: list[str]) -> Path:
    try:
        return Path(snapshot_download(hub_id, allow_patterns=patterns))
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
            fix="check the spelling",
        ) from error
    except (HTTPError, EntryNotFoundError, OSError, ValueError) as error:
        raise HubError(
            f"{hub_id} is no local folder, not in the hub's cache, and cannot be downloaded ({type(error).__name__})",
            expected="a network connection or an earlier download",
            fix="connect once, or give a local folder",
        ) from error
