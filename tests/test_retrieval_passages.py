"""Passages hold all of a text within the model's limit, and a document scores as its best one does."""

from __future__ import annotations

import io
import itertools
import random
from pathlib import Path

import numpy as np
import pytest
import tiny
from sentence_transformers import SentenceTransformer
from shell import Shell

import foreword
from foreword.collections.collection import Document, MemoryCollection, Query
from foreword.errors import ForewordError
from foreword.prompts.encoder import transformer_of
from foreword.prompts.spec import PromptSpec
from foreword.retrieval.passages import Coverage, Cutter, cut
from foreword.retrieval.search import dense_run, document_blocks, exact_search, search


def long_text(seed: int, sentences: int = 30) -> str:
    """Sentences of several lengths, some of them under headings, with blanks of several kinds between."""
    chance = random.Random(seed)
    parts = []
    for text in tiny.sentences(sentences, seed=seed):
        parts += [text.capitalize(), chance.choice([". ", ".  ", ".\n", "!\n\n", ".\n\n## Part\n\n", " "])]
    return "".join(parts)


def collection(*documents: Document) -> MemoryCollection:
    return MemoryCollection("folder:notes", "folder", documents, {}, {})


CHINESE = "这是一个很长的句子没有空格" * 20
ENDLESS = " ".join(tiny.words()[:150])


@pytest.mark.parametrize("title", ["", "bado dane", " ", "bado " * 60], ids=["none", "title", "blank", "long"])
@pytest.mark.parametrize(
    "text", [long_text(0), long_text(1), f"  \n{long_text(2)}\n\n ", ENDLESS, CHINESE, "word", "", " "]
)
def test_passages_hold_every_word_once_at_least_and_none_is_cut(
    encoder: SentenceTransformer, title: str, text: str
) -> None:
    document = Document("d", text, title)
    pieces = Cutter(encoder)([document])[0]
    tokenizer, limit = transformer_of(encoder).tokenizer, transformer_of(encoder).max_seq_length
    assert [piece.number for piece in pieces] == list(range(1, len(pieces) + 1))
    assert {piece.of for piece in pieces} == {len(pieces)}
    if len(pieces) == 1:
        assert (pieces[0].start, pieces[0].end) == (0, len(text)) or title == "bado " * 60
        return
    heading = pieces[0].content.removesuffix(text[pieces[0].start : pieces[0].end])
    assert title.strip().startswith(heading.strip())
    assert bool(heading.strip()) == bool(title.strip())
    reached = 0
    for piece in pieces:
        assert piece.content == heading + text[piece.start : piece.end]
        assert len(tokenizer(piece.content)["input_ids"]) <= limit
        assert not text[reached : piece.start].strip()  # nothing lies between two of them
        assert reached < piece.end
        reached = piece.end
    assert not text[reached:].strip()


def test_a_text_that_fits_to_the_token_is_whole(encoder: SentenceTransformer) -> None:
    tokens = tiny.POSITIONS - 2  # and the first and last token
    fits, longer = (Document("d", " ".join(tiny.words()[:n])) for n in (tokens, tokens + 1))
    assert Cutter(encoder)([fits])[0][0].content == fits.text
    assert len(Cutter(encoder)([longer])[0]) == 2


def test_it_is_cut_before_headings_else_sentences_else_words() -> None:
    words = tiny.words()[:12]

    def pieces(text: str) -> list[str]:
        places, at = [], 0
        for word in text.split():
            at = text.index(word, at)
            places.append((at, at + len(word)))
            at += len(word)
        return [text[start:end] for start, end in cut(text, np.array(places), 8)]

    sentence = f"{' '.join(words[:6])}. {' '.join(words[6:])}."
    assert pieces(sentence) == [
        f"{' '.join(words[:6])}.",
        f"{words[5]}. {' '.join(words[6:])}.",
    ]  # the overlap: one word of 8
    headed = f"{' '.join(words[:4])}. b.\n\n# {' '.join(words[5:8])}. {' '.join(words[8:])}"
    assert pieces(headed) == [f"{' '.join(words[:4])}. b.", headed[headed.index("#") :]]
    endless = " ".join(words)
    assert pieces(endless) == [" ".join(words[:8]), " ".join(words[7:])]


