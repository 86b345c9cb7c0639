"""The whole loop from Python: a device, data and a budget in; a trained, exported, verified network out."""

from pathlib import Path

from ehdnas.pipeline.context import Context
from ehdnas.pipeline.export import export_run
from ehdnas.pipeline.profile import profile
from ehdnas.pipeline.reporter import Silent
from ehdnas.pipeline.search import search
from ehdnas.pipeline.train import train
from ehdnas.pipeline.verify import verify
from ehdnas.settings import Settings
from ehdnas.workspace import Workspace


def best_network(settings: Settings, folder: Path) -> tuple[str, str, float]:
    """Return the verdict, the genotype and the test accuracy; files are in the folder's workspace."""
    context = Context(settings, Workspace(folder), Silent())
    profile(context)  # measured once: another search, with another budget, begins here
    run = search(context)
    trained = train(context, run)
    export_run(context, run, ["tflite"], None)
    return verify(context, run)["verdict"], run.genotype, trained["test_accuracy"]


if __name__ == "__main__":
    asked = Settings(data="digits", device="ehdnas-generic", budget="0.7x")
    print(*best_network(asked, Path.cwd()))
