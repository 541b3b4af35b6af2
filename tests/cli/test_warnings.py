"""Closed forms at ordinary and at extreme values, every theory at small ones: no warning reaches the user."""

import warnings

import pytest

from tlcli.theories.registry import ENTRIES

_NET = "--source he1 --target he2 --dim 3 --p1 4 --p2 3 --ptest 6 --t1 0.3 --t2 0.2 --neurons 64 --repeats 2"
_ALONE = "--source he1 --dim 3 --p1 4 --ptest 6 --times 0,0.3 --neurons 64 --repeats 2"
_BAYES = "--source he1 --target he1 --dim 2 --p1 4 --p2 3 --ptest 6"
_RUN = "--simulate --dim 8 --trials 2"
SMALL = {
    "linear-exact": [f"pretrain-kernel --gamma0 0,1 {_RUN}", f"finetune-loss --gamma0 0,1 --alpha2 0.5 {_RUN}"],
    "linear-ansatz": [f"finetune-loss --solver linear-ansatz --c-signal 0,1 --alpha2 0.5 {_RUN}"],
    "linear-classify": ["finetune-loss --solver linear-classify --alpha2 2"],
    "linear-joint": [f"finetune-loss --solver linear-joint --t1 0,1 --times 0,1 --alpha1 1 --alpha2 2 {_RUN}"],
    "linear-structured": [f"finetune-loss --solver linear-structured --p1 4 --p2 1,3 --gamma0 0,1 {_RUN}"],
    "linear-two-time": [f"finetune-loss --solver linear-two-time --times 0,1 --alpha2 0.5 {_RUN}"],
    "network-pretrain": [f"pretrain-kernel --model network --gamma0 0,1 {_ALONE}"],
    "network-frozen": [f"finetune-loss --solver network-frozen --gamma0 0,1 {_NET}"],
    "network-rich": [
        f"dmft-solve --gamma0 1 --simulate --width 8 --nets 3 {_NET}",
        f"dmft-solve --gamma0 0.5 --activation relu --draws 2 {_NET}",
        f"dmft-solve --gamma0 0,1 --depth 2 {_NET.replace('--repeats 2', '')}",
        f"dmft-solve --gamma0 1 --activation linear --depth 3 {_NET.partition('--neurons')[0]}",
    ],
    "bayes-saddle": [f"bayes-saddle --activation linear --simulate --width 8 --nets 3 {_BAYES}"],
    "bayes-linear": [f"phase-diagram --solver bayes-linear --x delta=0,1,inf --y gamma0=0,1 {_BAYES}"],
    "bayes-network": [f"bayes-saddle --activation tanh {_BAYES}"],
    "bayes-whitened": ["bayes-saddle --whitened labels --delta 0,1,inf"],
}


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
def test_no_runtime_warning(rendered, tlcli, command):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        done = tlcli(command, "-o out")
    assert done.code in (0, 3), done.err  # 3: points whose root lies beyond the range of floating point
    assert [f"{w.filename}:{w.lineno}: {w.message}" for w in leaked] == []


def test_every_theory_has_a_small_case():
    assert {name for _, name in ENTRIES} == SMALL.keys()


@pytest.mark.parametrize("command", [command for commands in SMALL.values() for command in commands])
def test_no_warning_of_any_theory_or_experiment(rendered, tlcli, command):
    with warnings.catch_warnings(record=True) as leaked:
        warnings.simplefilter("always")
        done = tlcli(command, "-o out --jobs 1")
    assert done.code in (0, 3), done.err  # 3: few neurons are inaccurate
    assert "failed" not in done.err
    assert [f"{w.filename}:{w.lineno}: {w.message}" for w in leaked] == []
