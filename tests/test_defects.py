"""Faults of the original system, each tested not to be here, and each test proved by putting the fault back.

The original system is the research code that this one surpasses: soft prompts for dense retrieval, one a domain, with
transfer between domains. `FAULTS` lists what was wrong with it, in words, and the checks against each. A check is a
function of `defects/` that runs our code on files and models made for it; beside it stands the original's fault, which
is patched into our code. `test_the_fault_is_not_here` runs the check on our code; `test_the_check_sees_the_fault` runs
it on our code with the fault in it, and it must fail, saying what is wrong.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest
from defects import Bench, Case, data, prompts, running

FAULTS: dict[str, tuple[str, ...]] = {
    # the model
    "Untied mode deep-copies the query encoder over the passage encoder, so that the saved passage prompt is the "
    "untrained one": ("untied_training_saves_the_untrained_document_prompt",),
    "The mean-pooling mask uses the command line's prompt length, not the saved one": (
        "mean_pooling_masks_by_the_prompt_length_of_the_command_line",
    ),
    "A reloaded config silently overrides tied, normalize and pooling": (
        "a_reloaded_prompt_overrides_pooling_and_normalize",
        "a_reloaded_prompt_overrides_tied",
        "the_side_that_is_trained_overrides_tied",
    ),
    "`first` pooling returns a prompt vector, not `[CLS]`": ("first_pooling_returns_a_prompt_vector",),
    "Nothing guards the backbone's position limit (prompt + text > 512)": ("nothing_guards_the_position_limit",),
    "A new prompt starts from the ids 0 to n - 1, mostly `[unused]`": (
        "a_new_prompt_begins_with_placeholders_of_the_vocabulary",
    ),
    "A slow tokenizer, and every batch padded to the maximum length": (
        "the_tokenizer_is_slow",
        "every_batch_is_padded_to_the_maximum_length",
    ),
    # the data
    "The evaluation set reads training data": ("the_evaluation_set_reads_training_data",),
    "Test judgements become training judgements where there is no train split": (
        "test_judgements_become_training_judgements",
        "the_test_split_can_be_asked_for_in_training",
    ),
    "Training files are truncated to 10,000 rows on disk": ("training_files_are_cut_to_ten_thousand_rows",),
    "Corpora over 100,000 documents are cut, in place, on disk": ("corpora_over_a_hundred_thousand_documents_are_cut",),
    "Queries are rewritten in place to drop metadata": ("queries_are_rewritten_without_their_metadata",),
    "Queries that fail are dropped in silence": (
        "queries_without_text_are_dropped_in_silence",
        "queries_without_hits_vanish_from_the_mean",
    ),
    "OAG-QA's train, dev and test are the same": ("oag_qa_has_one_set_of_questions_for_all_splits",),
    "`eval()` on a data file": ("a_data_file_is_evaluated_as_python",),
    "Downloads are unchecked, and an unknown dataset name returns the data folder": (
        "downloads_are_not_checked",
        "an_unknown_dataset_is_the_data_folder",
    ),
    "Running a conversion again appends": ("a_second_conversion_appends",),
    # running it
    "The result log keeps only its last line": ("the_result_log_keeps_its_last_line_only",),
    "A document that is the query itself stays in the run (ArguAna, Quora)": (
        "a_document_that_is_the_query_stays_in_the_run",
    ),
    "Transfer works only with one tracker account and hard-codes a checkpoint": (
        "transfer_needs_a_tracker_account",
        "transfer_takes_a_hard_coded_checkpoint",
    ),
    "A failed fetch reuses the previous prompt": ("a_prompt_that_cannot_be_had_is_the_previous_one",),
    "Softmax without a dim": ("the_softmax_is_over_another_dimension",),
    "Similarity features include the target's test queries": ("similarity_looks_at_the_test_queries_of_the_target",),
    "Script typos that swallow arguments: `--train_dastaset`, a backslash glued to `16`": (
        "misspelt_options_are_swallowed",
        "a_backslash_glued_to_a_number_is_swallowed",
    ),
    # what all of these come to, in places that the original does not have
    "Splits leak": ("a_source_has_seen_the_test_queries_of_the_target",),
    "Failures are not said": ("sources_without_files_vanish_in_silence",),
}

CASES = {case.name: case for case in (*prompts.CASES, *data.CASES, *running.CASES)}

pytestmark = pytest.mark.filterwarnings("ignore::foreword.collections.collection.DataWarning")


@pytest.fixture
def bench(tmp_path: Path, tiny_bert: Path, monkeypatch: pytest.MonkeyPatch, read_anew: None) -> Bench:
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # the command line sets its own
    return Bench(tmp_path, tiny_bert, monkeypatch)


def test_every_fault_has_its_checks_and_every_check_its_fault() -> None:
    named = [name for names in FAULTS.values() for name in names]
    assert sorted(named) == sorted(CASES)
    assert len(CASES) == sum(len(module.CASES) for module in (prompts, data, running))


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_fault_is_not_here(case: Case, bench: Bench) -> None:
    case.check(bench)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_check_sees_the_fault(case: Case, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    case.put_back(monkeypatch)
    with pytest.raises(AssertionError, match=case.sees):
        case.check(bench)
