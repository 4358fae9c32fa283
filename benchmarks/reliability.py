"""Attack Foreword on this machine, and say what came of it: `python benchmarks/reliability.py`, some hours.

Five kinds of attack, on tiny models that are made here: strangers' files (`malformed.py`); commands that are killed at
every step that they take on the disk, or run twice at once; clients of a service, and a text of 4 MB among theirs;
embeddings and searches that have to be equal; measures that have to be trec_eval's. Processes are forked, so this
runs on Linux. What is written is a record as JSON, and the table of it that docs/reliability.md shows.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]  # whose tiny models are attacked
for _name, _value in (("HF_HUB_OFFLINE", "1"), ("TOKENIZERS_PARALLELISM", "false"), ("FOREWORD_CACHE", "")):
    os.environ[_name] = _value
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a process that is forked off has no other threads

# ruff: noqa: E402  # the environment is set before torch and the hub's client are imported
import httpx2
import numpy as np
import pytrec_eval
import torch
import uvicorn
from killed import Record, child, ended, killed
from malformed import attempts
from serve_bank import config, load, save_bank
from tiny import random_prompt, save_model, sentences

from foreword.evaluation.measures import evaluate_run
from foreword.files import write_json
from foreword.prompts.encoder import encode, transformer_of
from foreword.prompts.loading import load_encoder
from foreword.prompts.spec import KINDS, PromptSpec
from foreword.prompts.store import library_versions, save_prompt
from foreword.retrieval.runs import read_qrels, read_run, write_qrels, write_run
from foreword.serving.app import create_app, server_settings
from foreword.tables import Table, TableCell

RECORD = HERE.parent / "docs" / "records" / "reliability.json"


# -- strangers' files ------------------------------------------------------------------------------------------------


def malformed(work: Path, inputs: int, first: int, seed: int, done: Record, keep: Callable[[Record], None]) -> Record:
    """Read so many altered files, each process as long as it lasts; what was `done` before is gone on with."""
    record: Record = {"inputs": 0, "first": first, "refused": 0, "right": 0, "fault": 0, "processor_seconds": 0.0}
    record |= {"slowest_seconds": 0.0, "largest_bytes": 0, "kinds": {}, "faults": []}
    if done.get("first") == first:
        record |= done
    while record["inputs"] < inputs:
        begin = first + record["inputs"]
        numbers = range(begin, min(first + inputs, begin + 500))
        place = work / f"malformed-{begin}"
        pid, pipes = child(lambda at=numbers, to=place: attempts(at, seed, to), work / "said")  # type: ignore[misc]
        code, found = ended(pid, pipes)
        shutil.rmtree(place, ignore_errors=True)
        if code:  # it was ended by the alarm, or by something worse
            said = f"ended with {code}: {(work / 'said').read_text('utf-8', 'replace')[-300:]}"
            one = {"number": begin + len(found), "kind": "?", "outcome": "fault", "said": said}
            found.append({**one, "seconds": 0.0, "bytes": 0})
        for one in found:
            record[one["outcome"]] += 1
            of_kind = record["kinds"].setdefault(one["kind"], {})
            of_kind[one["outcome"]] = of_kind.get(one["outcome"], 0) + 1
            record["slowest_seconds"] = max(record["slowest_seconds"], round(one["seconds"], 2))
            record["largest_bytes"] = max(record["largest_bytes"], one["bytes"])
            record["processor_seconds"] = round(record["processor_seconds"] + one["seconds"], 2)
        record["faults"] += [one for one in found if one["outcome"] == "fault"]
        record["inputs"] += len(found)
        keep(record)
        if inputs > 1000:
            print(f"malformed: {record['inputs']:,} of {inputs:,}, {record['fault']} faults", file=sys.stderr)
    return record


# -- clients of a service ---------------------------------------------------------------------------------------------


def served(work: Path, clients: int, seconds: float) -> Record:
    """Clients of all domains at once; then requests at a steady rate, with and without a text of 4 MB among them."""
    model = save_model(work / "model")
    bank = save_bank(work / "bank", load_encoder(str(model), device="cpu"))
    settings = config(model, bank, collections=("toy/one", "toy/two"))
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listener:
        address = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            app = create_app(settings, load=load)
            uvicorn.Server(uvicorn.Config(app, log_level="warning", **server_settings(settings))).run([listener])

        pid, pipes = child(serve, work / "said")
    try:
        return asyncio.run(_clients(address, clients, seconds))
    finally:
        os.kill(pid, signal.SIGTERM)
        ended(pid, pipes)


async def _clients(address: str, clients: int, seconds: float) -> Record:
    """What clients see: statuses, requests a second, and how long they wait."""
    texts = sentences(200, least=3, most=30)
    statuses: Counter[int] = Counter()
    limits = httpx2.Limits(max_connections=4 * clients, max_keepalive_connections=4 * clients)
    async with httpx2.AsyncClient(base_url=address, limits=limits, timeout=120, trust_env=False) as client:

        async def up() -> bool:
            try:
                return (await client.get("/health")).status_code == 200
            except httpx2.TransportError:
                return False

        while not await up():
            await asyncio.sleep(0.05)
        names = [each["id"] for each in (await client.get("/v1/models")).json()["data"]]

        async def ask(number: int, text: str | None = None) -> float:
            """A request: most are embeddings, of all domains in turn, others searches."""
            text = text or texts[number % len(texts)]
            began = time.perf_counter()
            if number % 4:
                answer = await client.post("/v1/embeddings", json={"model": names[number % len(names)], "input": text})
            else:
                body = {"domain": f"toy/{('one', 'two')[number % 8 // 4]}", "query": text}
                answer = await client.post("/search", json=body)
            statuses[answer.status_code] += 1
            return time.perf_counter() - began

        async def keeping_on(number: int, until: float) -> int:
            asked = 0
            while time.perf_counter() < until:
                await ask(number + asked * clients)
                asked += 1
            return asked

        async def steady(rate: float, length: float, long: bool = False) -> list[float]:
            begun, tasks = time.perf_counter(), []
            for number in range(int(rate * length)):
                await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
                tasks.append(asyncio.create_task(ask(number)))
                if long and number == int(rate * length / 4):
                    tasks.append(asyncio.create_task(ask(1, "a " * 2**21)))
            return sorted(await asyncio.gather(*tasks))

        await keeping_on(0, time.perf_counter() + 0.3)  # to warm up
        began = time.perf_counter()
        asked = sum(await asyncio.gather(*(keeping_on(each, began + seconds) for each in range(clients))))
        full = asked / (time.perf_counter() - began)
        rate = 0.3 * full
        usual = await steady(rate, seconds / 2)
        before = Counter(statuses)
        beside = await steady(rate, max(2.0, seconds / 8), long=True)
    return {
        "clients": clients, "seconds": seconds, "models": len(names), "requests": sum(statuses.values()),
        "statuses": {str(status): number for status, number in statuses.items()},
        "fault": sum(number for status, number in before.items() if status != 200),
        "requests_per_second": round(full, 1), "steady_rate": round(rate, 1),
        "p50_ms": _percentile(usual, 0.5), "p99_ms": _percentile(usual, 0.99),
        "beside_4_MB_p50_ms": _percentile(beside, 0.5), "beside_4_MB_longest_ms": _percentile(beside[:-1], 1.0),
    }  # fmt: skip


def _percentile(latencies: Sequence[float], share: float) -> float:
    return round(1000 * latencies[min(len(latencies) - 1, int(share * len(latencies)))], 2)


# -- equal numbers -----------------------------------------------------------------------------------------------------


def equal(work: Path, short: bool) -> Record:
    """Embeddings of every kind of prompt in batches of every size, in any order, on threads, saved and reloaded.

    `largest_difference` is of one number of a vector of unit length, from the same text alone in its batch.
    """
    model = save_model(work / "model")
    encoder = load_encoder(str(model), device="cpu")
    texts = sentences(8 if short else 100, least=1, most=40)
    shuffled = random.Random(0).sample(range(len(texts)), len(texts))
    differences: dict[str, float] = {}
    for seed, (kind, length) in enumerate([(None, 0), *((kind, 4) for kind in KINDS)]):
        if kind is not None:
            prompt = random_prompt(encoder, PromptSpec(kind, length, sides="untied"), seed)
            transformer_of(encoder).add(kind, prompt)
            save_prompt(work / kind, prompt, encoder, kind, dtype="float32")
        how: dict[str, Any] = {"route": kind, "quiet": True}
        alone = encode(encoder, texts, "document", batch_size=1, **how)
        for size in (3, 16, len(texts)):
            _further(
                differences, f"batches of {size}", encode(encoder, texts, "document", batch_size=size, **how), alone
            )
        mixed = np.empty_like(alone)
        mixed[shuffled] = encode(encoder, [texts[place] for place in shuffled], "document", **how)
        _further(differences, "another order", mixed, alone)
        torch.set_num_threads(2)
        _further(differences, "two threads", encode(encoder, texts, "document", **how), alone)
        torch.set_num_threads(1)
        again = load_encoder(str(model), device="cpu", prompt=None if kind is None else work / kind)
        _further(differences, "saved and reloaded", encode(again, texts, "document", quiet=True), alone)
        again.save_pretrained(str(work / f"saved-{kind}"), create_model_card=False)
        other = load_encoder(str(work / f"saved-{kind}"), device="cpu")
        _further(differences, "by save_pretrained", encode(other, texts, "document", quiet=True), alone)
    differences = {name: float(f"{value:.2g}") for name, value in differences.items()}
    return {"texts": len(texts), "kinds": 1 + len(KINDS), "largest_difference": differences,
            "fault": sum(value > TOLERANCE for value in differences.values())}  # fmt: skip


TOLERANCE = 2e-6
"""Float32 sums in another order differ by so much: the rounding of 1 is 1.2e-7."""


def _further(differences: dict[str, float], name: str, found: Any, wanted: Any) -> None:
    difference = float(np.abs(found - wanted).max()) if np.isfinite(found).all() else float("inf")
    differences[name] = max(differences.get(name, 0.0), difference)


# -- trec_eval's measures ----------------------------------------------------------------------------------------------

_CUT = {"P": "P", "R": "recall", "AP": "map_cut", "nDCG": "ndcg_cut", "Success": "success"}
_PLAIN = {
    **{"AP": "map", "Rprec": "Rprec", "Bpref": "bpref", "RR": "recip_rank", "nDCG": "ndcg", "infAP": "infAP"},
    **{"NumRet": "num_ret", "NumRel": "num_rel", "NumRet(rel=1)": "num_rel_ret"},
}


def _by_trec_eval(measure: str) -> str:
    """What pytrec_eval calls a measure of ir_measures."""
    name, _, cutoff = measure.partition("@")
    if name == "IPrec":
        return f"iprec_at_recall_{float(cutoff):.2f}"
    return f"{_CUT[name]}_{cutoff}" if cutoff else _PLAIN[name]


def hard_task(chance: random.Random) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, int]]]:
    """A run and judgements that a careless reader, sorter or average gets wrong."""
    size = chance.choice((1, 5, 40, 40, 1100))
    letters = chance.choice(("d", "é", "文", "\U0001f31f", "Z", "-", "\u2060", "0", "q1", "\\"))
    ids = [f"{letters}{number}" for number in range(size)]
    steps = chance.choice((1, 2, 5, 10**6))
    scale = chance.choice((1.0, 1e-42, 1e30, -1.0, 1 + 1e-9, 1e-8, 0.0))
    low, high = chance.choice(((0, 1), (-2, 3), (0, 0), (-1, 0), (1, 5)))
    queries = [f"{chance.choice(('q', '٣', 'Q '))[:1]}{number}" for number in range(chance.choice((1, 8)))]

    def few(least: int) -> list[str]:
        return chance.sample(ids, chance.randint(min(least, size), size))

    run = {
        q: {d: scale * (chance.randrange(steps) + chance.choice((0, 1e-9))) for d in few(1)}
        for q in queries[1:] or queries
    }
    qrels = {q: {d: chance.randint(low, high) for d in few(1)} for q in queries[:-1] or queries}
    return run, qrels


def measured(work: Path, tasks: int, seed: int) -> Record:
    """Runs written to files, read back and scored, beside pytrec_eval on the dictionaries themselves."""
    names = ("trec_eval", "infAP")
    compared, largest, faults = 0, 0.0, []
    for number in range(tasks):
        run, qrels = hard_task(random.Random(f"{seed} {number}"))
        write_run(work / "run", run, "tag")
        write_qrels(work / "qrels", qrels)
        found = evaluate_run(read_run(work / "run"), read_qrels(work / "qrels"), names)
        sound = {q: judged if max(judged.values()) >= 0 else {**judged, "": 0} for q, judged in qrels.items()}
        theirs = pytrec_eval.RelevanceEvaluator(sound, pytrec_eval.supported_measures).evaluate(
            {query_id: run.get(query_id, {}) for query_id in qrels}
        )
        for measure, values in found.per_query.items():
            for query_id, value in values.items():
                wanted = theirs[query_id][_by_trec_eval(measure)]
                wanted = wanted if query_id in run or measure == "NumRel" else 0.0  # it divides by zero hits: NaN
                compared += 1
                largest = max(largest, abs(value - wanted))
                if not abs(value - wanted) <= 1e-9:
                    faults.append(
                        {"task": number, "query": query_id, "measure": measure, "got": value, "wanted": wanted}
                    )
    return {
        "tasks": tasks,
        "values": compared,
        "largest_difference": largest,
        "fault": len(faults),
        "faults": faults[:20],
    }


# -- the record and its table ------------------------------------------------------------------------------------------


def table(record: Mapping[str, Any]) -> Table:
    """A line for each kind of attack in a record."""
    files, cut, service = record.get("malformed"), record.get("killed"), record.get("served")
    numbers, scores = record.get("equal"), record.get("measured")
    rows: list[tuple[str, str, int, str]] = []
    if files:
        found = f"{files['refused']:,} refused by name, {files['right']:,} read and right"
        found += f"; the slowest took {files['slowest_seconds']:.1f} s"
        rows.append(
            (f"altered files of {len(files['kinds'])} kinds", f"{files['inputs']:,} files", files["fault"], found)
        )
    if cut:
        points = sum(cut[what] for what in ("tried", "kills", "full", "pairs"))
        found = f"{len(cut['commands'])} commands, {cut['tried']:,} of {cut['states']:,} states of the disk; "
        found += f"{cut['kills']:,} real kills, {cut['full']:,} full disks, {cut['pairs']} times two at once"
        found += f"; {cut['per_minute']:.0f} a minute"
        rows.append(("SIGKILL, then the command again", f"{points:,} times", cut["fault"], found))
    if service:
        full, steady = (f"{service[name]:,.0f}" for name in ("requests_per_second", "steady_rate"))
        p50, p99, longest = (f"{service[name]:,.0f} ms" for name in ("p50_ms", "p99_ms", "beside_4_MB_longest_ms"))
        found = f"{service['clients']} at once, of {service['models']} models: {full} a second; at a steady {steady} "
        found += f"a second p50 {p50}, p99 {p99}; beside a text of 4 MB the longest {longest}"
        rows.append(("clients of a service", f"{service['requests']:,} requests", service["fault"], found))
    if numbers:
        differences = numbers["largest_difference"]
        found = f"largest difference {max(differences.values()):.1g}, in {', '.join(sorted(differences))}"
        what = f"{numbers['texts']} texts, {numbers['kinds']} kinds of prompt"
        rows.append((f"equal embeddings, to {TOLERANCE:.0e}", what, numbers["fault"], found))
    if scores:
        found = f"{scores['values']:,} values; largest difference {scores['largest_difference']:.1g}"
        rows.append(("measures equal to trec_eval's", f"{scores['tasks']:,} hard runs", scores["fault"], found))
    lines = tuple(tuple(TableCell(str(cell)) for cell in row) for row in rows)
    return Table("", ("attack", "how much", "faults", "what was seen"), frozenset({0, 1, 3}), lines)


def main(words: Sequence[str] | None = None) -> int:
    """Attack, write the record, print the table; 1 where something failed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parts = ("malformed", "killed", "served", "equal", "measured")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="(default: all)")
    parser.add_argument("--short", action="store_true", help="seconds: few inputs, two commands")
    parser.add_argument("--inputs", type=int, help="altered files (default: 10000; with --short 115)")
    parser.add_argument("--first", type=int, default=0, help="number of the first of them (default: %(default)s)")
    parser.add_argument("--commands", nargs="+", default=(), metavar="NAME", help="that are killed (default: all)")
    parser.add_argument("--states", type=int, help="of the disk that are tried of each, by chance (default: all)")
    parser.add_argument("--seconds", type=float, help="of clients at once (default: 600; with --short 1)")
    parser.add_argument("--seed", type=int, default=0, help="(default: %(default)s)")
    parser.add_argument("--output", type=Path, metavar="FILE", help="of the record; parts that it has already are kept")
    options = parser.parse_args(words)
    torch.set_num_threads(1)
    inputs = options.inputs or (115 if options.short else 10_000)
    record: Record = json.loads(options.output.read_text("utf-8")) if options.output and options.output.exists() else {}

    def keep(part: str, found: Record) -> None:
        """Write what there is, so that a run which is ended can be gone on with."""
        record.update({part: found, "seed": options.seed})
        if options.output:
            write_json(options.output, record)

    with tempfile.TemporaryDirectory() as folder:
        for part in options.parts:
            work = Path(folder).resolve() / part
            work.mkdir()
            began = time.perf_counter()
            if part == "malformed":
                done = record.get(part, {}) if record.get("seed") == options.seed else {}
                record[part] = malformed(work, inputs, options.first, options.seed, done, partial(keep, part))
            elif part == "killed":
                done = {} if options.short else record.get(part, {})
                record[part] = killed(work, options.short, options.commands, options.states, done, partial(keep, part))
            elif part == "served":
                record[part] = served(
                    work, 8 if options.short else 64, options.seconds or (1.0 if options.short else 600.0)
                )
            elif part == "equal":
                record[part] = equal(work, options.short)
            else:
                record[part] = measured(work, 8 if options.short else 200, options.seed)
            record[part]["seconds"] = round(time.perf_counter() - began, 1)
    record["seed"], record["versions"] = options.seed, library_versions()
    record["machine"] = f"{platform.machine()}, {os.cpu_count()} processors, {platform.system()}"
    if options.output:
        write_json(options.output, record)
    print(table(record).markdown())
    return int(any(record[part]["fault"] for part in parts if part in record))


if __name__ == "__main__":
    sys.exit(main())
