"""Options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Optional

import typer

Data = Annotated[str, typer.Option(help="builtin:tabletop, a folder, a captions file, or a hub data set.")]
Seed = Annotated[int, typer.Option(help="Which sample and split, and which scenes of the built-in world.")]
Workers = Annotated[int, typer.Option(help="Processes that decode images; 0 decodes in this one.")]
Threads = Annotated[Optional[int], typer.Option(help="Threads that run the model; all processors by default.")]
RuntimeThreads = Annotated[
    Optional[int], typer.Option(min=1, max=256, help="Threads that run the graphs; all processors by default.")
]
BulkThreads = Annotated[int, typer.Option(min=1, max=256, help="Threads of one run of the graph.")]
BulkWorkers = Annotated[
    Optional[int], typer.Option(min=0, max=256, help="Images worked on at once; as many as processors by default.")
]
ImagePaths = Annotated[
    Optional[list[str]], typer.Argument(metavar="PATHS...", help="Images, folders, or - for a list on standard input.")
]
Vocabulary = Annotated[
    Optional[Path], typer.Option("--vocab", help="bpe_simple_vocab_16e6.txt.gz, for checkpoints without a tokenizer.")
]
ImageColumn = Annotated[Optional[str], typer.Option(help="Column of the images; found where it is not given.")]
CaptionColumn = Annotated[Optional[str], typer.Option(help="Column of the captions; found where it is not given.")]
SplitName = Annotated[
    Optional[str], typer.Option("--split", help="Part of a hub data set; by default test, for distill train.")
]
OnBadImage = Annotated[Literal["skip", "fail"], typer.Option(help="skip (counted and named) or fail.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the state in the output folder.")]
