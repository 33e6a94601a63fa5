from pathlib import Path

import numpy as np
import pytest

from edgeclip.errors import ConfigError, InputError
from edgeclip.runtime import Classifier, ClipRuntime


@pytest.mark.parametrize(
    ("labels", "template", "message"),
    [
        (
            "cat, dog",
            "a {}",
            r"`labels` 'cat, dog'; expected a list of strings; use labels\.split",
        ),
        (None, "a {}", "`labels` of the type NoneType"),
        (["cat", 3], "a {}", "`labels` with one of the type int at index 1"),
        ({"cat": 1}, "a {}", "`labels` of the type dict"),
        (["cat"], ["{}"], r"`template` \['{}'\]; expected a string"),
        (["cat"], None, "`template` None"),
        (["cat"], b"{}", "`template` b'{}'"),
    ],
)
def test_arguments_of_another_type_are_one_line(clip: ClipRuntime, labels: object, template: object, message: str):
    with pytest.raises(InputError, match=message):
        clip.classify([], labels, template=template)


def test_no_labels_and_no_place_for_them(clip: ClipRuntime):
    with pytest.raises(ConfigError, match="0 labels"):
        clip.classifier(iter([]))
    with pytest.raises(ConfigError, match="without braces"):
        clip.classifier(["cat"], template="without braces")


def test_labels_from_any_iterable_and_one_image(clip: ClipRuntime, pictures: list[Path]):
    expected = clip.classify([pictures[0]], ["cat", "dog"])
    for labels in (("cat", "dog"), iter(["cat", "dog"]), np.array(["cat", "dog"])):
        assert clip.classify(str(pictures[0]), labels) == expected
    assert type(clip.classify(pictures[0], np.array(["cat"]))[0][0].name) is str


def test_embeddings_of_any_type_that_is_given_out(clip: ClipRuntime, pictures: list[Path]):
    """int8 is a direction too: taken as it is, it would make logits 127 times too large."""
    classifier = clip.classifier(["cat", "dog", "a red ball"])
    expected = [[label.probability for label in row] for row in classifier(clip.encode_image(pictures))]
    for dtype, tolerance in (("float16", 5e-3), ("int8", 0.15)):
        rows = classifier(clip.encode_image(pictures, dtype=dtype))
        np.testing.assert_allclose([[label.probability for label in row] for row in rows], expected, atol=tolerance)
    one = clip.encode_image(pictures[0])
    assert classifier(one[0]) == classifier(one)


def test_by_hand():
    classifier = Classifier(("x", "y"), np.eye(2, dtype=np.float32), np.log(3).item())
    first, second = classifier(np.array([127, 0], np.int8))[0]
    assert (first.name, second.name) == ("x", "y")
    assert first.probability == pytest.approx(0.75, abs=1e-6)


@pytest.mark.parametrize(
    "embeds", [np.zeros((2, 3), np.float32), np.zeros((1, 1, 2), np.float32), np.array(["a", "b"]), [[1.0, 0.0]], None]
)
def test_other_things_than_embeddings(embeds: object):
    classifier = Classifier(("x",), np.zeros((1, 2), np.float32), 1.0)
    with pytest.raises(InputError, match=r"`image_embeds`.*expected what `encode_image` gives, \(N, 2\)"):
        classifier(embeds)
    assert repr(classifier) == "Classifier(labels=('x',), logit_scale=1.0, logit_bias=None)"
