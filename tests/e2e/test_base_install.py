"""What a device has: the wheel without its extras, in an environment of its own; and what a packager gets."""

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.once import MadeOnce

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ["torch", "transformers", "onnx", "safetensors", "datasets"]
LOAD = f"""
import importlib.util, sys, edgeclip
print([name for name in {EXTRAS!r} if importlib.util.find_spec(name)])
for source in (sys.argv[1], "builtin:tabletop"):
    clip = edgeclip.load(source, threads=1)
    print(clip.encode_image([sys.argv[2]]).shape, clip.encode_text(["a", "b"]).shape)
"""
LEFT_OUT = (
    ".git",
    ".venv",
    ".*_cache",
    ".hypothesis",
    ".coverage*",
    "runs",
    "build",
    "dist",
    "node_modules",
    "*.egg-info",
    "__pycache__",
    "site",
)
MAX_WHEEL_BYTES = 24_000_000


@pytest.fixture(scope="session")
def packages(once: MadeOnce) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built from it alone."""
    folder = once("packages", build)
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    return sdist, wheel


@pytest.fixture(scope="session")
def device(packages: tuple[Path, Path], once: MadeOnce) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command of an environment with the base dependencies alone."""
    folder = once("device", lambda folder: install(packages[1], folder))
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


def build(folder: Path) -> None:
    """Build both, from a copy, since building writes beside the sources."""
    shutil.copytree(ROOT, folder / "source", ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(folder / "source")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def install(wheel: Path, folder: Path) -> None:
    """Make the environment; where there is neither a network nor a cache of packages, leave the reason."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    pip = [sys.executable, "-m", "pip", "--python", str(folder), "--quiet", "--disable-pip-version-check"]
    needed = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    offline = ["--retries", "0", "--timeout", "10", "--constraint", str(ROOT / "constraints.txt")]
    done = subprocess.run(
        [*pip, "install", "--no-compile", *offline, *needed], capture_output=True, text=True, check=False
    )
    if done.returncode:
        (folder / "reason.txt").write_text(done.stderr.strip().splitlines()[-1])
        return
    subprocess.run([*pip, "install", "--no-compile", "--no-deps", str(wheel)], check=True)


def test_the_wheel_has_what_a_device_needs_and_is_small(packages: tuple[Path, Path]):
    names = zipfile.ZipFile(packages[1]).namelist()
    assert {"edgeclip/py.typed", "edgeclip/report/templates/page.html", "edgeclip/assets/recipes/half.toml"} <= set(
        names
    )
    assert {"edgeclip/assets/tabletop-int8/edgeclip.json", "edgeclip/assets/tabletop/model.safetensors"} <= set(names)
    assert not [name for name in names if name.startswith("tests/")]
    assert packages[1].stat().st_size < MAX_WHEEL_BYTES
    bundle = sum(file.file_size for file in zipfile.ZipFile(packages[1]).filelist if "tabletop-int8" in file.filename)
    assert bundle < 8_000_000


def test_the_sdist_has_what_the_tests_need(packages: tuple[Path, Path]):
    with tarfile.open(packages[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    tracked = subprocess.run(["git", "ls-files"], capture_output=True, text=True, cwd=ROOT, check=False)
    if tracked.returncode:
        pytest.skip("not a git checkout: nothing says which files belong to it")
    wanted = [name for name in tracked.stdout.split() if name.startswith(("tests/", "recipes/", "src/"))]
    assert [name for name in wanted if name not in names] == []
    assert {"Makefile", "constraints.txt", "pyproject.toml", "README.md", "LICENSE"} <= names


def test_a_bundle_works_without_the_extras(device, bundle: Path, captioned_folder: Path, tmp_path: Path):
    picture = captioned_folder / "images" / "000.jpg"
    loaded = device("python", "-c", LOAD, bundle, picture)
    assert loaded.stdout.splitlines() == ["[]", "(1, 16) (2, 16)", "(1, 256) (2, 256)"], loaded.stderr
    for arguments in (
        ["inspect", bundle],
        ["inspect", bundle, "--json"],
        ["verify", bundle],
        ["classify", bundle, picture, "--labels", "ball,box"],
        ["embed", bundle, "--texts", captioned_folder / "captions.csv", "--out", tmp_path / "texts.csv"],
        ["classify", "builtin:tabletop", picture, "--labels", "ball,box"],
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
