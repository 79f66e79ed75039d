"""What builds and tests the package, in exact versions: Python's in requirements/, those of CI in its workflows."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def group(name: str) -> Iterator[Requirement]:
    """The requirements of a dependency group, those of the groups it includes among them."""
    for line in PROJECT["dependency-groups"][name]:
        if isinstance(line, dict):
            yield from group(line["include-group"])
        else:
            yield Requirement(line)


def locked(name: str) -> dict[Requirement, list[str]]:
    """The requirements of a lock file, each with its hashes."""
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    text = re.sub(r"^ *#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ")
    lines = [line.split(" --hash=") for line in text.splitlines()]
    return {Requirement(requirement): [each.strip() for each in hashes] for requirement, *hashes in lines}


RUN = [Requirement(line) for line in PROJECT["project"]["dependencies"]]
WANTED = {"run.lock": RUN, "dev.lock": [*RUN, *group("dev")], "release.lock": [*group("release")]}
PLATFORMS = {"linux": ("Linux", "x86_64"), "darwin": ("Darwin", "arm64"), "win32": ("Windows", "AMD64")}


def environment_of(python: str, platform: str) -> dict[str, str]:
    """What markers are evaluated with on one system."""
    system, machine = PLATFORMS[platform]
    environment = {"python_version": python, "python_full_version": f"{python}.0", "sys_platform": platform}
    return environment | {"platform_system": system, "platform_machine": machine}


def chosen(requirements: dict[Requirement, list[str]], python: str, platform: str) -> dict[str, str]:
    """What pip would take of a lock on one system: for each package its version, of which there must be one."""
    environment = environment_of(python, platform)
    versions: dict[str, str] = {}
    for requirement in requirements:
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (version,) = requirement.specifier
            assert version.operator == "=="
            assert versions.setdefault(canonicalize_name(requirement.name), version.version) == version.version
    return versions


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.parametrize("python", ["3.10", "3.11", "3.12", "3.13", "3.14"])
@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_has_what_pyproject_asks_for(lock: str, python: str, platform: str) -> None:
    """Where this fails, `make lock`."""
    versions = chosen(locked(lock), python, platform)
    for requirement in WANTED[lock]:
        if requirement.marker is not None and not requirement.marker.evaluate(environment_of(python, platform)):
            continue
        assert requirement.specifier.contains(versions[canonicalize_name(requirement.name)]), requirement


def test_what_the_package_runs_on_is_locked_once() -> None:
    """The wheel is tested on the very files that everything else was tested on."""
    development = {(each.name, str(each.specifier)): hashes for each, hashes in locked("dev.lock").items()}
    for requirement, hashes in locked("run.lock").items():
        assert development[requirement.name, str(requirement.specifier)] == hashes


def test_every_lock_is_held_to() -> None:
    assert {path.name for path in (ROOT / "requirements").iterdir()} == WANTED.keys()


@pytest.mark.parametrize("lock", WANTED)
def test_a_lock_has_hashes_and_names_no_host(lock: str) -> None:
    assert "://" not in (ROOT / "requirements" / lock).read_text(encoding="utf-8")
    for requirement, hashes in locked(lock).items():
        assert hashes, requirement
        assert all(re.fullmatch(r"sha256:[0-9a-f]{64}", each) for each in hashes), requirement


def test_what_builds_the_package_is_what_it_asks_for() -> None:
    """`pip install .` takes its maturin from the range of build-system, `make` from the lock; the ranges are one."""
    (maturin,) = [requirement for requirement in group("build") if requirement.name == "maturin"]
    assert [Requirement(line) for line in PROJECT["build-system"]["requires"]] == [maturin]


WORKFLOWS = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / ".github" / "workflows").iterdir())


def test_actions_are_pinned_by_commit() -> None:
    """A tag can be moved to other code; each action has one commit in all workflows, and says which version it is."""
    uses = re.findall(r"uses: *(.+)", WORKFLOWS)
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # .+", each) for each in uses), uses
    assert len(set(uses)) == len({each.partition("@")[0] for each in uses})


def test_workflows_name_exact_versions_of_rust_and_targets_of_make() -> None:
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text(encoding="utf-8"))
    oldest = f"{manifest['workspace']['package']['rust-version']}.0"
    toolchains = re.findall(r"toolchain: *(.+)", WORKFLOWS)
    assert len(toolchains) == WORKFLOWS.count("uses: dtolnay/rust-toolchain")
    assert len(set(toolchains)) == 2
    assert oldest in toolchains
    assert all(re.fullmatch(r"1\.\d+\.\d+", each) for each in toolchains)
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"run: *make ([a-z-]+)", WORKFLOWS):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
