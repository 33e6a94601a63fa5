"""What a device has: edgeclip without its extras, in an environment of its own."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.once import MadeOnce

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ["torch", "transformers", "onnx", "safetensors", "datasets"]
LOAD = f"""
import importlib.util, sys, edgeclip
print([name for name in {EXTRAS!r} if importlib.util.find_spec(name)])
clip = edgeclip.load(sys.argv[1], threads=1)
print(clip.encode_image([sys.argv[2]]).shape, clip.encode_text(["a", "b"]).shape)
"""


@pytest.fixture(scope="session")
def device(once: MadeOnce) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of an environment with the base dependencies alone."""
    folder = once("device", install)
    if not (folder / "bin" / "edgeclip").is_file():
        pytest.skip(f"pip cannot install the base dependencies: {(folder / 'reason.txt').read_text()}")

    def run(command: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "COV"))}
        return subprocess.run(
            [str(folder / "bin" / command), *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=folder,
            env=environment,
            check=False,
        )

    return run


def install(folder: Path) -> None:
    """Make the environment; where there is neither a network nor a cache of packages, leave the reason."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "--quiet", "--disable-pip-version-check"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    offline = ["--retries", "0", "--timeout", "10", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [*pip, "install", "--no-compile", *offline, *needed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        (folder / "reason.txt").write_text(done.stderr.strip().splitlines()[-1])
        return
    # A copy, since building writes beside the sources.
    shutil.copytree(ROOT / "src", folder / "source" / "src", ignore=shutil.ignore_patterns("*.egg-info", "__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source")
    subprocess.run(
        [*pip, "install", "--no-compile", "--no-deps", "--no-build-isolation", str(folder / "source")], check=True
    )


def test_a_bundle_works_without_the_extras(device, bundle: Path, captioned_folder: Path, tmp_path: Path):
    picture = captioned_folder / "images" / "000.jpg"
    loaded = device("python", "-c", LOAD, bundle, picture)
    assert loaded.stdout.splitlines() == ["[]", "(1, 16) (2, 16)"], loaded.stderr
    for arguments in (
        ["inspect", bundle],
        ["inspect", bundle, "--json"],
        ["verify", bundle],
        ["classify", bundle, picture, "--labels", "ball,box"],
        ["embed", bundle, "--texts", captioned_folder / "captions.csv", "--out", tmp_path / "texts.csv"],
        ["embed", bundle, captioned_folder, "--out", tmp_path / "out.npy"],
    ):
        done = device("edgeclip", *arguments)
        assert done.returncode == 0, done.stderr
    assert "rows" in done.stdout


def test_a_command_that_needs_an_extra_names_it_in_one_line(device, tmp_path: Path):
    done = device("edgeclip", "export", "builtin:tabletop", "--out", tmp_path / "bundle")
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert "pip install 'edgeclip[compress]'" in line
    assert not (tmp_path / "bundle").exists()
