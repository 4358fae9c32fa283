"""Forward passes in int8 on a processor: the encoder's graph, its linear layers quantised by NNCF, run by OpenVINO.

Ranges of activations are found once for a backbone, on texts that are always the same, so that its vectors do not
depend on what was encoded first. SmoothQuant (Xiao et al. 2023) moves into the weights what lies far outside an
activation's range. Products of two activations stay in float32: prompts are among them, and a range that was found
without a prompt would cut it off. Importing this loads neither OpenVINO nor NNCF.
"""

from __future__ import annotations

import hashlib
import io
import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from foreword.errors import BackboneError, ForewordError, PromptError
from foreword.files import cache_folder, json_digest, scratch_folder
from foreword.prompts.encoder import head_of, state_digest, text_prompt, transformer_of
from foreword.prompts.graph import base_inputs, check_text_prompt, graph_spec, input_axes, prompt_inputs, write_graph
from foreword.prompts.kinds.kind import kind_of
from foreword.prompts.routes import OneRoute, Route, names_of, route_of_side
from foreword.prompts.spec import PromptSpec
from foreword.settings import Side
from foreword.terminal import quietly

MADE = 1
"""Counts the ways in which graphs were made, for the names of those on the disk."""

SMOOTHING = 0.8
"""SmoothQuant's share of an activation's range that goes into the weights."""

LEAST = 0.97
"""The least mean cosine to float32 embeddings."""

GRAPH, FLOAT32 = "graph.xml", "float32.onnx"
PRODUCTS = ("MatMul", "ScaledDotProductAttention")

logger = logging.getLogger(__name__)

SENTENCES = (
    "What does the function return when the input array is empty?",
    "Returns the index of the largest element along an axis, or -1 where there is none.",
    "how do i reset my password",
    "The patient was given 40 mg a day for two weeks; no side effects were seen, and the fever fell on the third day.",
    "Is it safe to take ibuprofen together with blood pressure medication?",
    "raise ValueError(f'expected a positive number, got {value!r}')",
    "In 1889 the tower was opened to the public, and 1,953,122 people went up in its first year.",
    "Who wrote the novel that the film of 1975 is based on?",
    "Shares fell 3.2% on Tuesday after the company said that profits would be lower than in the year before.",
    "Boundary-layer flow over a flat plate at hypersonic speeds is computed by a method of finite differences.",
    "cheap flights berlin to lisbon in may",
    "Mix flour, salt and water; let the dough rest for an hour, then bake it at 220 °C until it is brown.",
    "An agreement of this kind may be ended by either party with three months' notice in writing.",
    "Der Bundestag hat das Gesetz am Donnerstag mit großer Mehrheit beschlossen.",
    "¿Cuántos habitantes tiene la ciudad y cómo ha cambiado la población desde 1950?",
    "La cathédrale a été construite entre le XIIe et le XVe siècle.",
    "这个函数返回一个新的列表，不改变原来的列表。",
    "Процессор выполняет программу быстрее, если данные лежат в кэше.",
    "The claim that the photograph shows last week's flood is false: it was taken in another country in 2011.",
    "git rebase --onto main feature~3 feature  # moves the last three commits",
    "Cells that lack the gene divide more slowly, and their membranes let more calcium through.",
    "best headphones under 100 dollars with noise cancelling",
    "E = mc^2; the mass of a proton is about 1.67e-27 kg.",
    "She left the house before dawn, and nobody in the village ever saw her again.",
)
"""Of many kinds of text; joined to longer ones they give activations their ranges."""


def calibration_texts() -> list[str]:
    """Each sentence alone, and as many texts of two to sixteen sentences, each beginning with another."""
    twice = SENTENCES + SENTENCES
    lengths = (2, 4, 8, 16)
    return [*SENTENCES, *(" ".join(twice[i : i + lengths[i % 4]]) for i in range(len(SENTENCES)))]


