"""Any CLIP checkpoint to one model: Hugging Face, OpenAI and open_clip layouts."""

from edgeclip.checkpoint.load import Checkpoint, load_checkpoint
from edgeclip.checkpoint.save import save_checkpoint

__all__ = ["Checkpoint", "load_checkpoint", "save_checkpoint"]
