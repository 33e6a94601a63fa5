"""Pictures that were made to do harm, sent instead of read; whole size in `make hostile`."""

from __future__ import annotations

import base64

import pytest

from tests.hostile.images import mutated_images
from tests.serve.conftest import Served
from tests.serve.test_immich import IMAGE, NAME, form


@pytest.mark.slow
def test_hostile_pictures_are_embedded_or_refused_in_one_line(served: Served):
    client = served(immich_name=NAME)
    answers: list[int] = []
    for number, (name, data) in enumerate(mutated_images(5, 60)):
        body = {"input": [{"image": base64.b64encode(data).decode()}]}
        given = [("/v1/embeddings", {"json": body}), ("/predict", form(IMAGE, image=data))][number % 2]
        answer = client.post(given[0], **given[1])
        assert answer.status_code in (200, 400), (name, answer.text)
        answers.append(answer.status_code)
        if answer.status_code == 400:
            assert len(answer.json()["detail"].splitlines()) == 1, name
    assert {200, 400} == set(answers)
    assert client.get("/healthz").status_code == 200
