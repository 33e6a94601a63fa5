"""The package as other programs stand on it: its names, their types, what each needs."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import edgeclip

USER = """
import pickle
from pathlib import Path

import edgeclip
import numpy as np

clip: edgeclip.ClipRuntime = edgeclip.load("builtin:tabletop", threads=1)
size: int = clip.embedding_size
scale: float = clip.logit_scale
images = clip.encode_image(["a.jpg", b"...", np.zeros((8, 8, 3), np.uint8)], batch_size=2, dtype="float16")
one = clip.encode_image("a.jpg")
frames = clip.encode_image(np.zeros((4, 8, 8, 3), np.uint8), workers=2)
readable = clip.encode_image(
    (path for path in Path("pictures").iterdir()),
    on_error="skip",
    on_skip=lambda index, error: print(index, error.got),
)
texts = clip.encode_text(["a red ball"], cached=True)
text = clip.encode_text("a red ball")
words = clip.encode_text(np.array(["a", "b"]))
for source, row in clip.stream_images(Path("pictures").iterdir()):
    print(source, row if isinstance(row, edgeclip.ImageError) else row.shape)
with edgeclip.load("builtin:tabletop") as other:
    best_label: str = other.classify("a.jpg", ("ball", "box"))[0][0].name
    copied: edgeclip.ClipRuntime = pickle.loads(pickle.dumps(other))
closed: bool = other.closed
clip.close()
similarities = images @ texts.T
classifier: edgeclip.Classifier = clip.classifier(["ball", "box"], template="a {}")
labels: list[list[edgeclip.Label]] = clip.classify(["a.jpg"], ["ball", "box"])
best: str = labels[0][0].name
probability: float = labels[0][0].probability
try:
    manifest, card = edgeclip.export("builtin:tabletop", "bundle", samples=200, precision="auto")
    kept: bool = card.keeps_accuracy
    evaluation = edgeclip.evaluate("bundle", data="builtin:tabletop", samples=100)
    recall: float = evaluation.i2t.r1.value
    results = edgeclip.distill("builtin:tabletop", "half", "runs/half", resume=True)
    if results is not None:
        print([row.name for row in results.rows])
    compressed = edgeclip.compress("builtin:tabletop", "small", max_image_ms=5.0, max_drop=1.0)
    fits: bool = compressed.fits
    fastest: float = compressed.figures.image_ms
except (
    edgeclip.BundleError,
    edgeclip.CheckpointError,
    edgeclip.ConfigError,
    edgeclip.DataError,
    edgeclip.HubError,
    edgeclip.ImageError,
    edgeclip.InputError,
    edgeclip.TokenizerError,
    edgeclip.TrainingError,
) as error:
    got: str = error.got
except edgeclip.EdgeclipError as error:
    print(error.fix)
print(edgeclip.__version__)
"""


def run(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=cwd)


def test_all_names_are_there():
    assert sorted(edgeclip.__all__) == edgeclip.__all__
    for name in edgeclip.__all__:
        assert getattr(edgeclip, name) is not None
        assert name in USER, f"{name} is not typed by the test below"
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        edgeclip.lode  # noqa: B018


def test_a_users_file_passes_strict_mypy(tmp_path: Path):
    (tmp_path / "user.py").write_text(USER)
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "user.py"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    (tmp_path / "user.py").write_text(USER.replace("size: int", "size: str"))
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 1
    assert 'expression has type "int", variable has type "str"' in done.stdout


def test_importing_it_is_instant():
    """What takes time is imported when it is used."""
    code = "import sys, edgeclip; print([m for m in ('numpy', 'onnxruntime', 'PIL', 'rich') if m in sys.modules])"
    assert run(code).stdout == "[]\n"


def test_makers_are_called_by_the_names_of_their_rooms():
    """In whichever order rooms and makers are met."""
    code = (
        "import edgeclip.evaluate.retrieval, edgeclip\nfrom edgeclip.export import export_bundle\n"
        "assert callable(edgeclip.evaluate) and callable(edgeclip.export) and callable(edgeclip.distill)\n"
        "assert edgeclip.evaluate.retrieval.KS == (1, 5, 10)\n"
        "try:\n    edgeclip.evaluate('nothing', sample=3)\n"
        "except edgeclip.ConfigError as error:\n    print(error)\n"
    )
    done = run(code)
    assert done.returncode == 0, done.stderr
    assert "unknown field `sample`" in done.stdout


def test_makers_make(tmp_path: Path, mini_checkpoint: Path, captioned_folder: Path):
    out = tmp_path / "bundle"
    manifest, card = edgeclip.export(
        mini_checkpoint, out, data=str(captioned_folder), samples=4, precision="fp32", workers=0, threads=1
    )
    assert (manifest.precision, card.pairs) == ("fp32", 4)
    evaluation = edgeclip.evaluate(out, data=str(captioned_folder), workers=0, threads=1)
    assert evaluation.images == 18


@pytest.mark.parametrize("call", ["export('m', 'out')", "evaluate('m')", "distill('m', 'half', 'out')"])
def test_without_its_extra_a_maker_names_it(call: str, tmp_path: Path):
    blocked = "import sys; sys.modules.update(dict.fromkeys(['torch', 'accelerate', 'safetensors', 'onnx']))\n"
    code = (
        f"{blocked}import edgeclip\ntry:\n    edgeclip.{call}\nexcept edgeclip.ConfigError as error:\n    print(error)"
    )
    done = run(code, cwd=tmp_path)
    assert "is missing; expected the compress extra; pip install 'edgeclip[compress]'" in done.stdout, done.stderr


def test_the_builtin_bundle_needs_nothing(tmp_path: Path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'safetensors', 'onnx', 'huggingface_hub']))\n"
        "import edgeclip\nfrom edgeclip.data.tabletop import describe, render, sample_scene\n"
        "clip = edgeclip.load('builtin:tabletop', threads=1)\n"
        "scenes = [sample_scene('measure', 5, n) for n in range(8)]\n"
        "images = clip.encode_image([render(scene) for scene in scenes])\n"
        "texts = clip.encode_text([describe(scene)[0] for scene in scenes])\n"
        "print((images @ texts.T).argmax(axis=1).tolist())\n"
        "print(clip.classify([render(scenes[0])], ['a', 'b'])[0][0].name in 'ab')"
    )
    done = run(code, cwd=tmp_path)
    ranks, known = done.stdout.splitlines()
    assert sum(a == b for a, b in enumerate(json.loads(ranks))) >= 7
    assert known == "True"


def test_the_module_runs_as_the_command():
    done = subprocess.run([sys.executable, "-m", "edgeclip", "--version"], capture_output=True, text=True)
    assert done.stdout.strip() == f"edgeclip {edgeclip.__version__}"
