"""Records with their places, and what a case's experiments would run, as the run package puts them together."""

from tlcli.run.solve import planned
from tlcli.sweep.runner import Placed


def placed(records, draws=1):
    """Place records that are in the order of the points, draws fastest."""
    return [Placed(index // draws, index % draws, record) for index, record in enumerate(records)]


def experiments_of(case, settings, seed=0):
    """Return all tasks of a case's experiments, and what every variant is."""
    parts = planned(case, {**settings, "seed": seed})
    return [task for *_, tasks in parts for task in tasks], [variant for variant, *_ in parts]


def check_experiments(case, settings):
    """Refuse what the experiments of a case cannot represent."""
    for experiment in case.experiments:
        experiment.check(case, settings)


def merged(experiment, case, records, draws):
    """Return the merged record of every point, given as a list that is in the order of the points, draws fastest."""
    every = placed(records, draws)
    return [experiment.merge(case, every[i : i + draws]) for i in range(0, len(every), draws)]
