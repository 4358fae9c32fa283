"""The benchmark of transfer: what each system is, one cell after another, and what came of them.

Systems without training, the multitask prompt alone and the default transfer; what labels of the target give; whether
scores can be read as probabilities. `foreword.lab.rivals` has the other ways of combining prompts.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any

from foreword.collections.supervision import Fold, FoldCollection
from foreword.errors import ForewordError, NoGainError, PromptError, TooLittleTextError, UnknownNameError
from foreword.evaluation.calibration import calibrate, calibrate_from_dev
from foreword.files import json_digest, owns, read_json, write_json
from foreword.lab import PARTS
from foreword.lab.experiment import Findings, seconds_of
from foreword.lab.page import domain_table, hypothesis_table, summary_table, write_page
from foreword.lab.plots import draw_all
from foreword.lab.records import BASE, TRANSFER, BenchmarkCell, Plan, load_cells
from foreword.lab.rivals import rivals
from foreword.lab.stage import Stage, drawn
from foreword.lab.statistics import differences, judge_hypotheses, macro_mean, summarise
from foreword.prompts.store import StoredPrompt, folder_name, library_versions, read_card
from foreword.retrieval.runs import Run
from foreword.tables import NOTHING, Table, TableCell
from foreword.training.config import TrainingConfig
from foreword.training.train import train_few
from foreword.transferring.config import ProofConfig, TransferConfig
from foreword.transferring.reach import Reach
from foreword.transferring.transfer import proven
from foreword.transferring.trial import Evidence


@owns("output")
def run_benchmark(
    plan: Plan,
    output: Path,
    *,
    parts: Sequence[str] = PARTS,
    data: Path | None = None,
    backbone: str | None = None,
    quiet: bool = False,
) -> Path:
    """Run the parts asked for; cells that are there with the same settings are left as they are.

    Args:
        plan: what to run.
        output: its folder: `cells/`, `runs/` (TREC), `prompts/`, `vectors/`, and the results.
        parts: of `PARTS`, in any order.
        data: folder of collections.
        backbone: instead of the packaged MiniLM.
        quiet: no lines of progress.

    Returns:
        The page.

    Raises:
        UnknownNameError: no such part.
    """
    if unknown := sorted(set(parts) - set(PARTS)):
        raise UnknownNameError(f"no part {', '.join(unknown)}; there are: {', '.join(PARTS)}")
    stage = Stage(plan, output, data=data, backbone=backbone, quiet=quiet)
    stage.note_machine()
    first, near = plan.seeds[0], stage.here(plan.genre)
    if absent := [name for name in plan.domains if name not in near]:
        raise ForewordError(
            f"not here: {', '.join(absent)}; the group's domains are sources of one another. Documentation comes "
            "with pip install 'foreword[bench]'; other collections lie below the folder that --data names"
        )
    if "primary" in parts:
        for target in near:
            plain(stage, target)
        for seed in plan.seeds:
            for target in sorted(near, key=plan.fold_of):
                transferred(stage, target, seed)
    if "far" in parts:
        for target in stage.here():
            if target not in near:
                plain(stage, target)
                transferred(stage, target, first, anyway=False)
    if "avoided" in parts:
        for target in stage.here():
            if target not in near:
                plain(stage, target)
                transferred(stage, target, first)
    if "ceilings" in parts:
        for target in stage.here():
            ceiling(stage, target, first)
    if "rivals" in parts:
        for seed in plan.seeds:
            rivals(stage, near, seed)
    if "few-shot" in parts:
        for count in plan.few:
            for target in near:
                few_labels(stage, target, count, first)
    if "calibration" in parts:
        calibration(stage, near, first)
    return write_results(plan, output, missing=stage.missing)


def write_results(plan: Plan, output: Path, *, missing: dict[str, str] | None = None) -> Path:
    """Tables, verdicts, plots and the page, from the cells that are there; returns the page."""
    cells = load_cells(output)
    if not cells:
        raise ForewordError(f"{output} holds no cells yet; run the benchmark first")
    near = [name for name in plan.domains if any(cell.target == name for cell in cells)]
    verdicts = judge_hypotheses(cells, plan.hypotheses, near)
    shown = near or sorted({cell.target for cell in cells})
    summaries = summarise(cells, shown, _systems(cells, shown))
    tables = [summary_table(summaries), domain_table(cells, [s for s in _SHOWN if s in _systems(cells, shown)], shown)]
    compared = [verdict for verdict in judge_hypotheses(cells, plan.comparisons, near) if verdict.difference]
    tables += [hypothesis_table(compared, "Exploratory comparisons")] if compared else []
    for genre, names in plan.far.items():
        present = [name for name in names if any(cell.target == name for cell in cells)]
        if present:
            systems = _systems(cells, present)
            tables.append(replace(summary_table(summarise(cells, present, systems)), title=f"All systems on {genre}"))
            tables.append(replace(domain_table(cells, systems, present), title=f"By domain: {genre}"))
    if (calibrated := calibration_table(output)) is not None:
        tables.append(calibrated)
    plots = draw_all(output / "plots", cells, summaries)
    page = write_page(output, plan.title, _intro(plan, missing or {}), tables, verdicts, plots)
    write_json(output / EVIDENCE_FILE, evidence_of(cells, output))
    write_json(output / "plan.json", {"plan": plan.as_dict(), "versions": library_versions()})
    return page


_SHOWN = ("base", "bm25", "base+bm25", "multitask", "transfer", "transfer+bm25", "supervised")


def _systems(cells: Sequence[BenchmarkCell], targets: Sequence[str]) -> list[str]:
    """The systems there are, those that every benchmark has first; single sources are in the matrix instead."""
    found = {cell.system for cell in cells if cell.target in targets and not cell.system.startswith("single:")}
    return [*(system for system in _SHOWN if system in found), *sorted(found - set(_SHOWN))]


def _intro(plan: Plan, missing: dict[str, str]) -> str:
    text = (
        f"{len(plan.domains)} domains in {plan.folds} folds: a domain's prompts come from the other folds' domains, "
        "whose texts no other domain shares. Means are over domains, seeds averaged first; intervals resample domains, "
        f"then queries. Documents are cut at {plan.document_length} tokens, queries at {plan.query_length}, for all "
        "systems. "
        "The hypotheses were written down before the run; everything else is exploratory."
    )
    left_out = "; ".join(f"{name}: {why}" for name, why in sorted(missing.items()))
    return text + (f"\n\nNot on this machine: {left_out}" if left_out else "")


# Systems.


def plain(stage: Stage, target: str) -> None:
    """`base`, `bm25` and `base+bm25`."""
    configuration = stage.plan.digest()

    def base() -> Findings:
        began = time.perf_counter()
        run = stage.hits(target, None, "base")
        return Findings(run, details={"embedding_seconds": round(time.perf_counter() - began, 2)})

    stage.cell(target, "base", 0, configuration, base)
    stage.cell(target, "bm25", 0, configuration, lambda: Findings(stage.bm25(stage.collection(target))))
    stage.fused(target, "base", 0, configuration)


def transferred(stage: Stage, target: str, seed: int, *, anyway: bool = True) -> None:
    """`multitask` (`anyway`: out of reach too) and `transfer`, and both fused with BM25."""
    fold = stage.plan.fold_of(target)
    configuration = stage.plan.digest("multitask")
    source = cache(lambda: stage.multitask(fold, seed))

    def all_sources() -> Findings:
        stored = source()
        name = stage.carry("multitask", stored)
        return Findings(
            stage.hits(target, name, f"multitask-fold{fold}-seed{seed}"),
            stored_bytes=int(stored.card["bytes"]),
            similarity=stage.reach(target).nearness,
            details={"shared_parameters": stored.prompt.count(), "shared_seconds": seconds_of(stored)},
        )

    def default() -> Findings:
        began = time.perf_counter()
        reach = stage.reach(target)
        found: dict[str, Any] = {"similarity": reach.nearness, "details": {"reach": reach.as_dict()}}
        name = stage.carry("multitask", source())
        proof = speaks_for(stage, target, name, reach, seed)
        seconds = time.perf_counter() - began
        if proof is None:
            return Findings(stage.hits(target, None, "base"), decision=BASE, seconds=seconds, **found)
        found["details"]["proof"] = proof
        return Findings(
            stage.hits(target, name, f"multitask-fold{fold}-seed{seed}"),
            stored_bytes=int(source().card["bytes"]),
            seconds=seconds,
            decision=TRANSFER,
            **found,
        )

    if anyway or stage.reach(target).within:
        stage.cell(target, "multitask", seed, configuration, all_sources)
        stage.fused(target, "multitask", seed, configuration)
    configuration += f", proof {json_digest(ProofConfig(**stage.common(seed)).as_dict())[:16]}"
    stage.cell(target, "transfer", seed, configuration, default)
    stage.fused(target, "transfer", seed, configuration)


def speaks_for(stage: Stage, target: str, route: str, reach: Reach, seed: int) -> dict[str, dict[str, float]] | None:
    """What the default transfer takes a prompt for, on a target's text; None: the base model stays."""
    config = TransferConfig("multitask", proof=ProofConfig(**stage.common(seed)))
    try:
        return proven(stage.encoder, route, stage.collection(target), config, reach)
    except (NoGainError, TooLittleTextError) as error:
        stage.say(f"{target}: {error}")
        return None


