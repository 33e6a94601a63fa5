"""`edgeclip export`: a bundle from a checkpoint."""

from __future__ import annotations

import logging

from edgeclip.cli.options import OutFolder
from edgeclip.export.export_settings import ExportSettings

logger = logging.getLogger(__name__)


def command(settings: ExportSettings, out: OutFolder) -> None:
    """Write a bundle that runs without torch: ONNX graphs, tokenizer, preprocessing, manifest, release card."""
    from edgeclip.export.run import export

    manifest, card = export(settings, out)
    size = sum(entry.bytes for entry in manifest.files.values())
    print(f"{out.resolve()}  {manifest.precision}  {size / 1e6:.1f} MB  fingerprint {manifest.fingerprint}")
    print(card.summary)
    if not card.keeps_accuracy:
        if manifest.fusion:
            logger.warning(
                "edgeclip: this bundle fuses tokens and lost accuracy; a smaller --fuse-tokens keeps more of it"
            )
        else:
            logger.warning("edgeclip: this bundle lost accuracy; --precision fp32 keeps it")
