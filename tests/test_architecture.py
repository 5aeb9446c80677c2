"""The shape of the source: which part may import which, and how well each piece is described and typed."""

import ast
import functools
import importlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import limelight

SOURCE = Path(limelight.__file__).parent

# What anything may use. It uses nothing of limelight but itself.
FOUNDATION = (
    {
        *("_attention_statistics", "_backend", "_distributions", "_files", "_formatting", "_indexing", "_optional"),
        *("_progress", "_registration", "exceptions"),
    },
)
# Each side from the bottom up: a part imports its own step of its own side, the steps below it, and the foundation.
TENSOR_SIDE = (
    {"_keras_private", "core"},
    {"masks", "normalizers", "positions", "scores"},
    {"engine"},
    {"functional"},
    {"layers"},
    {"conversion", "recipes"},
)
STUDY_SIDE = ({"data", "maps"}, {"analysis", "evaluate", "plot"}, {"report"})
# Where the two sides meet: these may import both.
MEETING = ({"inspection"}, {"linter", "models"}, {"explanation"}, {"server", "study"}, {"cli", "__main__"})

KERAS = {"keras", "jax", "jaxlib", "tensorflow", "torch"}
LINES_OF_A_MODULE = 600
# Methods that Keras and torch define and document.
INHERITED = {
    *("build", "call", "compute_mask", "compute_output_shape", "compute_output_spec", "from_config", "get_config"),
    *("get_build_config", "build_from_config", "load_own_variables", "save_own_variables"),
    *("train_step", "test_step", "predict_step", "forward", "backward"),
    *("on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_end"),
}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def _name(path: Path) -> str:
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {_name(path): path for path in sorted(SOURCE.rglob("*.py"))}


@functools.cache
def _tree(module: str) -> ast.Module:
    return ast.parse(MODULES[module].read_text(encoding="utf-8"), filename=str(MODULES[module]))


def _walk(module: str, kind: Any) -> Iterator[Any]:
    return (node for node in ast.walk(_tree(module)) if isinstance(node, kind))


@functools.cache
def _imports(module: str) -> frozenset[str]:
    """Every module that this one imports anywhere, in functions and for type checking too."""
    found = {alias.name for node in _walk(module, ast.Import) for alias in node.names}
    for node in _walk(module, ast.ImportFrom):
        if node.level:
            pytest.fail(f"{module}:{node.lineno} imports by a relative name. Write the whole name.")
        for alias in node.names:
            whole = f"{node.module}.{alias.name}"
            whole = limelight._PUBLIC.get(alias.name, whole) if node.module == "limelight" else whole
            found.add(whole if whole in MODULES else node.module)
    return frozenset(found - {module})


