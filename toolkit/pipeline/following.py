"""A command that several processes share, as `torchrun` starts them.

The first process does all there is to do, and calls the others to its loops. They wait for that, compute
their share of each batch, and need neither its flags nor its workspace: only the data, under the same path.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.reporter import Silent
from ehdnas.pipeline.tasks import search_task, train_task, trial_task
from ehdnas.pipeline.trainee import Trainee, of_genotype, of_module
from ehdnas.search.processes import Processes, current, joined
from ehdnas.search.searcher import Searcher
from ehdnas.search.spaces.base import NetworkShape
from ehdnas.search.trainer import Trainer
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace

T = TypeVar("T")
Stage = Literal["search", "trial", "train"]

_INTERRUPTED = 130
_ENOUGH = ""  # what is posted when no loop will follow
_NOWHERE = Path()  # the others neither read nor write


class Call(BaseModel):
    """What the others must know of a loop they join: all that changes what is computed."""

    stage: Stage
    settings: Settings
    shape: NetworkShape
    resume: bool
    genotype: str = ""
    module: str = ""
    epochs: int = 0


def shared(command: Callable[[], T]) -> T | int:
    """Return what the command returns, run by the first process; 0 on the others, when it needs no more.

    Raises:
        SystemExit: another process failed first, and says why.
    """
    with joined() as processes:
        try:
            return _command_or_follow(command, processes)
        except KeyboardInterrupt:
            if processes.first:
                raise
            raise SystemExit(_INTERRUPTED) from None
        except Exception:
            if processes.claim_failure():
                raise
            raise SystemExit(1) from None


def _command_or_follow(command: Callable[[], T], processes: Processes) -> T | int:
    if not processes.first:
        _follow(processes)
        return 0
    try:
        return command()
    finally:
        processes.post(_ENOUGH)


def call(context: Context, stage: Stage, resume: bool, what: Trainee | None = None, epochs: int = 0) -> None:
    """Call the other processes to the loop of a stage, which the caller then begins; alone, do nothing.

    Args:
        what: the network, of a training or a trial.
        epochs: of a trial.
    """
    processes = current()
    if processes.count > 1:
        of = {} if what is None else {"genotype": what.genotype, "module": what.module}
        made = Call(
            stage=stage, settings=context.settings, shape=context.shape, resume=resume, epochs=epochs, **of
        )
        processes.post(made.model_dump_json())


def _follow(processes: Processes) -> None:
    """Join each loop that the first process calls to, until it has had enough."""
    for number in count(1):
        text = processes.await_post(number)
        if text == _ENOUGH:
            return
        _join_in(Call.model_validate_json(text))


def _join_in(called: Call) -> None:
    context = Context(called.settings, Workspace(_NOWHERE), Silent())
    vars(context)["shape"] = called.shape  # it may follow from a device that only the first process knows
    made: Searcher | Trainer
    if called.stage == "search":
        made = Searcher(search_task(context), _NOWHERE)
    else:
        what = of_module(context, called.module) if called.module else of_genotype(context, called.genotype)
        trial = called.stage == "trial"
        task = trial_task(context, what, called.epochs) if trial else train_task(context, what)
        made = Trainer(task, _NOWHERE)
    if called.resume:
        made.resume()
    made.run(context.reporter.progress)
