"""Fetch a checkpoint from the Hugging Face hub, or from its local cache where there is no network."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import snapshot_download
from huggingface_hub.errors import (  # type: ignore[attr-defined]  # HTTPError, of whatever client it uses
    EntryNotFoundError,
    GatedRepoError,
    HTTPError,
    RepositoryNotFoundError,
)

from edgeclip.errors import HubError

SMALL_FILES = ["*.json", "merges.txt"]
WEIGHTS = (
    ["model.safetensors", "model-*.safetensors"],
    ["open_clip_model.safetensors"],
    ["pytorch_model.bin", "pytorch_model-*.bin"],
    ["open_clip_pytorch_model.bin"],
)
"""Weights in the order of preference; the first kind that a repository has is the only one that is fetched."""


def download(hub_id: str) -> Path:
    """Fetch configuration, tokenizer and weights, with a progress bar; what is in the cache is not fetched again.

    Raises:
        HubError: it doesn't exist, needs permission, or there is no network and it is not in the cache.
    """
    for patterns in WEIGHTS:
        folder = _snapshot(hub_id, SMALL_FILES + patterns)
        if any(path for pattern in patterns for path in folder.glob(pattern)):
            break
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