def test_a_document_scores_as_its_best_passage(encoder: SentenceTransformer) -> None:
    rng = np.random.default_rng(0)
    counts = rng.integers(1, 6, 40)
    ids = [f"d{number}" for number, count in enumerate(counts) for _ in range(count)]
    vectors = rng.integers(-2, 3, (len(ids), 5)).astype(np.float32)  # exact sums, with ties
    queries = rng.integers(-2, 3, (7, 5)).astype(np.float32)
    names = [f"q{number}" for number in range(7)]
    expected, rows = {}, {}
    for name, query in zip(names, queries, strict=True):
        scores: dict[str, list[float]] = {}
        for doc_id, vector in zip(ids, vectors, strict=True):
            scores.setdefault(doc_id, []).append(float(query @ vector))
        best = sorted(((max(own), doc_id) for doc_id, own in scores.items()), reverse=True)[:9]
        expected[name] = {doc_id: score for score, doc_id in best}
        rows[name] = {doc_id: scores[doc_id].index(score) for score, doc_id in best}
    for how in ({}, {"block_rows": 7}, {"block_rows": 1, "memory_mib": 1e-6}):
        found: dict[str, dict[str, int]] = {}
        run = exact_search(queries, names, vectors, 9, document_ids=ids, best_rows=found, **how)
        assert run == expected
        assert [list(hits) for hits in run.values()] == [list(hits) for hits in expected.values()]
        assert found == rows
    with pytest.raises(ForewordError, match="one doc_id"):  # unless it is asked for
        exact_search(queries, names, vectors, 9, document_ids=ids)


def test_the_last_sentence_of_a_long_text_is_found(minilm: SentenceTransformer) -> None:
    about = {
        "bread": "Flour, water and salt are kneaded until the dough is smooth, and it rests in a bowl. ",
        "boats": "The hull is caulked in spring, and the mast is stepped before the boat is launched. ",
    }
    long = about["bread"] * 20 + "Bees dance to tell each other where flowers are."
    notes = collection(Document("long", long, "Bread"), Document("boats", about["boats"] * 20, "Boats"))
    asked = "how do honeybees communicate"
    hit = search(minilm, notes, [asked], quiet=True)[0][0]
    assert hit.doc_id == "long"
    assert hit.passage is not None
    assert hit.passage.number == hit.passage.of == 2
    assert long[hit.passage.start : hit.passage.end].endswith("where flowers are.")
    piece = minilm.encode_document([f"Bread {long[hit.passage.start : hit.passage.end]}"], normalize_embeddings=True)
    query = minilm.encode_query([asked], normalize_embeddings=True)
    assert hit.score == pytest.approx(float((piece @ query.T).item()), abs=1e-5)
    first = search(minilm, notes, [asked], passages=False, quiet=True)[0]
    assert all(found.passage is None and found.score < hit.score - 0.1 for found in first)


def test_a_length_means_a_cut_unless_passages_are_asked_for(encoder: SentenceTransformer) -> None:
    notes = collection(*(Document(f"n{seed}", long_text(seed)) for seed in range(4)))
    [(_, whole)] = document_blocks(encoder, notes, passages=False, max_length=16, quiet=True)
    [(ids, shorter)] = document_blocks(encoder, notes, max_length=16, quiet=True)
    assert ids == ["n0", "n1", "n2", "n3"]
    assert np.array_equal(shorter, whole)
    [(ids, passages)] = document_blocks(encoder, notes, max_length=16, passages=True, quiet=True)
    assert len(ids) == len(passages) > 40
    assert list(dict.fromkeys(ids)) == ["n0", "n1", "n2", "n3"]


