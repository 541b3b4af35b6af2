"""Closed forms at ordinary and at extreme values: no warning of the runtime reaches the user."""

import warnings

import pytest


@pytest.mark.parametrize(
    "command",
    [
        "phase-diagram --x rho=-1:1:5 --y weight_decay=0,1e-3,1",
        "phase-diagram --x rho=-1:1:3 --y weight_decay=0,1e-300,1e-3,1 --init-scale 0 --alpha1 0.5",
        "phase-diagram --x alpha2=0.5,1.1 --y gamma0=0,1e-8,1 --init-scale 0",
        "phase-diagram --x alpha2=0.5,1,2 --y ridge=0,1e-300,1e-12,1e12 --sigma2 0.3 --init-scale 0",
        "phase-diagram --x alpha1=log:1e-3:1e3:7 --y gamma0=log:1e-4:1e4:7 --sigma1 0.5 --sigma2 0.1 --alpha2 0.9",
        "phase-diagram --x t1=0,log:1e-6:1e6:3 --y gamma0=0,1e-3,1 --init-scale 0 --alpha1 0.5 --sigma1 0.3",
        "phase-diagram --solver linear-ansatz --x alpha2=0.1,1,2 --y gamma0=0,1,1e10 --c-signal gamma0 --sigma2 0.1",
        "phase-diagram --solver bayes-whitened --whitened labels --x delta=0,1,inf --y gamma0=0,1e-6,1,100",
        "finetune-loss --alpha1 0.01,1,inf --alpha2 0.01,1,inf --sigma1 0.3 --sigma2 0.2 --init-scale 0,1",
        "finetune-loss --alpha1 0.5,1,inf --gamma0 0,1e-8,1e8,inf --weight-decay 0,1e-8,1e-2,10 --sigma1 0.3",
        "finetune-loss --alpha1 0.5,1,2 --gamma0 0,1e-300,1e300,inf --sigma1 0,1e-12,1e12 --init-scale 1e-10,1e10",
        "finetune-loss --alpha1 0.5,2 --gamma0 0,1,inf --kernel ntk --ridge 0,1 --times 0,1,inf --init-scale 0,1",
        "pretrain-kernel --alpha1 1e-6,1,1e6 --gamma0 0,1e-300,1e300,inf --sigma1 0,1e12 --weight-decay 0,1e-300,1e12",
        "pretrain-kernel --alpha1 0.5,1,inf --gamma0 0,1e-8,10 --sigma1 0.5 --times 0,1e-6,inf --init-scale 0,1",
        "bayes-saddle --whitened labels --label-overlap 0,1 --gamma0 0,1e-6,1e3 --delta 0,1e-6,1e6,inf --beta 1e6,inf",
        "bayes-saddle --whitened labels --label-overlap -1,0.5 --gamma0 3 --gamma2 1e-8,1e4 --delta 0,1e-12,inf",
    ],
)
def test_no_runtime_warning(tlcli, command):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        done = tlcli(command, "-o out")
    assert done.code in (0, 3), done.err  # 3: points whose root lies beyond the range of floating point
    assert [f"{w.filename}:{w.lineno}: {w.message}" for w in leaked] == []
