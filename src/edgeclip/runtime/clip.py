"""Encode images and texts and classify, from a bundle.

Shape legend: N images, M texts or labels, E embedding size.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from msgspec import UNSET
from numpy.typing import NDArray
from onnxruntime import InferenceSession

from edgeclip.bundle import Bundle
from edgeclip.cpu import processors
from edgeclip.errors import BundleError, ConfigError, ImageError, InputError
from edgeclip.graph_model import Kind
from edgeclip.image import ImageSource
from edgeclip.inputs import check_path, check_whole, items_of, texts_of
from edgeclip.manifest import Engine
from edgeclip.runtime.classifier import Classifier, Label
from edgeclip.runtime.embedding_dtype import EmbeddingDtype, as_dtype, check_dtype
from edgeclip.runtime.engine import usable_engine
from edgeclip.runtime.foreign import ForeignModel
from edgeclip.runtime.given_images import Images, OnError, OnSkip, Skips, images_of, images_or_flush
from edgeclip.runtime.graph_cache import GraphCache
from edgeclip.runtime.int8_proof import proved
from edgeclip.runtime.joined import JoinedModel, read_model
from edgeclip.runtime.lost_words import LostWords
from edgeclip.runtime.openvino_session import OpenVinoSession
from edgeclip.runtime.prompt_cache import NOWHERE, USUAL_CACHE, PromptCache, cache_folder
from edgeclip.runtime.session import LazySession, open_graph
from edgeclip.runtime.stream import Embedded, Flush, embedded, in_groups, in_order, threads

MAX_BATCH = 4096
MAX_GROUP = 2**20
MAX_WORKERS = 256


class ClipRuntime:
    """A loaded bundle, or another program's graphs. The text graph is not opened by image-only use, nor the other way.

    Threads may share one: every method is safe to call from several at once. Pickled or copied it goes by its folder:
    the copy opens the same files anew. `close`, or the end of a `with` block, gives the graphs' memory back.
    """

    def __init__(
        self,
        bundle: Bundle | ForeignModel | JoinedModel,
        *,
        threads: int,
        cache: Path | None = None,
        engine: Engine = "onnxruntime",
    ) -> None:
        self.bundle, self.engine = bundle, engine
        self._threads, self._cache = threads, cache
        self._graphs = {kind: self._lazy(kind, path) for kind, path in bundle.graphs.items()}

    def _lazy(self, kind: Kind, path: Path) -> LazySession:
        bundle = self._of(kind)
        ports = bundle.towers[kind].ports if isinstance(bundle, ForeignModel) else None
        if self.engine == "openvino":
            return LazySession(path, self._threads, OpenVinoSession, ports)
        open_ = partial(_open, bundle=bundle, cache=self._cache)
        return LazySession(path, self._threads, proved(open_) if bundle.needs_proof else open_, ports)

    def _of(self, kind: Kind) -> Bundle | ForeignModel:
        """What a tower is of."""
        return self.bundle.halves[kind] if isinstance(self.bundle, JoinedModel) else self.bundle

    @property
    def _image(self) -> LazySession:
        return self._graph("image")

    @property
    def _text(self) -> LazySession:
        return self._graph("text")

    def _graph(self, kind: Kind) -> LazySession:
        """A tower's graph.

        Raises:
            BundleError: there is none.
        """
        if kind not in self._graphs:
            raise self.bundle.without(kind)
        return self._graphs[kind]

    @cached_property
    def _prompts(self) -> PromptCache:
        return PromptCache(self._cache or NOWHERE, self.bundle.fingerprint, self.embedding_size)

    def __repr__(self) -> str:
        bundle = self.bundle
        images = f", images of {bundle.image_size}x{bundle.image_size}" if "image" in self._graphs else ""
        texts = f", texts of {bundle.context_length} tokens" if "text" in self._graphs else ""
        return (
            f"<ClipRuntime {bundle.name}: {bundle.precision}, {bundle.bytes / 1e6:.1f} MB, embeddings of "
            f"{self.embedding_size}{images}{texts}, {self._threads} threads, {self.engine}, {bundle.folder}"
            f"{', closed' if self.closed else ''}>"
        )

    def __reduce__(self) -> tuple[object, ...]:
        self._check_not_closed()
        asked: dict[str, Any] = {"engine": self.engine}
        if not isinstance(self.bundle, Bundle):
            asked |= {"precision": self.bundle.asked, "logit_scale": self.bundle.told_logit_scale}
            asked |= {"logit_bias": self.bundle.told_logit_bias} if self.bundle.is_siglip else {}
        place = self.bundle.folder.resolve()
        return partial(_reopen, **asked), (place, self.bundle.fingerprint, self._threads, self._cache)

    def __enter__(self) -> ClipRuntime:
        self._check_not_closed()
        return self

    def __exit__(self, *raised: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the graphs' memory back; whatever is asked for from then on is a BundleError. More than once is fine."""
        for graph in self._graphs.values():
            graph.close()

    @property
    def closed(self) -> bool:
        """Whether it was closed."""
        return all(graph.closed for graph in self._graphs.values())

    def _check_not_closed(self) -> None:
        for graph in self._graphs.values():
            graph.check_not_closed()

    @property
    def embedding_size(self) -> int:
        """E, the length of an embedding."""
        return self.bundle.embedding_size

    @property
    def logit_scale(self) -> float:
        """The factor on cosines that makes logits of them.

        Raises:
            BundleError: graphs of another program, or towers joined, none of whose files tells it.
        """
        return self.bundle.logit_scale

    @property
    def own_bundle(self) -> Bundle:
        """The bundle with its manifest.

        Raises:
            BundleError: it is another program's folder, or two joined, which have none.
        """
        if not isinstance(self.bundle, Bundle):
            raise self.bundle.unproven()
        return self.bundle

    @property
    def towers(self) -> list[Kind]:
        """Which of "image" and "text" can be encoded: both, where there is not one alone."""
        return list(self._graphs)

    @property
    def logit_bias(self) -> float | None:
        """What is added to logits before the sigmoid makes a probability of each; None where softmax does."""
        return self.bundle.logit_bias

    @property
    def open_graphs(self) -> list[str]:
        """Which of the graphs, "image" and "text", were needed yet; the others take no memory."""
        return [kind for kind, graph in self._graphs.items() if graph.is_open]

    def encode_image(
        self,
        images: Images,
        *,
        batch_size: int = 1,
        workers: int = 0,
        dtype: EmbeddingDtype = "float32",
        on_error: OnError = "raise",
        on_skip: OnSkip | None = None,
    ) -> NDArray[Any]:
        """Embed images.

        Args:
            images: one image, or any iterable of images, each a path, encoded bytes, a Pillow image, or a uint8 array
                of shape (H, W, 3), (H, W, 4) or (H, W). An array (N, H, W, 3) is N images.
            batch_size: images a run of the graph. int8 graphs choose one activation scale a layer for a whole batch; 1
                keeps an embedding independent of its neighbours, and is as fast.
            workers: threads, each of which decodes images and runs the graph; 0 does both in this one. For many images
                one for each processor, with a graph of 1 thread (`load(..., threads=1)`), gives the most.
            dtype: float32, float16, or int8: see `embedding_dtype.INT8_SCALE`.
            on_error: "raise" the error of the first image that can't be decoded; "skip" leaves such images out, and
                the result has rows for the others only.
            on_skip: called with the place of each image that is left out, from 0, and its error; where nobody is told,
                one Python warning names them.

        Returns:
            (N, E), L2-normalised `image_embeds`; one image is a row too: (1, E).

        Raises:
            ImageError: an image can't be decoded.
            BundleError: the graph can't be opened, or was closed.
            ConfigError: a number is out of range, or the dtype unknown.
            InputError: `images` are, or hold, something else than images.
        """
        check_dtype(dtype)
        skips = Skips(on_error, on_skip)
        rows: list[NDArray[np.float32]] = []
        sources = images_of(images)
        # No name for the stream: its threads end with the loop, not with the traceback of what was raised.
        for index, (_, embeds) in enumerate(self.stream_images(sources, batch_size=batch_size, workers=workers)):
            if isinstance(embeds, ImageError):
                skips(index, embeds)
            else:
                rows.append(embeds)
        skips.warn()
        return as_dtype(np.stack(rows) if rows else np.empty((0, self.embedding_size), np.float32), dtype)

    def stream_images(
        self, images: ImageSource | Iterable[ImageSource | Flush], *, batch_size: int = 1, workers: int = 0
    ) -> Iterator[Embedded]:
        """Embed images as they come, in order, with few of them in memory; endless iterators work.

        Args:
            images: as for `encode_image`; `stream.FLUSH` delivers what was begun before the next image is asked for.
            batch_size: as for `encode_image`. An image waits for the others of its batch.
            workers: as for `encode_image`.

        Returns:
            Each source with its embedding (E,), L2-normalised float32, or with the ImageError that it gave.

        Raises:
            BundleError, ConfigError, InputError: as for `encode_image`.
        """
        check_whole("`batch_size`", batch_size, 1, MAX_BATCH)
        check_whole("`workers`", workers, 0, MAX_WORKERS)
        self._image.check_not_closed()
        encode = self._image.run
        return embedded(images_or_flush(images), self.bundle.preprocess, encode, batch_size=batch_size, workers=workers)

    def encode_text(
        self,
        texts: str | Iterable[str],
        *,
        batch_size: int = 1,
        dtype: EmbeddingDtype = "float32",
        cached: bool = False,
    ) -> NDArray[Any]:
        """Embed texts. What is longer than the context length is cut, as CLIP does.

        Args:
            texts: one text, or any iterable of texts.
            batch_size: texts a run of the graph, of similar length, computed up to the longest one's end only. As for
                images, 1 keeps an embedding of an int8 graph independent of its neighbours.
            dtype: float32, float16, or int8: see `embedding_dtype.INT8_SCALE`.
            cached: look texts up in the prompt cache on disk, and keep there what was not in it. The graph is not
                opened where all are. They are encoded one by one, whatever `batch_size`.

        Returns:
            (M, E), L2-normalised `text_embeds`; one text is a row too: (1, E).

        Raises:
            BundleError: the graph can't be opened, or was closed.
            ConfigError: a number is out of range, or the dtype unknown.
            InputError: `texts` are, or hold, something else than strings.
        """
        check_dtype(dtype)
        check_whole("`batch_size`", batch_size, 1, MAX_BATCH)
        self._text.check_not_closed()
        texts = texts_of(texts)
        if self._lost_words is not None:
            self._lost_words.tell(texts)
        return as_dtype(self._cached_texts(texts) if cached else self._run_texts(texts, batch_size), dtype)

    def stream_texts(
        self, texts: str | Iterable[str | Flush], *, group: int = 1, batch_size: int = 1, workers: int = 0
    ) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Embed texts as they come, in order, with few of them in memory; endless iterators work.

        Args:
            texts: as for `encode_text`; `stream.FLUSH` as for `stream_images`.
            group: texts that are sorted by length together; a text waits for the others of its group.
            batch_size: as for `encode_text`.
            workers: threads that run the graph; 0 runs it in this one.

        Returns:
            Each text with its embedding (E,), L2-normalised float32.

        Raises:
            BundleError, ConfigError, InputError: as for `encode_text`.
        """
        check_whole("`workers`", workers, 0, MAX_WORKERS)
        check_whole("`group`", group, 1, MAX_GROUP)
        with threads(workers) as pool:
            encoded = in_order(
                lambda some: list(zip(some, self.encode_text(some, batch_size=batch_size), strict=True)),
                in_groups(items_of(texts, (str,), "`texts`", "strings"), group),
                pool,
                ahead=workers,
            )
            for rows in encoded:
                if not isinstance(rows, Flush):
                    yield from rows

    def _cached_texts(self, texts: Sequence[str]) -> NDArray[np.float32]:
        known = self._prompts.get(texts)
        unknown = [text for text in dict.fromkeys(texts) if text not in known]
        if unknown:
            found = dict(zip(unknown, self._run_texts(unknown, 1), strict=True))
            self._prompts.put(found)
            known |= found
        return np.array([known[text] for text in texts], np.float32).reshape(-1, self.embedding_size)

    @cached_property
    def _lost_words(self) -> LostWords | None:
        bundle = self._of("text")
        return LostWords.read(bundle) if isinstance(bundle, Bundle) else None

    def lost_words(self, texts: str | Iterable[str]) -> list[list[str]]:
        """Of each text the words that the bundle, which keeps not all of its teacher's, encodes otherwise than it does.

        Args:
            texts: one text, or any iterable of texts.

        Returns:
            A list of words for each text; empty lists where the bundle has all words.

        Raises:
            BundleError: the file that tells is malformed.
            InputError: `texts` are, or hold, something else than strings.
        """
        lost = self._lost_words
        return [[] if lost is None else lost.of(text) for text in texts_of(texts)]

    def _run_texts(self, texts: Sequence[str], batch_size: int) -> NDArray[np.float32]:
        graph, tokenizer = self._text, self.bundle.tokenizer
        ids = tokenizer.token_ids(texts)
        by_length = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        embeds_ME = np.empty((len(ids), self.embedding_size), np.float32)
        for start in range(0, len(ids), batch_size):
            batch = by_length[start : start + batch_size]
            input_ids_BT = tokenizer.padded([ids[i] for i in batch])
            mask_BT = np.arange(input_ids_BT.shape[1]) < np.array([[len(ids[i])] for i in batch])
            embeds_ME[batch] = graph.run(input_ids_BT, mask_BT, tokenizer.pad_token_id)
        return embeds_ME

    def classifier(self, labels: Iterable[str], *, template: str = "a photo of a {}") -> Classifier:
        """Zero-shot classification with these labels, of any number of embeddings; prompts come from the prompt cache.

        Args:
            labels: what to choose from.
            template: a sentence with {} where the label goes.

        Raises:
            BundleError: as for `encode_text`, and where the logit scale isn't known.
            ConfigError: no labels, or a template without {}.
            InputError: `labels` are one string, or hold something else than strings; or the template is none.
        """
        if isinstance(labels, str):
            raise InputError(f"`labels` {labels!r}", expected="a list of strings", fix="use labels.split(',')")
        labels = texts_of(labels, "`labels`")
        if not isinstance(template, str):
            raise InputError(
                f"`template` {template!r}", expected="a string with {}", fix="use `template` 'a photo of a {}'"
            )
        if not labels or "{}" not in template:
            raise ConfigError(
                f"{len(labels)} labels and the template {template!r}",
                expected="at least one label, and {} in the template",
                fix="give `labels`, and a `template` such as 'a photo of a {}'",
            )
        logit_scale = self.logit_scale  # before the work
        prompts = [template.replace("{}", label) for label in labels]
        return Classifier(tuple(labels), self.encode_text(prompts, cached=True), logit_scale, self.logit_bias)

    def classify(
        self, images: Images, labels: Iterable[str], *, template: str = "a photo of a {}"
    ) -> list[list[Label]]:
        """Classify images at once: `classifier` on `encode_image`, with the arguments and errors of both.

        Returns:
            For each image every label, the most probable first; probabilities sum to 1, or are each label's own: see
            `Classifier`. One image is a row too.
        """
        return self.classifier(labels, template=template)(self.encode_image(images))


def _open(
    path: Path, threads: int, *, bundle: Bundle | ForeignModel, cache: Path | None, precise: bool = False
) -> InferenceSession:
    """Open a graph, from the cache where there is one for it."""
    if cache is None or (entry := bundle.entry(path)) is None:
        return open_graph(path, threads, precise=precise)
    return GraphCache(cache / "graphs").open(path, threads, entry=entry, precise=precise)


def _reopen(folder: Path, fingerprint: str, threads: int, cache: Path | None, **asked: Any) -> ClipRuntime:
    """What a pickled runtime comes back as.

    Raises:
        BundleError: the folder holds another bundle by now, or none.
    """
    clip = load(folder, threads=threads, cache=cache, **asked)
    if clip.bundle.fingerprint != fingerprint:
        raise BundleError(
            f"{folder} with the fingerprint {clip.bundle.fingerprint}",
            expected=f"{fingerprint}, the one that was pickled",
            fix="load it anew where it is needed",
        )
    return clip


def load(
    source: str | Path,
    *,
    threads: int | None = None,
    cache: str | Path | None = USUAL_CACHE,
    engine: Engine | None = None,
    precision: str | None = None,
    logit_scale: float | None = None,
    logit_bias: float | None = None,
) -> ClipRuntime:
    """Load a bundle, or ONNX graphs that another program's exporter has written.

    Args:
        source: a folder made by `edgeclip export`; `builtin:tabletop`, the built-in teacher in int8; a folder in the
            layout of transformers.js, Immich or fastembed, see `runtime.foreign_layouts`; or a hub id (user/name) of
            any of these where there is no such folder, which is downloaded once and then taken from the hub's cache.
            Two of these with a + between them: the image tower of the first and the text tower of the second.
        threads: for the graphs; by default what a bundle was chosen for, else all processors.
        cache: folder for opened graphs and embedded prompts, so that the next process starts sooner; by default
            XDG_CACHE_HOME/edgeclip, or ~/.cache/edgeclip. None keeps nothing on disk.
        engine: "onnxruntime" or "openvino", which takes the extra `openvino` and a processor with VNNI; by default what
            a bundle was chosen for, or ONNX Runtime, with a warning, where that can't be used.
        precision: which graphs of another program's folder: fp32, fp16, q8, int8, uint8, q4, q4f16 or bnb4; by default
            the first of these that each tower has.
        logit_scale: of another program's folder, or of two towers, where no file tells it; `classify` needs it.
        logit_bias: the same, of a SigLIP.

    Raises:
        EdgeclipError: the bundle is incomplete, of a newer version, or a file is malformed; it can't be downloaded; a
            number of threads that no machine has; or an engine that can't be used here.
    """
    check_path("`source`", source)
    if cache is not None:
        check_path("`cache`", cache)
    if threads is not None:
        check_whole("`threads`", threads, 1, MAX_WORKERS)
    place = cache_folder() if cache == USUAL_CACHE else None if cache is None else Path(cache)
    model = read_model(source, precision=precision, logit_scale=logit_scale, logit_bias=logit_bias, cache=place)
    chosen = model.manifest if isinstance(model, Bundle) else None
    if threads is None:
        threads = processors() if chosen is None or chosen.threads is UNSET else min(chosen.threads, processors())
    usable = usable_engine(engine, UNSET if chosen is None else chosen.engine, source)
    return ClipRuntime(model, threads=threads, cache=place, engine=usable)
