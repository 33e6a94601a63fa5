"""Which instructions multiply int8 on this processor, and what that means for a bundle."""

from __future__ import annotations

from edgeclip.evaluate.environment import cpu_flags

KINDS = (
    ({"amx_int8"}, "AMX tiles, exact"),
    ({"avx512_vnni"}, "AVX-512 VNNI (vpdpbusd), exact"),
    ({"avx_vnni"}, "AVX VNNI (vpdpbusd), exact"),
    ({"avx2"}, "AVX2 (vpmaddubsw), pairs summed in 16 bits: exact with the 7-bit weights of a bundle"),
    ({"i8mm"}, "Arm i8mm (smmla), exact"),
    ({"asimddp"}, "Arm dot product (sdot), exact"),
    ({"asimd"}, "Arm NEON (smlal), exact"),
)
"""Features that a processor must have, the fastest first, and what ONNX Runtime then uses."""


def int8_arithmetic() -> str:
    """In words, what int8 layers are computed with here."""
    flags = cpu_flags()
    return next((words for needed, words in KINDS if needed <= flags), "the compiler's choice of instructions, exact")
