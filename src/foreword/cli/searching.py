"""`foreword search`."""

from __future__ import annotations

import sys

from foreword.cli.shared import (
    Add,
    Options,
    chosen_prompt,
    data_options,
    encoder_options,
    load_collection,
    load_encoder,
    print_json,
    print_table,
)
from foreword.common.errors import ForewordError


def add(command: Add) -> None:
    """The grammar of the command."""
    parser = command(
        "search",
        search,
        "search a collection, or a folder of your own",
        'foreword search pydoc/torch "stop gradients from flowing" --prompt prompts/pydoc-torch',
    )
    parser.add_argument("collection", metavar="COLLECTION", help="e.g. pydoc/torch, folder:PATH")
    parser.add_argument(
        "queries", nargs="*", metavar="QUERY", help="what to search for (none: a line of standard input each)"
    )
    data_options(parser)
    parser.add_argument("--system", choices=["dense", "bm25"], default="dense", help="(default: %(default)s)")
    parser.add_argument("--k", type=int, default=5, help="hits a query (default: %(default)s)")
    encoder_options(parser)


def search(options: Options) -> None:
    """Search a collection."""
    from foreword.retrieval.search import search as find

    queries = options.queries or [line.strip() for line in sys.stdin if line.strip()]
    if not queries:
        raise ForewordError("nothing to search for; give queries as arguments or on standard input, one a line")
    collection = load_collection(options, options.collection)
    encoder = load_encoder(options, prompt=chosen_prompt(options)) if options.system == "dense" else None
    how = {"precision": options.precision, "quiet": options.json} if encoder is not None else {}
    found = find(encoder, collection, queries, k=options.k, **how)
    if options.json:
        print_json(
            [
                {
                    "query": query,
                    "hits": [
                        {
                            "doc_id": h.doc_id,
                            "score": h.score,
                            "title": h.document.title,
                            "text": h.document.text,
                        }
                        | {"metadata": dict(h.document.metadata)}
                        for h in hits
                    ],
                }
                for query, hits in zip(queries, found, strict=True)
            ]
        )
        return
    for query, hits in zip(queries, found, strict=True):
        rows = [(f"{h.score:.3f}", h.document.name, shorten(h.document.text)) for h in hits]
        print_table(query, ("score", "document", "text"), rows)


def shorten(text: str, width: int = 160) -> str:
    """The beginning of a text on one line."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1].rsplit(" ", 1)[0] + "…"
