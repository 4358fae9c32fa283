"""`oag-qa/<topic>`: questions from forums and the papers that answer them, 10,000 papers a topic, 87 topics.

The data has no splits of its own, so questions are split here by a hash of their text. Topics, files and the
archive are facts in `data/oag_qa.json`.
"""

from __future__ import annotations

import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from foreword.collections.exclusion import ExcludingCollection, Texts
from foreword.collections.memory import MemoryCollection
from foreword.collections.oag_qa_files import Question, read_papers, read_questions
from foreword.collections.oag_qa_places import FOLDER, facts, find, obtain, require, topic_files
from foreword.collections.records import SPLITS, Collection, DataWarning, Document, Entry, Qrels, Query
from foreword.collections.splits import FRACTIONS, normalise, split_of
from foreword.common.errors import UnknownNameError
from foreword.downloads import Transport

GROUP = FOLDER
HEADLINE = "Success@20"
"""The measure that results on OAG-QA are compared by: the share of questions with a right paper among 20."""

TITLES = ("exact", "normalised")
"""How a listed title finds its papers: character by character, or after `splits.normalise`."""


def load(
    name: str,
    *,
    data: Path | None = None,
    exclude: Iterable[Collection] = (),
    titles: str = "exact",
    seed: int = 0,
) -> Collection:
    """The questions and papers of a topic.

    Args:
        name: e.g. `geometry`.
        data: the data folder, or one that holds the tables; see `downloads.data_folder`.
        exclude: collections whose texts must not occur in this one.
        titles: `exact` or `normalised`: how a listed title finds its papers.
        seed: of the split into train, dev and test.

    Raises:
        UnknownNameError: no such topic, or another value of `titles`.
        DataError: files are missing or broken; the message says which.
    """
    if not knows(name):
        raise UnknownNameError(f"no topic {name!r} in OAG-QA; known: {', '.join(topics())}")
    return assemble(f"{GROUP}/{name}", GROUP, (name,), data=data, exclude=exclude, titles=titles, seed=seed)


def topics() -> tuple[str, ...]:
    """The 87 topics, in alphabetical order."""
    return tuple(sorted(topic for listed in facts()["disciplines"].values() for topic in listed))


def knows(name: str) -> bool:
    """Whether it is one of the topics."""
    return name in topics()


def entries(data: Path | None = None) -> list[Entry]:
    """The topics, each with whether its files are there."""
    return [
        entry(
            f"{GROUP}/{name}", GROUP, f"forum questions on {name.replace('_', ' ')}, papers for answers", [name], data
        )
        for name in topics()
    ]


def entry(collection_id: str, group: str, description: str, names: Sequence[str], data: Path | None) -> Entry:
    """The catalogue's line of a collection made of some topics."""
    about = facts()
    return Entry(
        collection_id,
        group,
        description,
        SPLITS,
        find(names, data) is not None,
        about["licence"] or "",
        about["home"],
        size=about["archive"]["size"],
        citation=about["citation"],
    )


def download(name: str, data: Path, transport: Transport, source: Path | None = None) -> Path:
    """The folder with a topic's files; the one archive brings those of all topics.

    Args:
        name: the topic.
        data: the data folder.
        transport: of the download.
        source: the user's own copy, instead of a download: a folder or an archive.

    Raises:
        DataError: the download failed, or brought other files.
    """
    return obtain(f"{GROUP}/{name}", (name,), data, transport, source)


def assemble(
    collection_id: str,
    group: str,
    names: Sequence[str],
    *,
    data: Path | None,
    exclude: Iterable[Collection],
    titles: str,
    seed: int,
) -> Collection:
    """The collection of some topics; outside of the topics' own group, ids are `<topic>/<id>`.

    A title finds its papers in all of the topics: the same paper may be in two topics' files.
    """
    if titles not in TITLES:
        raise UnknownNameError(f"titles is one of {', '.join(TITLES)}; got {titles!r}")
    folder = require(collection_id, names, data)
    notes: Counter[str] = Counter()
    papers: list[Document] = []
    questions: list[Question] = []
    for name in names:
        question_file, paper_file = topic_files(name)
        prefix = "" if group == GROUP else f"{name}/"
        about = {"topic": name} if prefix else {}
        for paper in read_papers(folder / paper_file, notes):
            papers.append(replace(paper, doc_id=prefix + paper.doc_id, metadata=about))
        questions += [replace(q, query_id=prefix + q.query_id) for q in read_questions(folder / question_file)]
    relevant = _match(questions, papers, normalised=titles == "normalised", notes=notes)
    notes["documents"], notes["questions"] = len(papers), len(questions)
    notes["empty_documents"] = sum(not paper.content.strip() for paper in papers)
    counts = {"path": str(folder), "titles": titles, **_split_facts(seed), **dict(sorted(notes.items()))}
    _say(collection_id, notes, titles)
    collection = _collection(collection_id, group, papers, questions, relevant, seed, counts)
    excluded = Texts.of(exclude)
    return ExcludingCollection(collection, excluded) if excluded else collection


def _match(
    questions: Iterable[Question], papers: Iterable[Document], *, normalised: bool, notes: Counter[str]
) -> dict[str, dict[str, int]]:
    """`query_id -> doc_id -> 1`: every paper with one of the listed titles; questions without any are left out."""
    by_title: dict[str, list[str]] = defaultdict(list)
    for paper in papers:
        by_title[normalise(paper.title) if normalised else paper.title].append(paper.doc_id)
    by_title.pop("", None)  # papers without a title answer nothing
    relevant: dict[str, dict[str, int]] = {}
    for question in questions:
        found = [by_title.get(normalise(title) if normalised else title, []) for title in question.titles]
        notes["titles_listed"] += len(found)
        notes["titles_without_paper"] += found.count([])
        judged = {doc_id: 1 for doc_ids in found for doc_id in doc_ids}
        if judged:
            relevant[question.query_id] = judged
        else:
            notes["questions_without_paper"] += 1
    return relevant


def _split_facts(seed: int) -> dict[str, object]:
    return {"split": {"by": "hash of the question's normalised text", "seed": seed, "shares": dict(FRACTIONS)}}


def _say(collection_id: str, notes: Counter[str], titles: str) -> None:
    lost = notes["questions_without_paper"]
    if lost:
        other = "" if titles == "normalised" else '; titles="normalised" compares without case and punctuation'
        message = f"{collection_id}: {lost} of {notes['questions']} questions list no title of any paper here"
        warnings.warn(f"{message}; they are left out{other}", DataWarning, stacklevel=4)
    if notes["repeated_documents"]:
        message = f"{collection_id}: {notes['repeated_documents']} rows repeat a paper's id; the first one is kept"
        warnings.warn(message, DataWarning, stacklevel=4)


def _collection(
    collection_id: str,
    group: str,
    papers: Sequence[Document],
    questions: Iterable[Question],
    relevant: Mapping[str, dict[str, int]],
    seed: int,
    counts: Mapping[str, object],
) -> MemoryCollection:
    queries: dict[str, list[Query]] = {split: [] for split in SPLITS}
    qrels: dict[str, Qrels] = {split: {} for split in SPLITS}
    for question in questions:
        if question.query_id in relevant:
            split = split_of(question.text, seed)
            queries[split].append(Query(question.query_id, question.text))
            qrels[split][question.query_id] = relevant[question.query_id]
    present = [split for split in SPLITS if qrels[split]]
    return MemoryCollection(
        collection_id,
        group,
        tuple(papers),
        {split: tuple(queries[split]) for split in present},
        {split: qrels[split] for split in present},
        counts,
    )