def ceiling(stage: Stage, target: str, seed: int) -> None:
    """`supervised`: the multitask prompt trained further on all of the target's training labels.

    A target with test judgements alone is cut into the plan's number of folds: each query is answered by the prompt
    of its own fold, trained on the others' judgements; seconds are a fold's mean.
    """

    def answered(key: str, part: FoldCollection | None = None) -> Findings:
        stored = stage.supervised(target, seed, part)
        return _by_prompt(stage, target, stored, f"{key}-seed{seed}", labels=None, seconds=seconds_of(stored))

    def make() -> Findings:
        if "train" in stage.collection(target).splits:
            return answered("supervised")
        count = stage.plan.folds
        run: Run = {}
        found: list[Findings] = []
        for number in range(1, count + 1):
            part = FoldCollection(stage.collection(target), Fold(number, count))
            found.append(answered(f"supervised-fold{number}of{count}", part))
            run |= {query.query_id: found[-1].run.get(query.query_id, {}) for query in part.queries("test")}
        seconds = sum(each.seconds for each in found) / count
        return replace(found[0], run=run, seconds=seconds, details={"folds_of_queries": count})

    stage.cell(target, "supervised", seed, stage.plan.digest("multitask", "supervised"), make)


def few_labels(stage: Stage, target: str, count: int, seed: int) -> None:
    """`transfer@k`: the multitask prompt trained further on k of the target's labelled training pairs."""
    config = TrainingConfig.few("both", **stage.common(seed))

    def make() -> Findings:
        began = time.perf_counter()
        start = stage.multitask(stage.plan.fold_of(target), seed)
        pairs = drawn(list(stage.collection(target).pairs("train")), count, seed)
        folder = stage.output / "prompts" / f"labels{count}-seed{seed}" / folder_name(target)
        stored = train_few(
            stage.encoder, stage.collection(target), pairs, folder, start=start, config=config, quiet=True
        )
        seconds = time.perf_counter() - began
        return _by_prompt(stage, target, stored, f"transfer@{count}-seed{seed}", labels=count, seconds=seconds)

    configuration = f"{stage.plan.digest('multitask')} {json_digest(config.as_dict())[:16]}"
    stage.cell(target, f"transfer@{count}", seed, configuration, make)


