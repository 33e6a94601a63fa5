"""Words of a text that a bundle with fewer words than its teacher encodes otherwise than the teacher does.

Beside the tokenizer of such a bundle lies one that has the tokens left out too, as many as a text that needs any of
them comes by: where it gives one of them, the text's encoding is not the teacher's; where it gives none, it is.
"""

from __future__ import annotations

import gzip
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from zlib import error as ZlibError  # noqa: N812 - it is one

import msgspec

from edgeclip.bundle import Bundle
from edgeclip.errors import MALFORMED, BundleError
from edgeclip.manifest import LOST_WORDS, KeptWords
from edgeclip.tokenizer import ClipTokenizer

logger = logging.getLogger(__name__)

MAX_BYTES = 128 << 20
"""Of the file, unpacked: twice what XLM-V's 900,000 words take."""
SHOWN = 5


class LostWords:
    """A tokenizer, and one beside it that has what it lost."""

    def __init__(self, kept: KeptWords, tokenizer: ClipTokenizer, with_lost: ClipTokenizer) -> None:
        self.kept = kept
        known = tokenizer.vocab.keys()
        self._with_lost = with_lost
        self._lost = {index for token, index in with_lost.vocab.items() if token not in known}
        self._told: set[str] = set()

    @classmethod
    def read(cls, bundle: Bundle) -> LostWords | None:
        """Those of a bundle; None where it has all words of its teacher.

        Raises:
            BundleError: the file that tells is malformed.
        """
        kept = bundle.manifest.words
        if kept is msgspec.UNSET:
            return None
        path = bundle.folder / LOST_WORDS
        try:
            with gzip.open(path) as file:
                content = file.read(MAX_BYTES + 1)
            definition = msgspec.json.decode(content[:MAX_BYTES], type=dict)
        except (OSError, EOFError, ZlibError, *MALFORMED) as error:
            raise BundleError(f"{path} ({error})", expected="a packed tokenizer", fix="copy it again") from error
        return cls(kept, bundle.tokenizer, bundle.tokenizer.redefined(definition))

    def write(self, folder: Path) -> None:
        """Write what `read` needs, the same bytes for the same words."""
        content = json.dumps(self._with_lost.definition, ensure_ascii=False, separators=(",", ":")).encode()
        (folder / LOST_WORDS).write_bytes(gzip.compress(content, mtime=0))

    def of(self, text: str) -> list[str]:
        """The words of a text that are lost, each once, as they stand in the text after it was cleaned."""
        return list(dict.fromkeys(word for word, index in self._with_lost.ids_of_words(text) if index in self._lost))

    def tell(self, texts: Iterable[str]) -> None:
        """Log the words of these texts that are lost, each once."""
        words = dict.fromkeys(word for text in texts for word in self.of(text))
        if new := [word for word in words if word not in self._told]:
            self._told.update(new)
            logger.warning(
                "%d words are not among those that this bundle keeps, and are embedded otherwise than by its teacher: "
                "%s%s",
                len(new),
                ", ".join(new[:SHOWN]),
                ", ..." if len(new) > SHOWN else "",
            )
