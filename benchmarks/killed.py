"""Commands that are ended by SIGKILL at each step that they take on the disk, then given again; and two at once.

What a kill leaves is what is on the disk at that step. So a command runs once, the folder that it writes to is copied
at each step, and the same command has to heal each copy. Some steps are real kills besides, and from some on the disk
is full.
"""

from __future__ import annotations

import errno
import gc
import hashlib
import importlib
import json
import os
import random
import re
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from hub_standin import Repository, serve_hub
from malformed import dpr
from serve_bank import save, save_bank
from tiny import save_model, toy_collection, write_beir

from foreword.cli import main as foreword
from foreword.collections.beir import BEIR
from foreword.collections.dpr import convert
from foreword.collections.registry import load
from foreword.downloads import Transport
from foreword.errors import ForewordError
from foreword.evaluation.group import System, evaluate_group
from foreword.files import PART, write_json
from foreword.hub.contents import from_hub
from foreword.indexing import Index
from foreword.lab.in_domain import load_in_domain, run_in_domain
from foreword.lab.records import load_cells
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import PromptSpec

Record = dict[str, Any]


# -- processes of our own ----------------------------------------------------------------------------------------------


def child(work: Callable[[], Any], said: Path) -> tuple[int, list[int]]:
    """Begin `work` in a process of its own, whose output goes to a file; its id and what it will write to."""
    reading, writing = os.pipe()
    gc.freeze()  # what is there is no garbage, and need not be copied to be looked at
    pid = os.fork()
    if pid:
        os.close(writing)
        return pid, [reading]
    code = 70  # an exception that nobody caught
    try:
        with open(said, "wb", buffering=0) as output:
            os.dup2(output.fileno(), 1)
            os.dup2(output.fileno(), 2)
        os.close(reading)
        with open(writing, "w") as back:
            found = work()
            for one in found if isinstance(found, Iterator) else [found]:
                back.write(json.dumps(one) + "\n")
                back.flush()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)  # without what runs at the exit of the process that it was forked from


def ended(pid: int, pipes: Sequence[int]) -> tuple[int, list[Any]]:
    """The exit code of a child (negative: the signal that ended it), and the values that it gave."""
    with open(pipes[0]) as back:
        values = [json.loads(line) for line in back if line.endswith("\n")]
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), values


# -- steps on the disk -------------------------------------------------------------------------------------------------

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_CHANGES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate")


Step = Callable[[str, Path], None]


def watch(root: Path, step: Step) -> None:
    """Call `step` with what is done, and to which path, before whatever this process does to the disk below `root`.

    That is a file opened to be written, a name that comes, changes or goes, and an fsync. Of each file that was
    written a step comes once more, `half`, for it to be cut: at its fsync, or before what is done next. (What
    libraries open outside of Python is not seen; it is there at the next step that is.)
    """
    written: set[Path] = set()
    one = threading.RLock()
    own = os.fsync

    def inside(path: Any) -> Path | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        place = Path(os.path.abspath(os.fsdecode(path)))
        return place if place.is_relative_to(root) else None

    def before(what: str, place: Path) -> None:
        with one:
            for path in (place,) if what == "half" else tuple(written):
                if path.is_file() and path.stat().st_size:  # else it was renamed or removed, or nothing is in it yet
                    written.discard(path)
                    step("half", path)
            if what != "half":
                step(what, place)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if ((set(mode) & set("wxa+")) if mode else flags & _WRITES) and (place := inside(path)):
                before(event, place)
                written.add(place)
        elif event in _CHANGES and (inside(arguments[0]) or (event in _CHANGES[1:3] and arguments[-1] != -1)):
            # a name that is removed by its folder's handle is any that `rmtree` removes
            before(event, inside(arguments[0]) or root)

    def fsync(file: Any) -> None:
        link = Path(f"/proc/self/fd/{file if isinstance(file, int) else file.fileno()}")
        if link.is_file() and (place := inside(os.readlink(link))):
            before("half", place)
        own(file)

    os.fsync = fsync  # type: ignore[assignment]  # of two names for one argument
    sys.addaudithook(hook)