class Int8:
    """An encoder's forward passes in int8. Its graphs are made when they are needed, and kept in the user's cache."""

    def __init__(self) -> None:
        self._graphs: dict[tuple[Any, ...], Any] = {}
        self._proven: set[bytes] = set()

    def __reduce__(self) -> tuple[type[Int8], tuple[()]]:
        return Int8, ()  # a copy of an encoder, or one in another process, opens graphs of its own

    def embed(
        self,
        encoder: SentenceTransformer,
        features: Mapping[str, Any],
        side: Side,
        route: Route,
        domains: Sequence[str | None] | None = None,
    ) -> Tensor:
        """Embeddings (B, d') of a batch; texts of one domain share a pass.

        Args:
            encoder: the one that this was made for.
            features: as its `preprocess` gives them.
            side: of all texts.
            route: of all texts.
            domains: instead of it, a domain for each text.

        Raises:
            ForewordError: OpenVINO or NNCF is missing.
            BackboneError: the encoder is not on a processor, or torch cannot export the backbone.
            PromptError: prompts of different kinds, a pooling that leaves out the backbone's own text prompt, or
                embeddings that int8 spoils, see `LEAST`.
        """
        check_text_prompt(encoder)
        if domains is None:
            return self._pass(encoder, features, side, route_of_side(route, side))
        output: Tensor | None = None
        for domain in dict.fromkeys(domains):
            rows = torch.tensor([i for i, other in enumerate(domains) if other == domain])
            some = {name: value[rows] for name, value in features.items() if isinstance(value, Tensor)}
            embedded = self._pass(encoder, some, side, domain)
            output = torch.empty(len(domains), embedded.shape[1]) if output is None else output
            output[rows] = embedded
        assert output is not None
        return output

    def _pass(self, encoder: SentenceTransformer, features: Mapping[str, Any], side: Side, route: OneRoute) -> Tensor:
        spec = _spec(encoder, route)
        prompt = {name: value.numpy() for name, value in prompt_inputs(encoder, spec, route, side).items()}
        graph = self._graph(encoder, spec)
        digest = hashlib.sha256(b"".join(value.tobytes() for value in prompt.values())).digest()
        if digest not in self._proven:
            some = encoder.preprocess(list(SENTENCES), prompt=text_prompt(encoder, side), task=side)
            expected = encoder({**some, "prompt_route": route})["sentence_embedding"].float()
            _check_near(expected, _run(graph, some, prompt))
            self._proven.add(digest)
        return _run(graph, features, prompt)

    def _graph(self, encoder: SentenceTransformer, spec: PromptSpec) -> Any:
        """The compiled graph for prompts of this structure: made before, on the disk, or made now."""
        later, place = list(encoder)[1:], [spec.kind, sorted(input_axes(spec)), spec.top_layers, spec.placement]
        key = (str(place), str(head_of(encoder)), *map(id, later))
        if key not in self._graphs:
            if encoder.device.type != "cpu":
                raise BackboneError(f"int8 is for processors; the encoder is on {encoder.device}: give device cpu")
            nncf, openvino = _libraries()
            made = [MADE, openvino.__version__, nncf.__version__, calibration_texts(), state_digest(encoder)]
            tensors = [{name: value.tolist() for name, value in module.state_dict().items()} for module in later]
            with ExitStack() as stack:
                cache = cache_folder("int8") or Path(stack.enter_context(TemporaryDirectory()))
                folder = cache / json_digest([*made, place, str(head_of(encoder)), *map(str, later), tensors])[:32]
                if not folder.exists():
                    _make(folder, encoder, spec)
                settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "PERFORMANCE_HINT": "LATENCY"}
                settings |= {"INFERENCE_PRECISION_HINT": "f32"}  # of what is not int8
                self._graphs[key] = openvino.Core().compile_model(folder / GRAPH, "CPU", settings)
        return self._graphs[key]


def _spec(encoder: SentenceTransformer, route: OneRoute) -> PromptSpec:
    """Of the route's prompts; for the base model that of the default kind, or of vectors among the words."""
    transformer = transformer_of(encoder)
    if names := names_of(route):
        return graph_spec(transformer, names)
    try:
        kind_of(PromptSpec()).check_backbone(PromptSpec(), transformer)
    except (BackboneError, PromptError):
        return PromptSpec("input")
    return PromptSpec()


