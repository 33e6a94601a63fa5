import numpy as np
import pytest

from edgeclip.config import PreprocessConfig
from edgeclip.model import Clip
from edgeclip.model.encode import encode_images, encode_texts
from edgeclip.reproduce.paper_distillation import DistillData
from edgeclip.tokenizer import ClipTokenizer


@pytest.fixture
def data(clip: Clip, tokenizer: ClipTokenizer) -> DistillData:
    """What the teacher makes of 8 pictures of noise and their captions."""
    config = PreprocessConfig.clip(32)
    pixels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3), dtype=np.uint8)
    texts = [f"picture {word}" for word in "abcdefgh"]
    return DistillData(
        pixels=pixels,
        input_ids=tokenizer(texts),
        image_embeds=encode_images(clip, pixels, config),
        text_embeds=encode_texts(clip, texts, tokenizer),
        teacher_scale=clip.logit_scale.item(),
        preprocess=config,
    )
