"""Whether the best picture for a text is what was asked for, or only the least bad.

A flat limit on the cosine doesn't tell: each text has its own level, and the best of many pictures is high by chance.
So texts that no picture shows are asked of the index, once: words of the model's own vocabulary in disorder. How high
the best cosine of such a text comes to be is fitted to what its cosines with all pictures look like, their median and
their spread; a real text is a match where its best is above what that says.

Shape legend: D texts, S sampled pictures, E embedding size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from edgeclip.cpu import processors
from edgeclip.errors import MALFORMED, DataError
from edgeclip.files import printable
from edgeclip.progress import task
from edgeclip.runtime.clip import ClipRuntime
from edgeclip.search.database import Database
from edgeclip.search.scan import DTYPE, are_units

FEWEST = 50
"""Below so many contents there is no distribution to speak of, and every best is taken for a match."""
SAMPLED = 512
GROWTH = 1.5
"""How much an index grows until it is calibrated again: the best of more is higher."""
LENGTHS, OF_EACH = (2, 3, 4, 5, 6, 8, 12, 16), 32
FEWEST_WORDS, SHORTEST = 20, 3
BORDER = 0.55
"""Share of the disordered texts that are below the border. On the built-in world, whose captions are not used here,
4 to 7 % of the full captions of indexed pictures are below it too (`benchmarks/search.py`)."""
NORMAL = 1.4826
"""From the median of absolute deviations to a standard deviation, of a normal distribution."""
T = TypeVar("T")


class Fit(msgspec.Struct, frozen=True):
    """What the best cosine of a text comes to: `weights` of its median, its spread and 1; with the border and the
    spread of what is left, and of how many contents that was found out.
    """

    weights: tuple[float, float, float]
    border: float
    spread: Annotated[float, msgspec.Meta(gt=0)]
    contents: Annotated[int, msgspec.Meta(ge=1)]


class Confidence:
    """What an index knows of texts that it has nothing for."""

    def __init__(self, database: Database, size: int) -> None:
        self._database, self._size = database, size
        self._read: tuple[str, Fit, NDArray[np.float32]] | None = None

    def of(self, query_E: NDArray[np.float32], best: float) -> float | None:
        """How far a text's best cosine is above the border, in standard deviations; None where that isn't known."""
        known = self._known()
        if known is None:
            return None
        fit, sample_SE = known
        return float((best - _features(query_E, sample_SE) @ np.array(fit.weights) - fit.border) / fit.spread)

    def _known(self) -> tuple[Fit, NDArray[np.float32]] | None:
        """What was found out.

        Raises:
            DataError: it is damaged.
        """
        rows = self._database.rows("SELECT value FROM calibration WHERE key = 'fit'", of=tuple[str])
        if not rows:
            return None
        ((text,),) = rows
        if self._read is None or self._read[0] != text:
            sample_SE = self._array("sample")
            try:
                fit = msgspec.json.decode(text, type=Fit)
            except MALFORMED as error:
                raise self._damaged() from error
            if sample_SE is None:
                raise self._damaged()
            self._read = text, fit, sample_SE
        return self._read[1:]

    def _array(self, key: str) -> NDArray[np.float32] | None:
        rows = self._database.rows("SELECT value FROM calibration WHERE key = ?", (key,), of=tuple[bytes])
        if not rows:
            return None
        ((data,),) = rows
        if not data or len(data) % (np.dtype(DTYPE).itemsize * self._size):
            raise self._damaged()
        array_NE = np.frombuffer(data, DTYPE).reshape(-1, self._size).astype(np.float32)
        if not are_units(array_NE).all():
            raise self._damaged()
        return array_NE

    def _damaged(self) -> DataError:
        path = printable(str(self._database.path))
        return DataError(
            f"{path}, whose calibration is damaged",
            expected="what `edgeclip index` found out",
            fix=f"find it out again with edgeclip index FOLDER --db {path}",
        )

    def _undamaged(self, read: Callable[[], T]) -> T | None:
        """What is read, None where it has to be found out again."""
        try:
            return read()
        except DataError:
            return None

    def calibrate(
        self,
        clip: ClipRuntime,
        contents: int,
        sample: Callable[[int], NDArray[np.float32]],
        best: Callable[[NDArray[np.float32]], float],
    ) -> None:
        """Find out what texts come to that have no picture, where the index has grown since or none was found out.

        Args:
            clip: the bundle.
            contents: how many pictures there are that differ.
            sample: gives so many of their vectors (S, E), evenly spaced.
            best: gives the best cosine of a text's vector.
        """
        known = self._undamaged(self._known)
        if (
            "text" not in clip.towers
            or contents < FEWEST
            or (known and known[0].contents <= contents <= GROWTH * known[0].contents)
        ):
            return
        texts_DE = self._undamaged(lambda: self._array("texts"))
        if texts_DE is None:
            texts = disordered(clip.bundle.tokenizer.vocab)
            if not texts:
                return
            texts_DE = _encoded(clip, texts)
        sample_SE = sample(SAMPLED).astype(DTYPE).astype(np.float32)
        fit = _fit(texts_DE, sample_SE, np.array([best(text_E) for text_E in texts_DE]), contents)
        rows = {
            "fit": msgspec.json.encode(fit).decode(),
            "sample": sample_SE.astype(DTYPE).tobytes(),
            "texts": texts_DE.astype(DTYPE).tobytes(),
        }
        with self._database.transaction() as connection:
            connection.executemany("INSERT OR REPLACE INTO calibration VALUES (?, ?)", rows.items())


def _fit(
    texts_DE: NDArray[np.float32], sample_SE: NDArray[np.float32], best_D: NDArray[np.float64], contents: int
) -> Fit:
    """What the best cosines of texts without a picture are made of, by least squares, and how far they are off it."""
    features = np.stack([_features(text_E, sample_SE) for text_E in texts_DE])
    weights = np.linalg.lstsq(features, best_D, rcond=None)[0]
    left_D = best_D - features @ weights
    return Fit(
        weights=(float(weights[0]), float(weights[1]), float(weights[2])),
        border=float(np.quantile(left_D, BORDER)),
        spread=float(max(left_D.std(), 1e-6)),
        contents=contents,
    )


def _features(query_E: NDArray[np.float32], sample_SE: NDArray[np.float32]) -> NDArray[np.float64]:
    """Median and spread of a text's cosines with pictures, and 1."""
    cosines_S = sample_SE @ query_E
    median = np.median(cosines_S)
    return np.array([median, NORMAL * np.median(np.abs(cosines_S - median)), 1.0])


def _encoded(clip: ClipRuntime, texts: list[str]) -> NDArray[np.float32]:
    with task("Calibrating", len(texts), unit="texts") as advance:
        rows = []
        for _, embeds_E in clip.stream_texts(texts, workers=processors()):
            rows.append(embeds_E)
            advance()
    return np.stack(rows)


def disordered(vocabulary: dict[str, int]) -> list[str]:
    """Texts of a vocabulary's whole words, of 2 to 16, in an order by chance that is always the same; none of a
    vocabulary that has hardly any.
    """
    ends = "</w>"
    stems = (token.removesuffix(ends) for token in sorted(vocabulary) if token.endswith(ends))
    words = [stem for stem in stems if stem.isascii() and stem.isalpha() and len(stem) >= SHORTEST]
    if len(words) < FEWEST_WORDS:
        return []
    rng = np.random.default_rng(0)
    return [f"a photo of {' '.join(rng.choice(words, length))}" for length in LENGTHS for _ in range(OF_EACH)]
