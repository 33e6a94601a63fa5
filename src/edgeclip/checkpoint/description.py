"""What a checkpoint's tensors cannot tell, such as activation, heads and preprocessing, and where it was read."""

from __future__ import annotations

from dataclasses import dataclass

from edgeclip.config import ClipConfig, PreprocessConfig, TextCleaning
from edgeclip.errors import CheckpointError


@dataclass(frozen=True)
class Description:
    """A configuration with its origin, such as a file's name.

    `preprocess` is None where nothing says how images are prepared. `clean` is what is done to a text first, None for
    what its tokenizer's files say; `pad_token_id` is what follows it, where that counts and its tokenizer's files do
    not say; `ends_in_padding` is whether padding stands in place of its end too; `projects_text` is whether the weights
    have a projection of texts, `scaled` which towers ("vision", "text") scale what a block adds; `no_text` is why there
    can be no text.
    """

    config: ClipConfig
    origin: str
    preprocess: PreprocessConfig | None = None
    preprocess_origin: str = ""
    clean: TextCleaning | None = None
    pad_token_id: int | None = None
    ends_in_padding: bool = False
    projects_text: bool = True
    scaled: frozenset[str] = frozenset()
    no_text: CheckpointError | None = None
