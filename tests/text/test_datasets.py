"""Token data sets: windows, splits and repeatable batches."""

import itertools

import numpy as np
import pytest
import torch

from gptlib.text.datasets import IGNORED, TokenDataset, batches


class Letters:
    """The smallest tokenizer: a is 0, b is 1, ..."""

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]


def take(count, *arguments, **options):
    return list(itertools.islice(batches(*arguments, **options), count))


def test_y_is_x_one_token_later():
    dataset = TokenDataset.from_text("abcdefghij", Letters(), context_length=4)
    x, y = next(batches(dataset, batch_size=5))
    assert x.shape == y.shape == (5, 4)
    assert x.dtype == y.dtype == torch.int64
    # in this text every token is the one before plus one
    assert torch.equal(y, x + 1)


def test_batches_reach_every_window_about_equally_often_and_no_other():
    dataset = TokenDataset(torch.arange(10), context_length=4)
    assert len(dataset) == 6
    starts = torch.cat([x[:, 0] for x, _ in take(600, dataset, 10)])
    counts = torch.bincount(starts, minlength=6)
    assert len(counts) == 6
    # 6,000 draws, 1,000 expected each, standard deviation 29
    assert counts.min() > 850 and counts.max() < 1150


def test_a_batch_depends_on_seed_and_number_alone():
    dataset = TokenDataset(torch.arange(500), context_length=8)
    whole = take(7, dataset, 4, seed=3)
    torch.rand(10), np.random.rand(10)  # other random numbers change nothing
    resumed = take(3, dataset, 4, seed=3, start=4)
    for (x, y), (x_again, y_again) in zip(whole[4:], resumed):
        assert torch.equal(x, x_again) and torch.equal(y, y_again)
    seeds_and_numbers = [x for seed in range(3) for x, _ in take(3, dataset, 4, seed=seed)]
    assert len({tuple(x.flatten().tolist()) for x in seeds_and_numbers}) == 9


def test_a_batch_is_a_copy():
    ids = torch.arange(50)
    x, y = next(batches(TokenDataset(ids, 8), 4))
    x.fill_(-1), y.fill_(-1)
    assert torch.equal(ids, torch.arange(50))


def test_split_is_contiguous_without_overlap_or_loss():
    dataset = TokenDataset(torch.arange(100), context_length=8)
    train, val = dataset.split(0.9)
    assert torch.equal(torch.cat([train.ids, val.ids]), dataset.ids)
    assert len(train.ids) == 90
    assert train.context_length == val.context_length == 8


def test_ids_on_disk_are_read_window_by_window(tmp_path):
    np.arange(1000, dtype=np.uint16).tofile(tmp_path / "ids.bin")
    ids = np.memmap(tmp_path / "ids.bin", dtype=np.uint16, mode="r+")
    x, y = next(batches(TokenDataset(ids, 8), 4))
    assert x.dtype == torch.int64
    assert torch.equal(y, x + 1)


@pytest.mark.parametrize("length, fits", [(5, True), (4, False)])
def test_the_shortest_text_has_one_window_and_the_token_after_it(length, fits):
    if fits:
        assert len(TokenDataset(list(range(length)), context_length=4)) == 1
    else:
        with pytest.raises(ValueError, match="got 4 ids for a context of 4; expected at least 5"):
            TokenDataset(list(range(length)), context_length=4)


@pytest.mark.parametrize("ids, message", [
    (torch.tensor([1.0, 2.0, 3.0]), "float32; expected whole numbers"),
    (torch.zeros(2, 9, dtype=torch.long), r"shape \(2, 9\); expected one sequence"),
    (torch.tensor([], dtype=torch.long), "no ids"),
    (torch.tensor([True, False, True]), "bool; expected whole numbers"),
])
def test_what_is_no_sequence_of_ids_is_refused(ids, message):
    with pytest.raises(ValueError, match=message):
        TokenDataset(ids, context_length=2)


def test_an_empty_text_is_refused():
    with pytest.raises(ValueError, match="the text is empty"):
        TokenDataset.from_text("", Letters(), context_length=4)


def test_a_split_that_leaves_a_side_too_short_is_refused():
    dataset = TokenDataset(torch.arange(40), context_length=8)
    with pytest.raises(ValueError, match="gives 36 and 4; expected at least 9 on both sides"):
        dataset.split(0.9)
    with pytest.raises(ValueError, match="between 0 and 1"):
        dataset.split(1.0)


@pytest.mark.parametrize("options", [{"batch_size": 0}, {"batch_size": 2, "seed": -1},
                                     {"batch_size": 2, "start": -1}])
def test_impossible_batches_are_refused_when_they_are_asked_for(options):
    with pytest.raises(ValueError, match="expected"):
        batches(TokenDataset(torch.arange(40), 8), **options)