def _part(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def _step(part: str, side: tuple[set[str], ...]) -> int | None:
    return next((index for index, step in enumerate(side) if part in step), None)


def _reached(module: str) -> dict[str, list[str]]:
    """Every module that importing this one can lead to, with the way there. Going by way of `limelight` is no way."""
    ways, waiting = {module: [module]}, [module]
    while waiting:
        here = waiting.pop()
        for name in _imports(here) - set(ways) - {"limelight"}:
            ways[name] = [*ways[here], name]
            if name in MODULES:
                waiting.append(name)
    return ways


def _exported(package: str) -> set[str]:
    """The names that a package takes from its modules, at once or when asked, or defines itself."""
    names = {node.name for node in _tree(package).body if isinstance(node, Function | ast.ClassDef)}
    for node in _walk(package, ast.ImportFrom):
        names |= {alias.asname or alias.name for alias in node.names if node.module != package}
    if package == "limelight":
        names |= {name for name, home in limelight._PUBLIC.items() if home != f"limelight.{name}"}
    return names


@pytest.mark.backend_free
def test_imports_point_one_way() -> None:
    wrong = {}
    for module in MODULES.keys() - {"limelight"}:
        allowed = _allowed(_part(module))
        used = {_part(name) for name in _imports(module) if name in MODULES and name != "limelight"}
        wrong.update({module: f"must not import {sorted(used - allowed)}"} if used - allowed else {})
    assert wrong == {}


def _allowed(part: str) -> set[str]:
    """The parts that one part may import."""
    homes = [side for side in (FOUNDATION, TENSOR_SIDE, STUDY_SIDE, MEETING) if _step(part, side) is not None]
    if len(homes) != 1:
        pytest.fail(f"`{part}` stands in {len(homes)} of the four lists in {Path(__file__).name}. Give it one place.")
    below = homes[0][: (_step(part, homes[0]) or 0) + 1]
    across = (*TENSOR_SIDE, *STUDY_SIDE) if homes[0] is MEETING else ()
    return set().union(*FOUNDATION, *below, *across)


@pytest.mark.backend_free
def test_no_two_parts_import_each_other() -> None:
    uses: dict[str, set[str]] = {_part(module): set() for module in MODULES}
    for module in MODULES.keys() - {"limelight"}:
        uses[_part(module)] |= {_part(name) for name in _imports(module) if name in MODULES} - {_part(module), ""}
    while free := {part for part, used in uses.items() if not used}:
        uses = {part: used - free for part, used in uses.items() if part not in free}
    assert uses == {}, "these import one another in a circle"


@pytest.mark.backend_free
def test_the_study_side_never_reaches_keras() -> None:
    ways = {
        " -> ".join(way)
        for module in _study_side()
        for name, way in _reached(module).items()
        if name.split(".")[0] in KERAS
    }
    assert ways == set()


@pytest.mark.backend_free
@pytest.mark.subprocess
def test_the_study_side_works_without_keras() -> None:
    program = f"""
import importlib, importlib.abc, sys
class Absent(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {KERAS}:
            raise ModuleNotFoundError(f"{{name}} was imported")
sys.meta_path.insert(0, Absent())
import limelight
for name in {_study_side()}:
    module = importlib.import_module(name)
    for public in getattr(module, "__all__", ()):
        getattr(module, public)
print("all there")
"""
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment, timeout=300)
    assert (done.stdout, done.stderr) == ("all there\n", "")


def _study_side() -> list[str]:
    return [module for module in MODULES if _step(_part(module), STUDY_SIDE) is not None]


@pytest.mark.backend_free
def test_no_module_bears_a_public_name() -> None:
    hidden = {}
    for package in (name for name, path in MODULES.items() if path.name == "__init__.py"):
        inside = {name.rpartition(".")[2] for name in MODULES if name.rpartition(".")[0] == package}
        hidden.update({package: inside & _exported(package)} if inside & _exported(package) else {})
    assert hidden == {}, "importing such a module hides the name that its package exports"


@pytest.mark.backend_free
def test_no_module_is_too_long() -> None:
    lines = {module: path.read_text(encoding="utf-8").count("\n") for module, path in MODULES.items()}
    assert {module: count for module, count in lines.items() if count > LINES_OF_A_MODULE} == {}


@pytest.mark.backend_free
def test_what_is_public_is_described() -> None:
    bare = [module for module in MODULES if not ast.get_docstring(_tree(module))]
    for module in MODULES:
        for node in _tree(module).body:
            if not isinstance(node, Function | ast.ClassDef) or node.name.startswith("_"):
                continue
            bare += [] if ast.get_docstring(node) else [f"{module}.{node.name}"]
            if isinstance(node, ast.ClassDef):
                bare += [f"{module}.{node.name}.{method.name}" for method in _methods(node) if _is_bare(method, node)]
    assert bare == []


def _methods(owner: ast.ClassDef) -> list[Function]:
    return [node for node in owner.body if isinstance(node, Function)]


def _is_bare(node: Function, owner: ast.ClassDef) -> bool:
    """Whether this is a public method that nobody describes: not here, and not where a class above introduces it."""
    if node.name.startswith("_") or node.name in INHERITED or ast.get_docstring(node):
        return False
    decorators = {name.rpartition(".")[2] for name in map(ast.unparse, node.decorator_list)}
    return not decorators & {"overload", "setter"} and node.name not in _described_above(owner)


def _described_above(owner: ast.ClassDef) -> set[str]:
    described: set[str] = set()
    for base in {ast.unparse(base).rpartition(".")[2] for base in owner.bases} - {owner.name}:
        for node in _classes().get(base, ()):
            described |= {method.name for method in _methods(node) if ast.get_docstring(method)}
            described |= _described_above(node)
    return described