def _check_near(float32: Tensor, int8: Tensor) -> None:
    nearness = float(torch.nn.functional.cosine_similarity(float32, int8).mean())
    if not nearness >= LEAST:  # NaN is too little, too
        raise PromptError(
            f"in int8 the embeddings have a mean cosine of {nearness:.3f} to those of float32 (asked for: {LEAST} "
            "or more): take another precision for this backbone or prompt"
        )


def _run(graph: Any, features: Mapping[str, Any], prompt: Mapping[str, Any]) -> Tensor:
    request = graph.create_infer_request()  # its own: encoders are shared between threads
    (embeddings,) = request.infer(_inputs(graph, features, prompt)).values()
    return torch.from_numpy(np.array(embeddings, np.float32))


def _inputs(graph: Any, features: Mapping[str, Any], prompt: Mapping[str, Any]) -> dict[str, Any]:
    """A batch and a prompt as a graph, or a model that is to be one, takes them."""
    names = {name for one in graph.inputs for name in one.names}
    return {**{name: value.numpy() for name, value in features.items() if name in names}, **prompt}


# -- graphs ------------------------------------------------------------------------------------------------------------


def _make(folder: Path, encoder: SentenceTransformer, spec: PromptSpec) -> None:
    """Export, quantise and write a graph; the folder appears when it is whole."""
    nncf, openvino = _libraries()
    logger.warning("making the int8 graph of this backbone, once: a minute or two")
    with scratch_folder(folder) as scratch, _silenced():
        write_graph(scratch / FLOAT32, encoder, spec)
        model = openvino.Core().read_model(scratch / FLOAT32)
        prompt = {name: value.numpy() for name, value in base_inputs(encoder, spec).items()}
        texts = calibration_texts()
        parts = [texts[begin : begin + 8] for begin in range(0, len(texts), 8)]
        batches = [_inputs(model, encoder.preprocess(part), prompt) for part in parts]
        quantised = nncf.quantize(
            model,
            nncf.Dataset(batches),
            model_type=nncf.ModelType.TRANSFORMER,
            subset_size=len(batches),
            ignored_scope=nncf.IgnoredScope(names=_of_activations(model)),
            advanced_parameters=nncf.AdvancedQuantizationParameters(
                overflow_fix=nncf.OverflowFix.ENABLE,  # else sums overflow on processors without VNNI
                smooth_quant_alphas=nncf.AdvancedSmoothQuantParameters(matmul=SMOOTHING),
            ),
        )
        openvino.save_model(quantised, scratch / GRAPH, compress_to_fp16=False)
        (scratch / FLOAT32).unlink()
        if not folder.exists():  # else another process was faster
            os.replace(scratch, folder)


def _of_activations(model: Any) -> list[str]:
    """The names of the products of which neither factor is a weight."""
    constant: set[str] = set()
    found: list[str] = []
    for node in model.get_ordered_ops():
        name, kind = node.get_friendly_name(), node.get_type_name()
        sources = [value.get_source_output().get_node().get_friendly_name() for value in node.inputs()]
        if kind == "Constant" or (sources and constant.issuperset(sources)):
            constant.add(name)
        elif kind in PRODUCTS and constant.isdisjoint(sources):
            found.append(name)
    return found


def _libraries() -> tuple[Any, Any]:
    """NNCF and OpenVINO. Raises `ForewordError` where one is missing."""
    with _silenced():
        try:
            import nncf
            import openvino
        except ImportError as error:
            raise ForewordError(f"int8 needs OpenVINO: pip install 'foreword[int8]' ({error})") from error
    return nncf, openvino


@contextmanager
def _silenced() -> Iterator[None]:
    """Without NNCF's bars and remarks, and without the reports of its use that it sends unless this is set."""
    os.environ.setdefault("NNCF_CI", "1")
    logging.getLogger("nncf").setLevel(logging.ERROR)
    with quietly(), redirect_stdout(io.StringIO()):
        yield
