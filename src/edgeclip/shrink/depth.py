"""Which layers of a tower a shallower student keeps."""

from __future__ import annotations

from edgeclip.errors import ConfigError


def spread_layers(total: int, kept: int) -> tuple[int, ...]:
    """Evenly spread layer indices that hold the first and the last layer.

    TinyCLIP (Wu et al. 2023, released code) takes layer i from i * (total // kept), which keeps the lowest nine of
    twelve layers and drops the top ones, whose output the projection was trained on.

    Raises:
        ConfigError: `kept` is more than `total`, or too few for both ends.
    """
    if not min(2, total) <= kept <= total:
        raise ConfigError(
            f"{kept} of {total} layers", expected=f"{min(2, total)} to {total}", fix=f"keep {total} layers"
        )
    gaps = max(kept - 1, 1)
    return tuple((2 * i * (total - 1) + gaps) // (2 * gaps) for i in range(kept))
