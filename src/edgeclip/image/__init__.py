"""The one image path, from any file to `pixel_values`."""

from edgeclip.image.pixels import (
    Crop,
    ImageSource,
    center_crop,
    crop_and_size,
    crop_uint8,
    normalize,
    open_rgb,
    preprocess,
)

__all__ = ["Crop", "ImageSource", "center_crop", "crop_and_size", "crop_uint8", "normalize", "open_rgb", "preprocess"]
