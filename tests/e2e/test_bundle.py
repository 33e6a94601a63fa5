"""`edgeclip export`, `verify` and `classify`, and the runtime where torch is not installed."""

import json
import subprocess
import sys
from pathlib import Path


def test_verify_and_classify(edgeclip, bundle: Path, captioned_folder: Path):
    done = edgeclip("verify", bundle)
    assert done.returncode == 0, done.stderr
    assert "6 files as they were made" in done.stdout
    picture = captioned_folder / "images" / "000.jpg"
    done = edgeclip("classify", bundle, picture, picture, "--labels", "ball, box,", "--json")
    assert done.returncode == 0, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert [set(line["labels"]) for line in lines] == [{"ball", "box"}] * 2


def test_an_output_that_is_no_bundle_is_not_replaced(edgeclip, mini_checkpoint: Path, captioned_folder: Path):
    done = edgeclip("export", mini_checkpoint, "--out", captioned_folder)
    assert done.returncode == 2
    assert "which is no bundle" in done.stderr
    assert (captioned_folder / "captions.csv").is_file()


def test_a_tampered_bundle_is_refused(edgeclip, bundle: Path, tmp_path: Path):
    done = edgeclip("verify", tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("edgeclip: ")


def test_the_runtime_works_without_torch(bundle: Path, captioned_folder: Path):
    code = (
        "import sys; sys.modules.update(dict.fromkeys(['torch', 'transformers', 'safetensors', 'onnx', 'datasets']))\n"
        f"import edgeclip\nclip = edgeclip.load({str(bundle)!r}, threads=1)\n"
        f"images = clip.encode_image([{str(captioned_folder / 'images' / '000.jpg')!r}])\n"
        "print(images.shape, clip.encode_text(['a', 'b']).shape)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "(1, 16) (2, 16)", done.stderr
