"""How often a search says that there is nothing, and how often it could: a part of `search.py`.

Shape legend: N pictures, Q captions, D distractors, F figures.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from edgeclip.data.tabletop import Scene, describe, render, sample_scene
from edgeclip.data.tabletop.captions import PLACES
from edgeclip.search import Index
from edgeclip.search.queries import embed, terms_of

STYLES = ("plain", "relational", "tags", "counted", "brief")
FIGURES = ("confidence", "cosine", "z", "z_of_picture", "gap_to_2nd", "gap_to_10th", "median", "spread")
"""Of a caption: what the index says, and what else could tell whether there is a picture of it."""


def abstaining(folder: Path, count: int = 1_000, seeds: int = 3) -> dict[str, Any]:
    """How often a search says that there is nothing, for captions whose picture is indexed and for those of others;
    and what the best limit on other figures, chosen on the very captions that it is measured on, would come to. Each
    figure is the mean over seeds, followed by the worst.
    """
    worlds = [asked_of_a_world(folder / str(seed), seed, count) for seed in range(seeds)]
    report: dict[str, Any] = {"scenes": count, "seeds": seeds}
    for style in STYLES:
        there, others = ([world[style][part] for world in worlds] for part in ("there", "others"))
        fits = [world[style]["fits"] for world in worlds]
        abstained = [each[:, 0] < 0 for each in others]
        bounds = {name: [at_5_percent(a[:, n], b[:, n]) for a, b in zip(there, others, strict=True)]
                  for n, name in enumerate(FIGURES[:6])}  # fmt: skip
        bounds["logistic_of_all"] = [at_5_percent(*each) for each in logistic_of_others(there, others)]
        report[style] = {
            "wrong_abstentions": _mean_and_worst([np.mean(each[:, 0] < 0) for each in there], max),
            "abstentions": _mean_and_worst([np.mean(each) for each in abstained], min),
            "others_that_fit_a_picture": _mean_and_worst([np.mean(each) for each in fits], max),
            "abstentions_of_those_that_fit_none": _mean_and_worst(
                [np.mean(each[~fit]) for each, fit in zip(abstained, fits, strict=True)], min
            ),
            "recall_at_1": _mean_and_worst([np.mean(world[style]["first"]) for world in worlds], min),
            "abstentions_at_5_percent_wrong": {name: _mean_and_worst(each, min) for name, each in bounds.items()},
        }
    return report


def _mean_and_worst(values: list[Any], worst: Callable[[list[Any]], Any]) -> list[float]:
    return [round(float(np.mean(values)), 3), round(float(worst(values)), 3)]


def at_5_percent(there: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    return float(np.mean(others < np.quantile(there, 0.05)))


def asked_of_a_world(folder: Path, seed: int, count: int) -> dict[str, dict[str, NDArray[Any]]]:
    """Of each style the figures (Q, F) of captions of indexed scenes and of others, whether the former's own picture
    comes first, and whether the latter fit a picture all the same.
    """
    pictures, scenes = folder / "scenes", [sample_scene("benchmark", 2 * seed + 2, n) for n in range(count)]
    others = [sample_scene("benchmark", 2 * seed + 3, n) for n in range(count)]
    pictures.mkdir(parents=True)
    for number, scene in enumerate(scenes):
        Image.fromarray(render(scene)).save(pictures / f"{number:06d}.png", compress_level=1)
    shown = [(scene.background, things_of(scene)) for scene in scenes]
    asked = {}
    with Index.open(folder / "scenes.db", "builtin:tabletop") as index:
        index.add(pictures)
        pictures_NE = index._scan.sample(count)
        distractors = [describe(sample_scene("benchmark", 1_000, n))[n % len(STYLES)] for n in range(count)]
        cosines_ND = pictures_NE @ index.clip.encode_text(distractors).T
        level = cosines_ND.mean(1), cosines_ND.std(1)
        for style, name in enumerate(STYLES):
            captions = [[describe(scene)[style] for scene in part] for part in (scenes, others)]
            fits = [any(is_said(name, scene, text, *each) for each in shown)
                    for scene, text in zip(others, captions[1], strict=True)]  # fmt: skip
            there, others_QF = (_figures(index, part, pictures_NE, level) for part in captions)
            first = there[:, -1] == np.arange(count)
            asked[name] = {"there": there[:, :-1], "others": others_QF[:, :-1], "first": first, "fits": np.array(fits)}
    return asked


def _figures(
    index: Index, captions: list[str], pictures_NE: NDArray[np.float32], level: tuple[NDArray[np.float32], ...]
) -> NDArray[np.float64]:
    """`FIGURES` of each caption, and its best picture's number."""
    terms = [terms_of(text)[0] for text in captions]
    texts_QE = np.stack(embed(index.clip, terms, raw_prompt=False))
    known = [msgspec.structs.replace(term, embeds=text_E) for term, text_E in zip(terms, texts_QE, strict=True)]
    confidence = [index.search([term], k=1).confidence for term in known]
    cosines_QN = texts_QE @ pictures_NE.T
    best, second, *_, tenth = -np.sort(-cosines_QN, axis=1)[:, :10].T
    at, median = cosines_QN.argmax(1), np.median(cosines_QN, 1)
    spread = 1.4826 * np.median(np.abs(cosines_QN - median[:, None]), 1)
    of_picture = (best - level[0][at]) / level[1][at]
    columns = (confidence, best, (best - median) / spread, of_picture, best - second, best - tenth, median, spread, at)
    return np.column_stack(columns).astype(np.float64)


def logistic_of_others(there: list[Any], others: list[Any]) -> Iterator[tuple[Any, Any]]:
    """Each world's captions by a logistic regression of all figures, fitted on those of the other worlds."""
    for world in range(len(there)):
        rest = [n for n in range(len(there)) if n != world]
        x = np.concatenate([*(there[n] for n in rest), *(others[n] for n in rest)])
        y = np.repeat([1.0, 0.0], len(x) // 2)
        mean, spread = x.mean(0), x.std(0)
        z, weights = np.column_stack([(x - mean) / spread, np.ones(len(x))]), np.zeros(x.shape[1] + 1)
        for _ in range(30):  # Newton's method
            p = 1 / (1 + np.exp(-z @ weights))
            curvature = (z * (p * (1 - p))[:, None]).T @ z + 1e-3 * len(x) * np.eye(len(weights))
            weights -= np.linalg.solve(curvature, z.T @ (p - y) + 1e-3 * len(x) * weights)
        yield tuple((each[world] - mean) / spread @ weights[:-1] for each in (there, others))


def things_of(scene: Scene) -> Counter[tuple[str, ...]]:
    """How many things of a kind there are; of a kind and colour; with the material; with the size."""
    looks = [(thing.kind, thing.color, thing.material, thing.size) for thing in scene.things]
    return Counter(look[:known] for look in looks for known in range(1, 5))


def is_said(style: str, scene: Scene, caption: str, place: str, things: Counter[tuple[str, ...]]) -> bool:
    """Whether a picture shows all that a caption says of its own scene, except where things stand to each other."""
    says_place = style != "brief" or any(caption.endswith(words) for words in PLACES[scene.background])
    if says_place and place != scene.background:
        return False
    for number, group in enumerate(scene.groups):
        known = {"counted": 3, "brief": 2 if number < 2 else 1}.get(style, 4)
        look = (group.first.kind, group.first.color, group.first.material, group.first.size)[:known]
        if things[look] < len(group.things):
            return False
    return True
