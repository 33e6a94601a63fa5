"""`edgeclip reproduce`: the paper's table, from any checkpoint and data set."""

from __future__ import annotations

from edgeclip.cli.options import OutFolder, Resume
from edgeclip.reproduce.paper_settings import Settings


def command(settings: Settings, out: OutFolder, resume: Resume = False) -> None:
    """The paper's teacher, quantized and distilled students, with edgeclip's int8 bundle beside them."""
    from edgeclip.files import own_output_folder
    from edgeclip.report.html import write_report
    from edgeclip.report.terminal import print_results
    from edgeclip.reproduce.pipeline import reproduce
    from edgeclip.results import REPORT, RESULTS, write_results

    with own_output_folder(out):
        results = reproduce(settings, out, resume=resume)
        write_results(results, out / RESULTS)
        write_report(results, out / REPORT)
    print_results(results)
    print(f"\n{out / RESULTS}\n{out / REPORT}")
