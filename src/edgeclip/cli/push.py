"""`edgeclip push`: a bundle to the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from msgspec import Meta

from edgeclip.settings import Settings


class PushSettings(Settings, frozen=True, kw_only=True):
    """Which bundle, and where to."""

    bundle: Annotated[str, Meta(description="A bundle's folder, with the README.md of edgeclip card --huggingface.")]
    name: Annotated[str, Meta(description="Where to on the hub: user/name.")]
    private: Annotated[bool, Meta(description="Make a new repository private.")] = False


def command(settings: PushSettings) -> None:
    """Upload a bundle as it was made to the Hugging Face hub, as the user of `hf auth login`."""
    from edgeclip.bundle import read_bundle, verify_files
    from edgeclip.errors import ConfigError
    from edgeclip.hub import upload
    from edgeclip.manifest import ABOUT, MANIFEST
    from edgeclip.names import is_hub_id

    if not is_hub_id(settings.name):
        raise ConfigError(
            f"`name` {settings.name}", expected="user/name", fix=f"give user/{Path(settings.bundle).name}"
        )
    bundle = read_bundle(Path(settings.bundle))
    verify_files(bundle)
    if not (bundle.folder / "README.md").is_file():
        raise ConfigError(
            f"{bundle.folder} without README.md",
            expected="a model card",
            fix=f"write one: edgeclip card {settings.bundle} --huggingface --name {settings.name}",
        )
    print(upload(bundle.folder, settings.name, [MANIFEST, *bundle.manifest.files, *ABOUT], private=settings.private))
