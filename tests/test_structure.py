"""What the import contracts of pyproject.toml cannot say: who may use which library, circles, sizes."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import grimp
import pytest

SOURCE = Path(__file__).parents[1] / "src" / "lightglue"
WITHOUT_TORCH = SOURCE.parent / "lightglue_runtime"

# Library -> the modules and rooms that may import it; a name covers what lies below it.
USERS = {
    "PIL": ["images.sources"],  # for type checkers only
    "cv2": ["images", "geometry.with_opencv", "drawing", "pairs", "extractors.dog", "web.tasks.images",
            "benchmark.image_pairs", "sfm.stages.pairing.positions", "sfm.stages.frames", "sfm.report.view",
            "training.views"],
    "fastapi": ["web"],
    "faiss": ["sfm.retrieval.with_faiss"],
    "filelock": ["weights", "evaluation.datasets.fetch", "benchmark.environment", "runtime.files"],
    "h5py": ["stores.hloc", "training.sources.depth"],
    "kornia": ["dog_hardnet"],
    "matplotlib": ["drawing", "viz2d", "evaluation.plots", "benchmark.chart", "sfm.report.charts",
                   "sfm.report.picture"],
    "onnx": ["export.onnx_library"],
    "poselib": ["geometry.with_poselib"],
    "pycolmap": ["sfm.colmap.with_pycolmap", "geometry.with_pycolmap", "geometry.colmap_cameras",
                 "geometry.colmap_models", "extractors.dog", "evaluation.datasets.manifest"],
    "ray": ["sfm.engines.with_ray"],
    "rich": ["cli", "support.progress", "benchmark.report"],
    "safetensors": ["weights", "matching.checkpoint", "training.checkpoints"],
    "starlette": ["web"],
    "tomli": ["training.toml"],
    "torchvision": ["aliked"],
    "typer": ["cli"],
    "typing_extensions": ["extractors", "matching", "pairs.match"],  # for type checkers only
    "uvicorn": ["web.heads", "web.serve"],
    "viser": ["sfm.report.view"],
}  # fmt: skip
ANYWHERE = {"numpy", "torch", "lightglue_runtime"}
# The same of the package without torch: numpy may be imported anywhere.
USERS_WITHOUT_TORCH = {
    "PIL": ["images.with_pillow"],
    "cv2": ["images"],
    "onnxruntime": ["onnx_runtime"],
    "openvino": ["with_openvino"],
    "pillow_heif": ["images.with_pillow"],
}


def short(module: str) -> str:
    return module.removeprefix("lightglue.")


@cache
def modules(source: Path) -> list[tuple[str, ast.Module]]:
    found = []
    for path in sorted(source.rglob("*.py")):
        parts = path.relative_to(source).with_suffix("").parts
        found.append((".".join(part for part in parts if part != "__init__"), ast.parse(path.read_text())))
    return found


def imported(tree: ast.Module) -> Iterator[str]:
    """The names that a module imports, also in functions, for types, and by `import_module("...")`."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=str(name)):
                yield name
            case ast.Call(ast.Name("import_module") | ast.Attribute(attr="import_module"), [ast.Constant(str(name))]):
                yield name


@cache
def users(source: Path) -> dict[str, list[str]]:
    """Library -> the modules of the package that import it."""
    found: dict[str, list[str]] = {}
    for module, tree in modules(source):
        for library in {name.partition(".")[0] for name in imported(tree)} - {source.name, *sys.stdlib_module_names}:
            found.setdefault(library, []).append(module)
    return found


def test_every_library_is_in_the_table():
    assert set(users(SOURCE)) == set(USERS) | ANYWHERE


def test_the_package_without_torch_imports_neither_torch_nor_the_other_package():
    assert set(users(WITHOUT_TORCH)) == set(USERS_WITHOUT_TORCH) | {"numpy"}


@pytest.mark.parametrize(
    ("source", "library"),
    [*((SOURCE, library) for library in USERS), *((WITHOUT_TORCH, library) for library in USERS_WITHOUT_TORCH)],
    ids=lambda value: value.name if isinstance(value, Path) else value,
)
def test_a_library_is_imported_where_the_table_says(source, library):
    importing = users(source)[library]
    names = (USERS if source == SOURCE else USERS_WITHOUT_TORCH)[library]
    allowed = {name: [m for m in importing if m == name or m.startswith(f"{name}.")] for name in names}
    assert [name for name, found in allowed.items() if not found] == []
    assert set(importing) == {module for found in allowed.values() for module in found}


def test_imports_in_functions_and_of_names_given_as_text_are_seen():
    code = """
def f():
    from a.b import c
    importlib.import_module("d")
    import_module(name)
if TYPE_CHECKING:
    import e.f
"""
    assert sorted(imported(ast.parse(code))) == ["a.b", "d", "e.f"]


def circles(graph: grimp.ImportGraph) -> list[set[str]]:
    """Sets of modules that import each other, directly or not."""
    below = {
        module: graph.find_upstream_modules(module)
        for module in graph.modules
        if graph.find_modules_directly_imported_by(module)
    }
    found: list[set[str]] = []
    for module in sorted(below):
        circle = {other for other in below[module] if module in below.get(other, ())}
        if circle and circle | {module} not in found:
            found.append(circle | {module})
    return found


def test_there_is_no_circle_of_imports():
    graph = grimp.build_graph("lightglue", "lightglue_runtime", cache_dir=None)
    assert [{short(name) for name in circle} for circle in circles(graph)] == []


def test_a_circle_would_be_found():
    graph = grimp.ImportGraph()
    for importer, imported in [("a", "b"), ("b", "c"), ("c", "a"), ("c", "d"), ("e", "a")]:
        graph.add_import(importer=importer, imported=imported)
    assert circles(graph) == [{"a", "b", "c"}]


def test_the_top_of_the_package_holds_at_most_20_files():
    assert len([path for path in SOURCE.iterdir() if path.is_file()]) <= 20


def test_a_function_fits_a_screen():
    """Lines of code without signature and docstring."""
    long = []
    for module, tree in [*modules(SOURCE), *modules(WITHOUT_TORCH)]:
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                body = node.body[ast.get_docstring(node) is not None :]
                lines = (body[-1].end_lineno or 0) - body[0].lineno + 1 if body else 0
                if lines > 60:
                    long.append(f"{module}.{node.name}: {lines}")
    assert long == []