@functools.cache
def _classes() -> dict[str, list[ast.ClassDef]]:
    found: dict[str, list[ast.ClassDef]] = {}
    for module in MODULES:
        for node in _walk(module, ast.ClassDef):
            found.setdefault(node.name, []).append(node)
    return found


@pytest.mark.backend_free
def test_private_keras_is_used_in_one_module() -> None:
    private = (
        r"keras\.src|\b_keras_mask|\._(flatten_layers|flash_attention|compile_config|remat_mode|inverse_sqrt_\w+)\b"
    )
    users = {name for name, path in MODULES.items() if re.search(private, path.read_text(encoding="utf-8"))}
    assert users == {"limelight._keras_private"}


@pytest.mark.backend_free
def test_no_length_of_an_example_is_decided_on() -> None:
    """An exporter traces one example: only `core.shapes` tells whether a length is known to be 1 for all of them."""
    folders = ("core", "masks", "positions", "scores", "normalizers", "engine")
    decides = re.compile(r"(\.shape\[[^]]*\]|\.total) (==|!=|<=|>) 1\b")
    users = {
        name
        for name, path in MODULES.items()
        if name.split(".")[1:2] and name.split(".")[1] in folders and decides.search(path.read_text(encoding="utf-8"))
    }
    # There a mask becomes floats if it is the same for all queries, which changes no result.
    assert users == {"limelight.engine.torch.fused"}


@pytest.mark.backend_free
def test_summaries_are_imperative() -> None:
    summaries = {
        f"{module}:{node.lineno}": summary
        for module in MODULES
        for node in _walk(module, Function)
        if (summary := ast.get_docstring(node)) and re.match(r"(What|Whether|How|Who|Where|When)\b", summary)
    }
    assert summaries == {}, "a docstring begins with an imperative, such as Return or Compute"


@pytest.mark.backend_free
def test_type_checkers_know_every_public_name() -> None:
    block = next(node for node in _tree("limelight").body if isinstance(node, ast.If))
    assert ast.unparse(block.test) == "TYPE_CHECKING"
    typed = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            # An import `name as name` is exported; without `as` type checkers take it for private.
            assert alias.asname == alias.name
            is_module = node.module == "limelight"
            typed[alias.name] = f"limelight.{alias.name}" if is_module else node.module
    assert typed == limelight._PUBLIC


@pytest.mark.backend_free
@pytest.mark.subprocess
def test_pyright_reveals_the_type_of_a_public_function(tmp_path: Path) -> None:
    (tmp_path / "reveal.py").write_text(
        "import limelight as ll\nreveal_type(ll.attend)\nreveal_type(ll.masks.Causal())\n"
    )
    (tmp_path / "pyrightconfig.json").write_text(f'{{"extraPaths": ["{SOURCE.parent}"]}}')
    command = [sys.executable, "-m", "pyright", "--project", str(tmp_path), "--pythonpath", sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert re.search(r'Type of "ll\.attend" is "\(query: Any, key: Any, value: Any, \*', done.stdout), done.stdout
    assert 'Type of "ll.masks.Causal()" is "Causal"' in done.stdout, done.stdout


@pytest.mark.backend_free
def test_no_assert_guards_anything() -> None:
    assert [f"{module}:{node.lineno}" for module in MODULES for node in _walk(module, ast.Assert)] == []


@pytest.mark.backend_free
def test_names_say_what_a_thing_is() -> None:
    assert [module for module in MODULES if re.search(r"\.(utils?|helpers?|common|misc)$", module)] == []
    assert [name for name in _classes() if name.startswith("Base")] == []


def test_every_public_name_is_there() -> None:
    for name in limelight.__all__:
        value = getattr(limelight, name)
        home = limelight._PUBLIC.get(name)
        if home is not None and home != f"limelight.{name}":
            assert value is getattr(importlib.import_module(home), name)
            assert value.__doc__, f"{name} has no docstring"
    with pytest.raises(AttributeError, match=r"no attribute 'attention_please'\. It has: .*attend, .*upgrade\."):
        limelight.attention_please  # noqa: B018
