"""The built-in world: scenes of objects on a table, drawn and described from a seed, the same on every machine."""

from edgeclip.data.tabletop.captions import describe
from edgeclip.data.tabletop.render import IMAGE_SIZE, render
from edgeclip.data.tabletop.scene import Scene, sample_scene

__all__ = ["IMAGE_SIZE", "Scene", "describe", "render", "sample_scene"]
