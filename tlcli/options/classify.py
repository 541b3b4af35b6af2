"""The options of linear classifiers alone; see `tlcli.options`."""

from tlcli.options.option import Option

CLASSIFY = [
    Option(
        "spikes",
        "numbers",
        None,
        "linear-classify: strengths of any number of spikes of a free kernel, with commas (5,2,1).",
        panel="Ansatz",
        metavar="NUMBERS",
    ),
    Option(
        "overlaps",
        "numbers",
        None,
        "linear-classify: overlaps of the --spikes with the target's teacher, with commas (0.6,-0.4,0.2).",
        panel="Ansatz",
        metavar="NUMBERS",
    ),
]
