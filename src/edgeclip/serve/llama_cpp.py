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
    manifest = model.bundle.manifest
    return {
        "object": "list",
        "data": [
            {
                "id": request.app.state.name,
                "aliases": [ALIAS],
                "object": "model",
                "created": 0,
                "owned_by": "edgeclip",
                "architecture": {"input_modalities": ["text", "image"], "output_modalities": ["embeddings"]},
                "meta": {"n_ctx": model.bundle.config.text.context_length, "n_embd": model.clip.embedding_size},
                "fingerprint": manifest.fingerprint,
                "precision": manifest.precisions,
            }
        ],
    }


@router.get("/props", include_in_schema=False)
async def props(request: Request) -> dict[str, Any]:
    """What llama.cpp's server says of itself."""
    model: Model = request.app.state.model
    return {
        "default_generation_settings": {"n_ctx": model.bundle.config.text.context_length},
        "total_slots": 1,
        "model_alias": request.app.state.name,
        "modalities": {"vision": True, "audio": False},
        "media_marker": MEDIA_MARKER,
        "chat_template": "",
        "chat_template_caps": {"supports_tools": False},
    }