def test_what_is_left_out_is_counted(encoder: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("foreword.retrieval.passages.MOST_CHARACTERS", 1000)
    fits, half = " ".join(tiny.words()[:1] * 46), " ".join(tiny.words()[:1] * 92)
    documents = [Document("a", fits), Document("b", half), Document("c", f"{tiny.words()[0]} " * 250)]
    plain, passages = Coverage(), Coverage()
    Cutter(encoder, passages=False, coverage=plain)(documents[:2])
    assert (plain.documents, plain.whole, plain.left_out) == (2, 1, len(half) - 46 * 5 + 1)
    assert str(plain) == "1 of 2 documents whole; 33 % of the text is left out"
    Cutter(encoder, coverage=passages)(documents[:2])
    assert str(passages) == "1 of 2 documents whole, the others split into 3 passages"
    assert passages.as_dict()["share_left_out"] == 0
    bounded = Coverage()
    Cutter(encoder, coverage=bounded)(documents[2:])
    assert bounded.left_out == len(documents[2].text) - 1000
    assert str(bounded).endswith("20 % of the text is left out")


def test_a_prompt_that_takes_positions_makes_passages_shorter(tiny_bert: Path) -> None:
    encoder = foreword.load_encoder(str(tiny_bert))
    document = Document("d", long_text(3))
    before = Cutter(encoder)([document])[0]
    transformer_of(encoder).add("a", tiny.random_prompt(encoder, PromptSpec(kind="input", length=12)))
    after = Cutter(encoder)([document])[0]
    assert len(after) > len(before)
    tokenizer = transformer_of(encoder).tokenizer
    assert max(len(tokenizer(piece.content)["input_ids"]) for piece in after) <= tiny.POSITIONS - 12


def test_blocks_hold_whole_documents(encoder: SentenceTransformer) -> None:
    documents = [Document(f"n{seed}", long_text(seed, 3 * (seed % 4) + 1)) for seed in range(12)]
    pieces = [piece for own in Cutter(encoder)(documents) for piece in own]
    blocks = list(Cutter(encoder).blocks(documents, 5))
    assert [piece for block in blocks for piece in block] == pieces
    assert all(len({piece.doc_id for piece in block}) == 1 or len(block) <= 5 for block in blocks)
    places = [{piece.doc_id for piece in block} for block in blocks]
    assert all(not a & b for a, b in itertools.pairwise(places))


def test_runs_and_hits_have_the_documents_ids(encoder: SentenceTransformer) -> None:
    notes = collection(*(Document(f"n{seed}", long_text(seed), "bado") for seed in range(6)))
    run = dense_run(encoder, notes, [Query("q", "bado dane")], k=100)
    assert sorted(run["q"]) == [f"n{seed}" for seed in range(6)]


def test_the_commands_say_which_passage_and_what_is_left_out(
    shell: Shell, tiny_bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    documents = tuple(Document(f"n{seed}", long_text(seed, 1 if seed % 2 else 30), "Bado") for seed in range(4))
    judged = MemoryCollection("", "", documents, {"test": (Query("a", "dane"),)}, {"test": {"a": {"n0": 1}}})
    folder = f"folder:{tiny.write_beir(tmp_path / 'notes', judged)}"
    expected = search(foreword.load_encoder(str(tiny_bert)), judged, ["dane"], k=4)[0]
    places = [None if hit.passage is None else hit.passage.place for hit in expected]
    assert len([place for place in places if place]) == 2
    found = shell.json("search", folder, "dane", "--k", 4, "--backbone", tiny_bert)[0]["hits"]
    assert [hit["passage"] for hit in found] == places
    assert [hit["text"] for hit in found] == [hit.document.text for hit in expected]
    said = shell.printed.err
    assert f"2 of 4 documents whole, the others split into {sum(p['of'] for p in places if p)} passages" in said
    monkeypatch.setattr("sys.stdin", reading := io.StringIO("dane\n"))
    monkeypatch.setattr("foreword.cli.search._is_whole", lambda stream: stream is not reading)
    monkeypatch.setattr("foreword.cli.search._has_ended", lambda stream: False)
    assert shell.json("search", folder, "--k", 4, "--backbone", tiny_bert)[0]["hits"] == found  # vectors that are held
    first = next(place for place in places if place)
    assert f"({first['number']}/{first['of']})" in shell("search", folder, "dane", "--k", 4, "--backbone", tiny_bert)
    cut = shell.json("evaluate", folder, "--backbone", tiny_bert, "--measures", "AP", "--document-length", 48)
    assert cut["configuration"]["passages"] is False
    assert cut["text"]["whole"] == 2
    assert cut["text"]["share_left_out"] > 0.3
    shown = shell("evaluate", folder, "--backbone", tiny_bert, "--measures", "AP", "--no-passages")
    assert f"2 of 4 documents whole; {100 * cut['text']['share_left_out']:.0f} % of the text is left out" in shown
    record = shell.json("encode", folder, "--backbone", tiny_bert, "--output", tmp_path / "v.npy")  # one a document
    assert record["rows"] == 4
    assert "2 of 4 documents whole; " in shell.printed.err
    whole = shell.json("evaluate", folder, "--backbone", tiny_bert, "--measures", "AP")
    assert whole["text"]["share_left_out"] == 0
    rank = [hit.doc_id for hit in expected].index("n0") + 1
    assert whole["measures"]["AP"] == pytest.approx(1 / rank)
