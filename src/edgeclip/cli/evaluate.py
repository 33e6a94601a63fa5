"""`edgeclip evaluate`: recall of a model on a data set."""

from __future__ import annotations

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json
from edgeclip.measure.evaluation_settings import EvaluationSettings


def command(settings: EvaluationSettings, as_json: Json = False) -> None:
    """Recall at 1, 5 and 10 both ways, by the paper's protocol and the standard one, with 95 % intervals."""
    from edgeclip.measure.evaluation import evaluate
    from edgeclip.report.terminal import print_evaluation

    evaluation = evaluate(settings)
    print_json(evaluation) if as_json else print_evaluation(evaluation)