def _by_prompt(
    stage: Stage, target: str, stored: StoredPrompt, key: str, *, labels: int | None, seconds: float
) -> Findings:
    name = stage.carry(key, stored)
    run = stage.hits(target, name, key)
    stage.drop(name)  # an `input` prompt leaves other texts less room while it is carried
    return Findings(
        run,
        labels=labels,
        trained_parameters=stored.prompt.count(),
        stored_bytes=int(stored.card["bytes"]),
        seconds=seconds,
        similarity=stage.reach(target).nearness,
    )


# Calibration by domain, base against prompts: whether scores can be read as probabilities of relevance.

CALIBRATION_FILE = "calibration.json"
CALIBRATED_HITS = 10
PT_RETRIEVAL_HITS = 5


def calibration(stage: Stage, targets: Sequence[str], seed: int) -> None:
    """Write `calibration.json`: each system on each target, its temperature fitted on the target's dev split.

    The temperature is fitted with labels, so this is about how a system's scores behave, not about transfer.
    """
    found = []
    for target in targets:
        fold = stage.plan.fold_of(target)
        shared = stage.multitask(fold, seed)
        carried = stage.carry("multitask", shared)
        routes = [
            ("base", "base", None),
            ("multitask", f"multitask-fold{fold}-seed{seed}", carried),
            ("supervised", f"supervised-seed{seed}", stage.carry("supervised", stage.supervised(target, seed))),
        ]
        for system, key, route in routes:
            vectors = stage.documents(target, route, key)
            collection = stage.collection(target)
            test, dev = (stage.search(collection, route, vectors, split) for split in ("test", "dev"))
            qrels = collection.qrels
            fitted = calibrate_from_dev(test, qrels("test"), dev, qrels("dev"), k=CALIBRATED_HITS, several="share")
            theirs = calibrate(test, qrels("test"), k=PT_RETRIEVAL_HITS, several="each").as_dict()
            found.append(
                {
                    "target": target,
                    "system": system,
                    "seed": seed,
                    **fitted.as_dict(),
                    "pt_retrieval": {"ece": theirs["ece_equal_width"], "curve": theirs["curve_equal_width"]},
                }
            )
            stage.say(f"{target}: {system}: ECE {fitted.ece:.3f}, Brier {fitted.brier.score:.4f}")
    write_json(stage.output / CALIBRATION_FILE, found)