def test_windows_can_begin_at_documents_only():
    ids = torch.tensor([9, 1, 2, 9, 3, 9, 4, 5, 6, 9, 7])
    dataset = TokenDataset(ids, 3, begin_at=9)
    assert len(dataset) == 3  # the last document leaves no room for a window and a target
    seen = {tuple(row.tolist()) for x, _ in itertools.islice(batches(dataset, 4), 20) for row in x}
    assert seen == {(9, 1, 2), (9, 3, 9), (9, 4, 5)}
    first, second = TokenDataset(torch.cat((ids, ids)), 3, begin_at=9).split(0.5)
    assert first.starts.tolist() == second.starts.tolist() == [0, 3, 5]
    with pytest.raises(ValueError, match="begins at token 8"):
        TokenDataset(ids, 3, begin_at=8)


def masked(ids, wanted, context_length, begin_at=None):
    ids = torch.tensor(ids)
    return TokenDataset(ids, context_length, begin_at,
                        torch.tensor([i in wanted for i in range(len(ids))]))


def test_targets_that_are_not_learned_are_ignored_and_still_read():
    dataset = masked(list(range(40)), {3, 4, 5, 20, 39}, context_length=6)
    for x, y in take(20, dataset, 8):
        assert torch.equal(x, x[:, :1] + torch.arange(6))
        learned = torch.isin(x + 1, torch.tensor([3, 4, 5, 20, 39]))
        assert torch.equal(y, torch.where(learned, x + 1, IGNORED)) and y.dtype == torch.int64


def test_every_window_that_teaches_something_is_drawn_and_no_other():
    dataset = masked(list(range(40)), {0, 3, 20, 39}, context_length=4)
    teaching = {start for start in range(36) if {3, 20, 39} & set(range(start + 1, start + 5))}
    drawn = {int(x[0]) for xs, ys in take(40, dataset, 16) for x, y in zip(xs, ys)
             if (y != IGNORED).any() or pytest.fail("a row teaches nothing")}
    assert drawn == teaching and len(dataset) == len(teaching) < 36


def test_where_all_is_learned_the_batches_are_those_without_a_mask():
    ids = torch.arange(60)
    all_of_it = TokenDataset(ids, 8, learn=torch.ones(60, dtype=torch.bool))
    for (x, y), (u, v) in zip(take(5, all_of_it, 4, seed=3), take(5, TokenDataset(ids, 8), 4,
                                                                   seed=3)):
        assert torch.equal(x, u) and torch.equal(y, v)


def test_windows_may_begin_at_a_token_and_teach_something():
    ids = [9, 1, 2, 3, 9, 4, 5, 6, 9, 7, 8, 0, 9]
    assert len(masked(ids, {3, 6, 11}, context_length=3, begin_at=9)) == 3
    dataset = masked(ids, {0, 6, 12}, context_length=3, begin_at=9)  # 0 and 12 are no targets
    x, y = next(batches(dataset, 4))
    assert x.tolist() == [[9, 4, 5]] * 4 and y.tolist() == [[IGNORED, 5, IGNORED]] * 4


def test_a_split_cuts_ids_and_mask_at_the_same_place():
    dataset = masked(list(range(100)), {40, 41, 95}, context_length=8)
    train, val = dataset.split(0.9)
    assert train.learn.nonzero().flatten().tolist() == [40, 41]
    assert val.ids[val.learn].tolist() == [95]
    with pytest.raises(ValueError, match="no window of 8 tokens teaches anything"):
        masked(list(range(100)), {40}, context_length=8).split(0.9)


def test_ids_on_disk_can_have_a_mask_too(tmp_path):
    np.save(tmp_path / "ids.npy", np.arange(100, dtype=np.uint16))
    dataset = TokenDataset.from_file(tmp_path / "ids.npy", 8)
    with_mask = TokenDataset(dataset.ids, 8, learn=dataset.ids.long() % 5 == 0)
    x, y = next(batches(with_mask, 4))
    assert torch.equal(y, torch.where((x + 1) % 5 == 0, x + 1, IGNORED))


@pytest.mark.parametrize("learn, message", [
    (torch.ones(39, dtype=torch.bool), r"shape \(39,\); expected torch.bool of shape \(40,\)"),
    (torch.ones(40), "torch.float32"), (torch.ones(40, 1, dtype=torch.bool), r"\(40, 1\)"),
    (torch.zeros(40, dtype=torch.bool), "teaches anything"),
    (torch.arange(40) == 0, "teaches anything")])  # the first is never a target
def test_masks_that_fit_no_ids_or_teach_nothing_are_refused(learn, message):
    with pytest.raises(ValueError, match=message):
        TokenDataset(torch.arange(40), 8, learn=learn)
