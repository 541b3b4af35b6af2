"""A user's script, for type checkers alone: `make lint` has mypy and pyright read it against the public stub."""

import numpy as np

import tlcli

result = tlcli.finetune_loss(alpha1=0.5, alpha2=np.linspace(0.05, 1.5, 3), rho=[0.5, 0.9], gamma0="0,1")
total = result["loss"] + result["baseline"]
names: tuple[str, ...] = result.columns
counts: dict[str, int] = result.status
sentence: str = result.verdict
again = tlcli.run("fig1b", gamma0=[0, 1, 2], jobs=2)
again.save("results/mine")
tlcli.check(tlcli.load("results/mine"))

# What the functions do not take is seen: an ignore that is not needed is an error.
tlcli.finetune_loss(alpha1=object())  # type: ignore[arg-type]
tlcli.finetune_loss(alpha3=1.0)  # type: ignore[call-arg]
