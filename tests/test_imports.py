"""The import graph: no circles, whatever is loaded late or by name."""

import graphlib

import grimp
import pytest


def graph_of(package):
    """Module → what it imports; the package itself is left out: its functions load when they are asked for."""
    found = grimp.build_graph(package, cache_dir=None, exclude_type_checking_imports=True)
    modules = found.modules - {package}
    return {name: found.find_modules_directly_imported_by(name) & modules for name in modules}


def test_no_module_imports_itself_through_others():
    imports = graph_of("tlcli")
    assert imports["tlcli.cli.app"], "the graph is empty"
    assert list(graphlib.TopologicalSorter(imports).static_order())


def test_a_circle_would_be_seen():
    imports = graph_of("tlcli")
    imports["tlcli.errors"] = {"tlcli.cli.app"}
    with pytest.raises(graphlib.CycleError):
        list(graphlib.TopologicalSorter(imports).static_order())