def calibration_table(output: Path) -> Table | None:
    """Systems by the means over targets; None where it has not been run."""
    path = output / CALIBRATION_FILE
    if not path.exists():
        return None
    records: list[Mapping[str, Any]] = read_json(path)
    values = {"ECE": "ece", "Brier": "brier", "temperature": "temperature"}
    lines, rows = [], []
    for system in ("base", "multitask", "supervised"):
        own = [record for record in records if record["system"] == system]
        if not own:
            continue
        means = {name: sum(float(record[key]) for record in own) / len(own) for name, key in values.items()}
        means["ECE, PT-Retrieval's"] = sum(float(record["pt_retrieval"]["ece"]) for record in own) / len(own)
        lines.append((TableCell(system), *(TableCell(f"{value:.3f}") for value in means.values())))
        rows.append({"system": system, "targets": len(own), **means})
    notes = (
        f"Probabilities: softmax over a query's {CALIBRATED_HITS} best scores, divided by a temperature fitted on the "
        "target's dev split; bins of equal count; each of R relevant hits counts 1/R. Brier: mean squared error of the "
        "hits.",
        f"PT-Retrieval's definition: {PT_RETRIEVAL_HITS} hits, temperature 1, bins of equal width (2207.07087).",
    )
    columns = ("system", *(name for name in (rows[0] if rows else {}) if name not in ("system", "targets")))
    title = f"Calibration, means over {rows[0]['targets'] if rows else NOTHING} targets"
    return Table(title, columns, frozenset({0}), tuple(lines), notes, tuple(rows))


# What a benchmark's cells say to `foreword advise`: gains on domains whose labels no choice had seen.


EVIDENCE_FILE = "evidence.json"


def evidence_of(cells: Sequence[BenchmarkCell], output: Path) -> list[dict[str, Any]]:
    """An entry of `foreword.transferring.trial` for each target that the default transfer has decided on.

    Out of reach, the gain is what the multitask prompt would have brought: what was avoided.
    """
    found = []
    for target in sorted({cell.target for cell in cells if cell.system == "transfer"}):
        own = [cell for cell in cells if cell.target == target]
        decided = next(cell for cell in own if cell.system == "transfer")
        reach = decided.details["reach"]
        supervised = [cell for cell in own if cell.system == "supervised"]
        if not reach["within"] and all(cell.system != "multitask" for cell in own):
            continue
        shown = ("transfer" if reach["within"] else "multitask", "supervised")
        gain, most = (differences(own, system, "base", "nDCG@10") for system in shown)
        entry = Evidence(
            target=target,
            genre=decided.genre,
            within=reach["within"],
            pseudo_gain=None,
            gain=round(macro_mean(gain), 6),
            supervised_gain=round(macro_mean(most), 6) if supervised else None,
            pairs=_training_pairs(output, supervised[0]) if supervised else None,
        )
        found.append(asdict(entry))
    return found


def _training_pairs(output: Path, cell: BenchmarkCell) -> int | None:
    """Of the ceiling's prompt; None where its folder is gone."""
    try:
        card = read_card(output / "prompts" / f"supervised-seed{cell.seed}" / folder_name(cell.target))
    except PromptError:
        return None
    return sum(int(entry["pairs"]) for entry in (card.get("data") or {}).values())
