"""Inference over a bundle with numpy, onnxruntime, pillow, tokenizers and ftfy only."""

from edgeclip.runtime.classifier import Classifier, Label
from edgeclip.runtime.clip import ClipRuntime, load
from edgeclip.runtime.selftest import self_test

__all__ = ["Classifier", "ClipRuntime", "Label", "load", "self_test"]
