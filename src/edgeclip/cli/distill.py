"""`edgeclip distill`: a smaller or better int8 model, taught by a checkpoint."""

from __future__ import annotations

from edgeclip.cli.console import print_json
from edgeclip.cli.options import Json, OutFolder, Resume
from edgeclip.compress.distill_settings import DistillSettings


def command(settings: DistillSettings, out: OutFolder, resume: Resume = False, as_json: Json = False) -> None:
    """Distil a student, export its int8 bundle, and measure it beside its teacher."""
    from edgeclip.compress.experiment import distill
    from edgeclip.files import own_output_folder
    from edgeclip.report.html import write_report
    from edgeclip.report.terminal import print_results
    from edgeclip.results import REPORT, RESULTS, write_results

    with own_output_folder(out):
        results = distill(settings, out, resume=resume)
        if results is None:
            return
        write_results(results, out / RESULTS)
        write_report(results, out / REPORT)
    if as_json:
        print_json(results)
    else:
        print_results(results)
        print("\n" + "\n".join(str(out / name) for name in ("checkpoint", "bundle", RESULTS, REPORT)))