def cut_in_half(path: Path) -> None:
    """As a power cut may leave a file whose bytes were not all on the disk."""
    os.truncate(path, path.stat().st_size // 2)


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, hidden ones too but for locks; a folder has none."""
    found = [path for path in sorted(folder.rglob("*")) if not path.name.endswith(".lock")]
    return {
        str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() if p.is_file() else "" for p in found
    }


# -- the commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Command:
    """A command that writes into the folder `out`.

    Attributes:
        run: does it; the exit code, or anything but a number.
        before: what is in the folder at first.
        seen: what is compared afterwards, as JSON; files that differ between two undisturbed runs are left out.
        cheap: whether it is in the short form.
    """

    run: Callable[[], Any]
    before: Path | None = None
    seen: Callable[[Path], Any] = contents
    cheap: bool = False


def indexed(out: Path) -> Any:
    """What an index says of its domains, and finds."""
    with Index.open(str(out / "notes.db")) as index:
        domains = {name: [each.documents, each.complete] for name, each in index.domains().items()}
        vectors = np.eye(32, dtype=np.float32)[:4]
        hits = [index.search_vectors(vectors, name, 100) for name in domains]
        words = [index.search_words(["ba da fo"], name, 10) for name in domains]
        found = [[[(hit.doc_id, round(hit.score, 5)) for hit in row] for row in rows] for rows in (*hits, *words)]
    return [domains, found, sorted(path.name for path in out.iterdir())]


def figures(out: Path) -> Any:
    """What a benchmark's folder says: its cells, but for their times, and the names of its files."""
    cells = [[cell.target, cell.system, cell.seed, dict(cell.measures)] for cell in load_cells(out / "b")]
    return [sorted(cells, key=str), sorted(contents(out))]


PLAN = """
title = "Toys"
tuned_on = ["two"]
final = ["prompt", "full"]
budgets = [1]
seeds = [0]
folds = 2
batch_size = 8
query_length = 12
document_length = 24
[training]
dev_queries = 4
[targets]
whole = ["one"]
[methods.prompt]
prompt = { kind = "memory", length = 1 }
rates = [1e-2]
[methods.full]
baseline = { method = "full" }
rates = [1e-4]
"""


def commands(work: Path, out: Path) -> dict[str, Command]:
    """The commands, and all that they read, made in `work`."""
    model = save_model(work / "model")
    encoder = load_encoder(str(model), device="cpu")
    one = write_beir(work / "one", toy_collection("toy/one"))
    two = write_beir(work / "two", toy_collection("toy/two", seed=1))
    bank = save_bank(work / "bank", encoder)
    shutil.rmtree(bank / "mixed")
    three = write_beir(work / "three", toy_collection("toy/three", seed=2))
    for seed, source in enumerate((two, three)):
        save(work / "mixed", encoder, f"folder:{source}", PromptSpec(length=3), seed)
    plain = save(work / "plain", encoder, "toy/plain", PromptSpec("input", 3, placement="after-cls"))
    before = save(work / "adapted", encoder, "toy/before", PromptSpec("input", 3, placement="before"))
    (work / "archives" / "arguana").mkdir(parents=True)
    write_beir(work / "archives" / "arguana", toy_collection("toy/zip", splits=("test",)))
    archive = Path(shutil.make_archive(str(work / "archives" / "arguana"), "zip", work / "archives", "arguana"))
    (work / "dpr").mkdir()
    dpr(work / "dpr")
    plan = work / "plan.toml"
    plan.write_text(PLAN)

    on = ("--backbone", str(model), "--device", "cpu", "--json")
    few = ("--steps", "2", "--evaluate-every", "1", "--batch-size", "8", "--dev-folds", "2")
    index, it, run_file = out / "notes.db", out / "it", out / "run.trec"

    def run(*words: object, **more: Any) -> Command:
        return Command(lambda: foreword([str(word) for word in words]), **more)

    def benchmarked() -> None:
        """In a folder that knows the machine's pace, so that equal runs take equal steps."""
        settings = load_in_domain(plan)
        pace = {f"{n} {settings.digest(n)}": {"method": n, "seconds": [0.1] * 3} for n in settings.methods}
        if not (out / "b" / "pace.json").exists():
            write_json(out / "b" / "pace.json", pace)
        run_in_domain(settings, out / "b", data=work, backbone=str(model), quiet=True)

    def brought() -> None:
        """A prompt from the stand-in of a hub, which serves as long as this process."""
        from huggingface_hub import constants

        constants.HF_HUB_OFFLINE, constants.HF_HUB_DISABLE_XET = False, True
        with serve_hub() as hub:
            files = {path.name: path.read_bytes() for path in plain.iterdir() if path.name != "run.json"}
            hub.repositories["me/toy"] = repository = Repository(private=False)
            repository.commit("main", files, "one")
            place = from_hub("me/toy", endpoint=hub.url, cache=out / "hub")
            (out / "prompt").unlink(missing_ok=True)
            (out / "prompt").symlink_to(place)

    def unpacked() -> None:
        md5 = hashlib.md5(archive.read_bytes()).hexdigest()
        mirror = Transport(offline=True, mirrors=(archive.parent.as_uri(),), quiet=True)
        BEIR.download("arguana", out / "data", mirror, md5=md5)

    def grouped() -> None:
        systems = [System("base", "base"), System("bm25", "bm25")]
        evaluate_group("toys", [f"folder:{one}", f"folder:{two}"], systems, out / "g", load=load, encoder=encoder)

    def with_cache(command: Command) -> Command:
        def cached() -> Any:
            os.environ["FOREWORD_CACHE"] = str(out / "cache")
            return command.run()

        return Command(cached)

    (work / "notes").mkdir()
    (work / "notes" / "a.md").write_text("# Head\n\nba da fo")
    (work / "notes" / "b.html").write_text("<p>ba da</p>")
    (work / "index").mkdir()
    for words in (
        ("export", before, "--to", "peft", "--output", work / "adapter"),
        ("index", "build", work / "index" / "notes.db", one, "--domain", "one"),
        ("index", "build", work / "index" / "notes.db", two, "--domain", "two"),
    ):  # in processes of their own: an index begins threads
        assert ended(*child(run(*words, *on).run, work / "said")) == (0, [0]), (work / "said").read_text()
    (work / "trained").mkdir()
    shutil.copytree(plain, work / "trained" / "it")
    there: dict[str, Any] = {"seen": indexed, "before": work / "index"}
    train = ("train", one, "--output", it, *few, *on)
    mixed = ("transfer", one, "--bank", work / "mixed", "--output", it, *on)
    exported = ("export", plain, "--output", out / "m", *on, "--to")
    into = ("--domain", "one", *on)
    return {
        "mine": run("mine", one, "--output", out / "n.jsonl", "--json", cheap=True),
        "search": run("search", one, "ba da", "--format", "trec", "--output", run_file, *on[:-1]),
        "search of notes, with its cache": with_cache(run("search", work / "notes", "ba da", *on)),
        "evaluate --write-run": run("evaluate", one, "--write-run", run_file, *on),
        "evaluate of a group": Command(grouped),
        "explain": run("explain", one, "--prompt", bank / "toy-shared", "--output", out / "e", *on),
        "encode, .npy": run("encode", one, "--output", out / "v.npy", *on, cheap=True),
        "encode, .parquet": run("encode", one, "--output", out / "v.parquet", *on),
        "encode, .jsonl": run("encode", one, "--output", out / "v.jsonl", *on),
        "train": run(*train),
        "train over another": run(*train, "--no-resume", before=work / "trained"),
        "train several": run("train", one, two, "--output", it, *few, "--start", bank / "toy-shared", *on),
        "train --multitask": run("train", one, two, "--multitask", "--output", it, *few, *on),
        "transfer, uniform": run(*mixed, "--method", "uniform"),
        "transfer, average": run(*mixed, "--method", "similarity", "--no-reach"),
        "transfer, fitted": run(*mixed, "--method", "fitted", "--no-reach"),
        "transfer --distil": run(*mixed, "--method", "uniform", "--distil"),
        "advise": run("advise", one, "--bank", work / "mixed", "--output", it, *on),
        "export, sentence-transformers": run(*exported, "sentence-transformers"),
        "export, plain": run(*exported, "plain"),
        "export, onnx": run(*exported, "onnx"),
        "export, peft": run("export", before, "--output", out / "m", *on, "--to", "peft"),
        "import": run("import", work / "adapter", "--domain", "d", "--output", out / "p", *on),
        "download": Command(unpacked, cheap=True),
        "download --sample": run("download", f"folder:{one}", "--sample", "9", "--output", out / "s", "--json"),
        "a prompt from the hub": Command(brought, seen=lambda out: contents((out / "prompt").resolve())),
        "DPR's conversion": Command(lambda: str(convert(work / "dpr" / "train.json", work / "dpr" / "dev.json", it))),
        "index build": run("index", "build", index, one, *into, seen=indexed),
        "index build, again": run("index", "build", index, two, *into, **there),
        "index build --replace": run("index", "build", index, two, *into, "--replace", **there),
        "index add": run("index", "add", index, two, *into, **there),
        "index update": run("index", "update", index, two, *into, **there),
        "index delete": run("index", "delete", index, "d1", "d2", "--domain", "one", "--json", **there),
        "index delete --all": run("index", "delete", index, "--domain", "one", "--all", "--json", **there),
        "benchmark in a domain": Command(benchmarked, seen=figures),
    }  # fmt: skip


# -- killing them ------------------------------------------------------------------------------------------------------


class Attack:
    """The attack on commands, in the folder `work`; of each, at most so many states are tried, drawn by chance."""

    def __init__(self, work: Path, most: int | None) -> None:
        self.work, self.out, self.said, self.most = work, work / "out", work / "said", most
        self.table = commands(work, self.out)

    def fresh(self, command: Command) -> None:
        """What the folder holds at first."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(command.before, self.out) if command.before else self.out.mkdir()

    def begun(self, command: Command, step: Step | None = None, said: Path | None = None) -> Any:
        """The command in a process of its own, which gives its exit code."""

        def work() -> Any:
            if step is not None:
                watch(self.out, step)
            try:
                code = command.run()
            except (ForewordError, OSError) as error:  # of what is no command, but a function
                print(f"foreword: error: {error}", file=sys.stderr)
                return 1
            return code if isinstance(code, int) else 0

        return child(work, said or self.said)

    def seen(self, command: Command) -> Any:
        """What there is to compare, or why it cannot be seen; in a process, where it begins threads."""
        if command.seen is contents:
            return contents(self.out)
        _, found = ended(*child(lambda: command.seen(self.out), self.work / "seen"))
        return found[0] if found else (self.work / "seen").read_text("utf-8", "replace")[-300:]

    def states(self, command: Command) -> tuple[dict[str, Path], int, list[str]]:
        """Copies of the folder before each step of an undisturbed run, each state once; the steps; modules imported."""
        places = self.work / "states"
        shutil.rmtree(places, ignore_errors=True)
        places.mkdir()

        def work() -> Iterator[Any]:
            seen: list[tuple[str, str]] = []

            def step(what: str, path: Path) -> None:
                shutil.copytree(self.out, places / str(len(seen)), symlinks=True)
                seen.append((what, str(path.relative_to(self.out))))

            watch(self.out, step)
            yield command.run() or 0
            yield seen
            yield list(sys.modules)

        self.fresh(command)
        code, found = ended(*child(work, self.said))
        assert code == 0, self.said.read_text("utf-8", "replace")
        known, states = set(), {}
        for number, (what, path) in enumerate(found[1]):
            place = places / str(number)
            if what == "half":
                cut_in_half(place / path)
            state = json.dumps({_TEMPORARY.sub(PART, name): sha for name, sha in contents(place).items()})
            if state not in known:
                states[f"{number} {what} {path}"] = place
            known.add(state)
        return states, len(found[1]), found[2]

    def killed(self, command: Command, at: int) -> None:
        """End the command at a step of its own."""
        steps = count(1)

        def step(what: str, path: Path) -> None:
            if next(steps) == at:
                if what == "half":
                    cut_in_half(path)
                os.kill(os.getpid(), signal.SIGKILL)

        self.fresh(command)
        ended(*self.begun(command, step))

    def full(self, command: Command, at: int) -> list[int]:
        """The command on a disk that is full from one of its steps on; what it exits with."""
        steps = count(1)

        def step(what: str, path: Path) -> None:
            if next(steps) >= at and what in ("open", "os.mkdir", "half"):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

        self.fresh(command)
        code, found = ended(*self.begun(command, step))
        return [code, *found]

    def attacked(self, name: str, command: Command) -> Record:
        """What comes of a command that is cut at its steps, and of two at once."""
        states, steps, modules = self.states(command)
        wanted = self.seen(command)
        for module in modules:  # so that no process has to import them again
            with suppress(Exception):
                importlib.import_module(module)
        self.fresh(command)
        assert ended(*self.begun(command)) == (0, [0]), self.said.read_text("utf-8", "replace")
        second, varying = self.seen(command), set[str]()
        if command.seen is contents:
            names = {Path(file).name for file in wanted if wanted[file] != second.get(file)}  # seconds may be alike
            varying = {file for file in wanted if Path(file).name in names}
        alike = {**wanted, **dict.fromkeys(varying)} if varying else wanted
        faults: list[Record] = []

        def look(at: str, exits: list[int]) -> None:
            after, told = self.seen(command), self.said.read_text("utf-8", "replace")
            if varying and isinstance(after, dict):
                after |= dict.fromkeys(varying & after.keys())
            refused = "Traceback" not in told and told.rpartition("foreword: error: ")[1]  # it was whole before
            done = exits == [0, 0] or (exits == [0, 1] and refused)
            if not done or after != alike:
                if done and command.seen is contents:
                    after = [file for file in {*after, *alike} if after.get(file) != alike.get(file)]
                faults.append({"at": at, "exits": exits, "said": told[-500:], "seen": str(after)[:500]})
                print(f"killed: {name}: {faults[-1]}", file=sys.stderr)

        def again(at: str) -> None:
            code, found = ended(*self.begun(command))
            look(at, [code, *found])

        assert second == wanted or varying, (name, wanted, second)
        began, chance = time.perf_counter(), random.Random(name)
        tried = sorted(chance.sample(list(states), min(len(states), self.most or len(states))))
        for state in tried:
            shutil.rmtree(self.out)
            shutil.copytree(states[state], self.out, symlinks=True)
            again(f"copy {state}")
        kills = sorted(chance.sample(range(1, steps + 1), min(steps, 3)))
        for at in kills:
            self.killed(command, at)
            again(f"kill {at}")
        for at in kills:
            exits, told = self.full(command, at), self.said.read_text("utf-8", "replace")
            named = "the disk is full" in told or os.strerror(errno.ENOSPC) in told  # the second by Milvus
            if exits != [0, 0] and (exits != [0, 1] or not named or "Traceback" in told):  # 0: it needed no more room
                faults.append({"at": f"full {at}", "exits": exits, "said": told[-500:], "seen": ""})
            again(f"after full {at}")
        self.fresh(command)
        both = [ended(*each) for each in [self.begun(command, said=self.work / f"said-{one}") for one in (1, 2)]]
        codes = sorted(found[0] if found else code for code, found in both)
        self.said.write_text("".join((self.work / f"said-{one}").read_text("utf-8", "replace") for one in (1, 2)))
        look("two at once", [0, 0] if codes in ([0, 0], [0, 1]) else codes)
        seconds = time.perf_counter() - began
        said = f"{len(tried)} of {len(states)} states, {len(faults)} faults, two at once: {codes}, {seconds:.0f} s"
        print(f"killed: {name}: {said}", file=sys.stderr)
        return {
            "steps": steps, "states": len(states), "tried": len(tried), "kills": len(kills), "full": len(kills),
            "two": codes, "varying": sorted(varying), "faults": faults, "seconds": round(seconds, 1),
        }  # fmt: skip


_TEMPORARY = re.compile(rf"\.\w{{8}}{re.escape(PART)}")


_SUMS = ("steps", "states", "tried", "kills", "full", "seconds")


def killed(
    work: Path, short: bool, only: Sequence[str], most: int | None, done: Record, keep: Callable[[Record], None]
) -> Record:
    """Attack each command, or those given; of the others, what was `done` before is kept."""
    attack = Attack(work, most)
    lines: dict[str, Record] = dict(done.get("commands", {}))
    record: Record = {}
    for name, command in attack.table.items():
        if name not in only if only else (not command.cheap if short else name in lines):
            continue
        try:
            lines[name] = attack.attacked(name, command)
        except AssertionError as error:
            lines[name] = {**dict.fromkeys(_SUMS, 0), "faults": [str(error)]}
        sums = {what: round(sum(line[what] for line in lines.values()), 1) for what in _SUMS}
        times = sum(sums[what] for what in ("tried", "kills", "full")) + len(lines)
        record = {"commands": lines, **sums, "pairs": len(lines)}
        record["per_minute"] = round(60 * times / (sums["seconds"] or 1), 1)
        record["fault"] = sum(len(line["faults"]) for line in lines.values())
        keep(record)
    return record
