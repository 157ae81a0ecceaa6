"""The command line as a person meets it: `lightglue`, `lightglue weights ...`, exit codes, one-line errors."""

from __future__ import annotations

import hashlib
import json
import os
import re
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from lightglue import __version__
from lightglue.cli import app as cli_app
from lightglue.cli import weights as cli_weights
from lightglue.errors import WeightsError
from lightglue.weights import FILES, OWN, WeightFile, locate
from support.command import Run, lightglue

CONTENT = {"free": b"free bytes", "bound": b"bound bytes"}
NOWHERE = ("http://127.0.0.1:9/nobody-listens-here",)


def entry(name: str, commercial: bool) -> WeightFile:
    digest = hashlib.sha256(CONTENT[name]).hexdigest()
    licence = "MIT" if commercial else "Research only"
    return WeightFile(name, f"{name}.pth", digest, len(CONTENT[name]), licence, commercial, NOWHERE)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table of two files, `free` and `bound` (not for commercial use), and an empty cache folder."""
    table = {"free": entry("free", True), "bound": entry("bound", False)}
    for module in (locate.table, cli_weights):
        monkeypatch.setattr(module, "FILES", table)
    monkeypatch.setattr(cli_weights, "OWN", {})
    for variable in ("LIGHTGLUE_OFFLINE", "LIGHTGLUE_COMMERCIAL_ONLY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(locate, "_noticed", set())
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    return tmp_path


Command = Callable[..., Run]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Command:
    """`run("weights", "list")` -> exit code, stdout, stderr; warnings are shown, not raised, as for a person."""
    monkeypatch.setattr(warnings, "showwarning", lambda *w: sys.stderr.write(warnings.formatwarning(*w[:4])))
    warnings.simplefilter("default")  # pytest makes them errors
    return lightglue


def bring(cache: Path, *names: str) -> None:
    for name in names:
        (cache / f"{name}.pth").write_bytes(CONTENT[name])


# The command as a whole


def test_version(run: Command) -> None:
    code, out, err = run("--version")
    assert (code, err) == (0, "")
    assert re.fullmatch(rf"lightglue {re.escape(__version__)}( \(commit [0-9a-f]+(, modified)?\))?\n", out)


@pytest.mark.parametrize("arguments", [["--help"], ["weights", "--help"], ["weights", "pull", "--help"]])
def test_help(arguments: list[str], run: Command) -> None:
    code, out, err = run(*arguments)
    assert (code, err) == (0, "")
    assert "Usage: lightglue" in out


@pytest.mark.parametrize(
    "arguments", [["bogus"], ["--bogus"], ["weights", "bogus"], ["weights", "list", "--bogus"], ["weights", "path"]]
)
def test_wrong_command_line_exits_with_2(arguments: list[str], run: Command) -> None:
    code, _, err = run(*arguments)
    assert code == 2
    assert "Error" in err


def script(code: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, **options)  # type: ignore[call-overload, no-any-return]


def imports_torch(arguments: str, before: str = "") -> bool:
    """Whether a command line ends with torch loaded."""
    probe = (
        "import sys, atexit\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        f"sys.argv[1:] = {arguments.split()!r}\n"
        f"{before}\n"
        "from lightglue.cli import main; main()"
    )
    said = script(probe).stderr
    assert said in ("True\n", "False\n")
    return said == "True\n"


@pytest.mark.parametrize("arguments", ["--help", "--version", "weights list", "weights --help"])
def test_command_line_does_not_import_torch(arguments: str) -> None:
    assert not imports_torch(arguments)


def test_the_test_above_would_notice_torch() -> None:
    assert imports_torch("--version", before="import torch")


def test_error_is_one_line_without_a_stack_trace(run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(name: str) -> WeightFile:
        raise WeightsError("first line\n  second line")

    monkeypatch.setattr(cli_weights, "lookup", fail)
    assert run("weights", "path", "free") == (1, "", "error: first line second line\n")


@pytest.mark.parametrize("place", ["command", "start"])
def test_interruption_exits_with_130(place: str, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> WeightFile:
        raise KeyboardInterrupt

    if place == "command":
        monkeypatch.setattr(cli_weights, "lookup", interrupt)
    else:
        monkeypatch.setattr(cli_app, "app", interrupt)
    assert run("weights", "path", "free") == (130, "", "")


def test_closed_pipe_is_silent() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        for arguments in (["weights", "list"], ["weights", "list", "--json"], ["--version"]):
            code = f"import sys; sys.argv[1:] = {arguments!r}; from lightglue.cli import main; main()"
            done = subprocess.run([sys.executable, "-c", code], stdout=writer, stderr=subprocess.PIPE, text=True)
            assert done.stderr == "", arguments
    finally:
        os.close(writer)


# weights list


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_behind_stdout_is_one_line() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", "from lightglue.cli import main; main()", "weights", "list"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (1, "error: No space left on device\n")


def test_what_the_terminal_cannot_show_is_escaped() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from lightglue.cli import main; main()", "match", "照片.jpg", "照片.jpg"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: There is no image at \\u7167")


def test_termination_leaves_as_an_exception() -> None:
    """So that half files are removed: jobs are stopped with SIGTERM."""
    code = (
        "import os, signal, sys\n"
        "from lightglue import cli\n"
        "def stopped():\n"
        "    try:\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "    finally:\n"
        "        print('cleaned up', flush=True)\n"
        "cli._run = stopped\n"
        "cli.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (143, "cleaned up\n", "")


def test_list_shows_each_published_file(run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTGLUE_CACHE", str(tmp_path))
    code, out, err = run("weights", "list")
    assert (code, err) == (0, "")
    header, _, *rows = out.splitlines()
    assert header.split() == ["name", "size", "licence", "commercial", "cache", "sources"]
    assert [row.split()[0] for row in rows] == [*FILES, *OWN]
    aliked = next(row for row in rows if row.startswith("aliked-n16 "))
    assert aliked.split() == ["aliked-n16", "2.7", "MB", "BSD-3-Clause", "yes", "no", "release,", "wheel"]


def test_list_shows_what_is_cached_and_what_is_altered(cache: Path, run: Command) -> None:
    bring(cache, "free")
    (cache / "bound.pth").write_bytes(b"altered")
    _, out, _ = run("weights", "list")
    free, bound = out.splitlines()[-2:]
    assert free.split() == ["free", "0.0", "MB", "MIT", "yes", "yes", "release"]
    assert bound.split() == ["bound", "0.0", "MB", "Research", "only", "no", "altered", "release"]


def test_list_json_is_for_machines(cache: Path, run: Command) -> None:
    bring(cache, "free")
    code, out, _ = run("weights", "list", "--json")
    free, bound = json.loads(out)
    assert code == 0
    assert free == {
        "name": "free",
        "filename": "free.pth",
        "sha256": entry("free", True).sha256,
        "size": len(CONTENT["free"]),
        "licence": "MIT",
        "commercial": True,
        "urls": list(NOWHERE),
        "wheel": None,
        "cached": str(cache / "free.pth"),
    }
    assert (bound["commercial"], bound["cached"]) == (False, None)


def test_list_commercial_only_leaves_the_others_out(cache: Path, run: Command) -> None:
    _, out, _ = run("weights", "list", "--json", "--commercial-only")
    assert [record["name"] for record in json.loads(out)] == ["free"]


# weights pull


def test_pull_prints_where_the_files_are(cache: Path, run: Command) -> None:
    bring(cache, "free", "bound")
    code, out, err = run("weights", "pull", "free", "bound")
    assert (code, out) == (0, f"{cache / 'free.pth'}\n{cache / 'bound.pth'}\n")
    assert err == "warning: bound may not be used commercially (Research only).\n"


def test_pull_all(cache: Path, run: Command) -> None:
    bring(cache, "free", "bound")
    assert run("weights", "pull", "--all", "--commercial-only") == (0, f"{cache / 'free.pth'}\n", "")
    assert run("weights", "pull", "--all")[1] == f"{cache / 'free.pth'}\n{cache / 'bound.pth'}\n"


def test_pull_checks_all_names_before_it_fetches(cache: Path, run: Command) -> None:
    bring(cache, "free")
    code, out, err = run("weights", "pull", "free", "bond")
    assert (code, out) == (1, "")
    assert err == "error: 'bond' is not the name of a published weight file; did you mean 'bound'?\n"


def test_pull_goes_on_after_a_file_that_cannot_be_had(cache: Path, run: Command) -> None:
    bring(cache, "bound")
    code, out, err = run("weights", "pull", "free", "bound")
    error, notice = err.splitlines()
    assert (code, out) == (1, f"{cache / 'bound.pth'}\n")
    assert error.startswith("error: free is not in the cache folder and could not be fetched")
    assert notice.startswith("warning: bound may not be used commercially")


def test_pull_refuses_noncommercial_files_on_demand(cache: Path, run: Command) -> None:
    bring(cache, "bound")
    code, out, err = run("weights", "pull", "--commercial-only", "bound")
    assert (code, out) == (1, "")
    assert "bound is refused" in err


def test_pull_without_a_name_is_a_wrong_command_line(run: Command) -> None:
    code, _, err = run("weights", "pull")
    assert code == 2
    assert "--all" in err


# weights path


def test_path(cache: Path, run: Command) -> None:
    bring(cache, "free")
    assert run("weights", "path", "free") == (0, f"{cache / 'free.pth'}\n", "")


def test_path_offline_says_where_to_put_the_file(cache: Path, run: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIGHTGLUE_OFFLINE", "1")
    code, out, err = run("weights", "path", "free")
    assert (code, out) == (1, "")
    assert f"Download {NOWHERE[0]} on any machine and save it as {cache / 'free.pth'}" in err


def test_path_takes_published_names_only(cache: Path, run: Command) -> None:
    bring(cache, "free")
    code, _, err = run("weights", "path", str(cache / "free.pth"))
    assert code == 1
    assert "is not the name of a published weight file" in err


# weights verify


def test_verify_is_content_with_sound_and_absent_files(cache: Path, run: Command) -> None:
    bring(cache, "free")
    assert run("weights", "verify") == (0, f"free: ok, {cache / 'free.pth'}\n", "")


def test_verify_finds_altered_files(cache: Path, run: Command) -> None:
    bring(cache, "free")
    (cache / "bound.pth").write_bytes(b"altered")
    code, out, _ = run("weights", "verify")
    assert code == 1
    assert f"bound: ALTERED, {cache / 'bound.pth'} does not have the sha256" in out
    assert run("weights", "verify", "free")[0] == 0


def test_verify_misses_a_named_file(cache: Path, run: Command) -> None:
    assert run("weights", "verify", "free") == (1, "free: missing\n", "")
