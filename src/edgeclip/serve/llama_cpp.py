"""What llama.cpp's clients ask a server about its model; Frigate's provider does. Its `/embeddings` is `embeddings`'.

Source: blakeblackshear/frigate, frigate/genai/plugins/llama_cpp.py.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request

from edgeclip.serve.inputs import MEDIA_MARKER
from edgeclip.serve.model import Model

router = APIRouter()
ALIAS = "edgeclip"
"""What any bundle answers to as well, for configurations that outlive one."""


@router.get("/models", include_in_schema=False)
@router.get("/v1/models")
async def models(request: Request) -> dict[str, Any]:
    """The one model that is served."""
    model: Model = request.app.state.model
    bundle, modalities = model.bundle, [kind for kind in ("text", "image") if kind in model.clip.towers]
    return {
        "object": "list",
        "data": [
            {
                "id": request.app.state.name,
                "aliases": [ALIAS],
                "object": "model",
                "created": 0,
                "owned_by": "edgeclip",
                "architecture": {"input_modalities": modalities, "output_modalities": ["embeddings"]},
                "meta": {"n_ctx": _context(model), "n_embd": model.clip.embedding_size},
                "fingerprint": bundle.fingerprint,
                "precision": bundle.precision,
            }
        ],
    }


@router.get("/props", include_in_schema=False)
async def props(request: Request) -> dict[str, Any]:
    """What llama.cpp's server says of itself."""
    model: Model = request.app.state.model
    return {
        "default_generation_settings": {"n_ctx": _context(model)},
        "total_slots": 1,
        "model_alias": request.app.state.name,
        "modalities": {"vision": "image" in model.clip.towers, "audio": False},
        "media_marker": MEDIA_MARKER,
        "chat_template": "",
        "chat_template_caps": {"supports_tools": False},
    }


def _context(model: Model) -> int:
    """Tokens of a text at most; 0 where only images are encoded."""
    return model.bundle.context_length if "text" in model.clip.towers else 0
