"""Members side by side have the bits of each alone: weights, losses, optimizer, checkpoints."""

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from digitlab.config import project
from digitlab.config.composition import compose
from digitlab.config.fingerprint import code_digest
from digitlab.config.schema import Config
from digitlab.data.splits import Dataset, load
from digitlab.models.predict import predict
from digitlab.models.saved import weights_digest
from digitlab.training.fused import convnet, exact_ways, linear, probe
from digitlab.training.fused.epochs import Moment
from digitlab.training.fused.layers import (
    TOGETHER,
    convolution_ways,
    linear_way,
    multiply,
    multiply_backward,
)
from digitlab.training.fused.loop import fit_many, predict_many
from digitlab.training.fused.members import Member, NotFusable
from digitlab.training.fused.stacking import LINE_BYTES, aligned
from digitlab.training.loop import EpochReport, Position, paused
from tests.support import other_maker, random_members
from tests.support.cli import CHECKOUT, slow
from tests.support.members import (
    OPTIMIZERS,
    SCHEDULES,
    alone,
    check,
    drawn,
    go_on_alone,
    member,
    some_of,
    together,
    trained,
)

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(compose([]).data, None)  # type: ignore[arg-type]


def varied(model: str, orders: str, *more: str) -> list[Config]:
    """A member for each optimizer and some, of other rates, decays, schedules, dropouts and seeds."""
    configs = []
    for i, optimizer in enumerate([*OPTIMIZERS, OPTIMIZERS[3], OPTIMIZERS[0]]):
        line = [f"model={model}", *optimizer, f"optimizer.learning_rate={0.002 * (i + 1)}"]
        line += [f"optimizer.weight_decay={[0.0, 0.001, 0.1][i % 3]}", f"seed={i}"]
        line += [f"scheduler={SCHEDULES[i % len(SCHEDULES)]}", "epochs=2", *more]
        order = {"shared": 7, "separate": i, "mixed": [1, 2, 2, 1, 1, 5, 6, 7, 2, 9][i % 10]}[orders]
        line.append(f"data.order_seed={order}")
        if model == "cnn":
            line += [f"model.conv_dropout={[0.5, 0.2, 0.0][i % 3]}", "model.channels_2=6"]
        configs.append(compose(line))
    return configs


@pytest.mark.parametrize("orders", ["shared", "separate", "mixed"])
@pytest.mark.parametrize("batch_size", [10, 64, 100, 1000])
@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_each_member_has_the_bits_that_it_has_alone(
    model: str, batch_size: int, orders: str, digits: Dataset
) -> None:
    count = 130 if model == "cnn" and batch_size < 1000 else len(digits.train)
    more = ["model.channels_1=4"] if model == "cnn" else []
    configs = varied(model, orders, f"batch_size={batch_size}", *more)
    check(configs[:: 3 if model == "cnn" else 1], some_of(digits, count), digits.validation)


@pytest.mark.parametrize("orders", ["shared", "separate"])
@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
@pytest.mark.parametrize(
    ("shape", "num_classes"),
    [
        ((1, 8, 8), 2),
        ((1, 9, 9), 3),  # weights of which 16 do not divide the number
        ((3, 8, 13), 16),
        ((3, 32, 48), 17),
        ((1, 20, 16), 300),  # more than a byte holds
    ],
)
def test_images_of_any_shape_and_any_number_of_classes(
    shape: tuple[int, int, int], num_classes: int, model: str, orders: str
) -> None:
    more = ["model.channels_1=4"] if model == "cnn" else []
    configs = varied(model, orders, "batch_size=50", *more)
    train, validation = drawn(shape, num_classes, 130), drawn(shape, num_classes, 30)
    check(configs[:: 3 if model == "cnn" else 1], train, validation, num_classes)


@pytest.mark.parametrize("num_chunks", [12, pytest.param(100, marks=slow)])
def test_whatever_the_members_are(num_chunks: int) -> None:
    """A random search; what a machine has no exact way for may be refused, and no more."""
    seed = int.from_bytes(os.urandom(4))
    found = random_members.search(num_chunks, seed)
    assert not found["unequal"], f"seed {seed}"
    assert not found["refused without need"], f"seed {seed}"


@pytest.mark.parametrize("processor", other_maker.PROCESSORS)
@pytest.mark.parametrize("num_chunks", [12, pytest.param(100, marks=slow)])
def test_whatever_the_members_are_where_products_depend_on_addresses(
    num_chunks: int, processor: str
) -> None:
    search = ["tests.support.random_members", "--chunks", str(num_chunks)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.other_maker", processor, *search],
        cwd=CHECKOUT,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode == other_maker.NOT_POSSIBLE:
        pytest.skip("no MKL that could be told so")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("size", [1, 2, 3, 9, 41])
def test_an_operand_is_moved_to_where_it_would_stand_alone(size: int) -> None:
    """From each of 16 places in a line, equal members come out equal: on any processor."""
    draw = torch.Generator().manual_seed(size)
    for hidden in (50, 51):
        inputs = torch.randn(size, hidden, generator=draw).relu_()
        weight = torch.randn(10, hidden, generator=draw) / hidden
        bias, by_class = torch.randn(10, generator=draw), torch.randn(10, size, generator=draw)
        expected = [functional.linear(inputs, weight, bias)]
        expected += [by_class.t().mm(weight), by_class.mm(inputs), by_class.sum(1)]
        way = linear_way(torch.Size((4, size, hidden)), 10, CPU, is_last=True)
        for offset in range(16):
            many = [aligned(placed(tensor, offset)) for tensor in (inputs, weight, bias, by_class)]
            assert all(part.data_ptr() % LINE_BYTES == 0 for stacked in many for part in stacked)
            x, w, b, g = many
            found = [multiply(x, w, b, way), *multiply_backward(g.transpose(1, 2), x, w, way)]
            for one, four in zip(expected, found, strict=True):
                assert exact_ways.equal([one] * 4, list(four)), (size, hidden, offset, way)


def placed(tensor: Tensor, offset: int) -> Tensor:
    """Four of it one after another, (4, ...), of which the first begins so many floats past a line."""
    room = torch.empty(4 * tensor.numel() + 32)
    start = -room.data_ptr() // 4 % 16 + offset
    return room[start : start + 4 * tensor.numel()].view(4, *tensor.shape).copy_(tensor)


def test_operands_results_and_weights_stand_where_they_would_alone(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In whatever shape, whether or not it moves a bit on this machine."""
    seen: list[Tensor] = []

    def noting(real: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*given: Any) -> Any:
            *operands, way = given
            made = real(*given)
            results = [] if way != TOGETHER else [made] if isinstance(made, Tensor) else made[:2]
            seen.extend(part for stacked in (*operands, *results) for part in stacked)
            return made

        return noted

    monkeypatch.setattr(convnet, "multiply", noting(multiply))
    monkeypatch.setattr(convnet, "multiply_backward", noting(multiply_backward))
    line = ["model=cnn", "model.channels_1=3", "model.channels_2=5", "model.hidden_units=27"]
    configs = [compose([*line, "batch_size=13", "epochs=1", f"seed={k}"]) for k in range(3)]
    configs = [dataclasses.replace(c, data=dataclasses.replace(c.data, order_seed=0)) for c in configs]
    members = [member(config, some_of(digits, 30)) for config in configs]
    for _ in fit_many(members, some_of(digits, 30), None, batch_size=13, epochs=1):
        pass
    seen += [parameter.detach() for each in members for parameter in each.model.parameters()]
    assert len(seen) > 100
    assert {part.data_ptr() % LINE_BYTES for part in seen} == {0}


def test_many_members_are_exact_too(digits: Dataset) -> None:
    line = ["batch_size=100", "epochs=1", "optimizer=sgd", "data.order_seed=0"]
    configs = [compose([*line, f"optimizer.learning_rate={0.001 * k}"]) for k in range(1, 71)]
    check(configs, digits.train, digits.validation)


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_many_models_predict_with_the_bits_of_each_alone(model: str, digits: Dataset) -> None:
    models = [member(config, digits.train).model for config in varied(model, "shared")]
    before = [weights_digest(one.state_dict()) for one in models]
    made = predict_many(models, digits.test)
    assert all(map(torch.equal, made, [predict(one, digits.test) for one in models]))
    assert [weights_digest(one.state_dict()) for one in models] == before


def test_members_that_leave_change_nothing_for_the_others(digits: Dataset) -> None:
    configs = varied("logistic_regression", "mixed", "batch_size=100", "epochs=4")
    members = [member(config, digits.train) for config in configs]
    told: dict[Member, list[EpochReport]] = {each: [] for each in members}
    for reports in fit_many(members, digits.train, None, batch_size=100, epochs=4):
        for each, report in reports:
            told[each].append(report)
            each.has_left = members.index(each) % 4 == report.epoch
    for i, (config, each) in enumerate(zip(configs, members, strict=True)):
        expected = alone(config, digits.train, None)
        assert trained(each, told[each], None).reports == expected.reports[: i % 4 or 4]
        if i % 4 == 0:
            assert trained(each, told[each], None) == expected


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_a_member_that_diverges_ends_alone(model: str, digits: Dataset) -> None:
    line = [f"model={model}", "optimizer=sgd", "epochs=2", "batch_size=64", "data.order_seed=0"]
    rates = [0.01, 1e38, 0.02, 3e38]
    configs = [compose([*line, f"optimizer.learning_rate={rate}", "seed=3"]) for rate in rates]
    train = some_of(digits, 200)
    check(configs, train, digits.validation)
    ended = [one.ended for one in together(configs, train, digits.validation)]
    assert [bool(text) for text in ended] == [False, True, False, True]
    assert "became" in ended[1]


class StopError(Exception):
    pass


@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_members_go_on_from_a_checkpoint_in_other_company(model: str, digits: Dataset) -> None:
    """Stopped in the second epoch; then some side by side, the others by the plain loop."""
    train = some_of(digits, 260)
    configs = varied(model, "shared", "batch_size=50", "epochs=3")[:4]
    members = [member(config, train) for config in configs]
    positions: dict[Member, Position] = {}

    def stop(moment: Moment) -> None:
        if (moment.epoch, moment.step) == (2, 3):
            positions.update(moment.positions())
            raise StopError

    with pytest.raises(StopError):
        for _ in fit_many(members, train, None, batch_size=50, epochs=3, before_step=stop):
            pass
    for each in members:
        each.position = positions[each]
    for reports in fit_many(members[:2], train, None, batch_size=50, epochs=3):
        for each, report in reports:
            if report.epoch == 2:
                last = alone(configs[members.index(each)], train, None).reports[1]
                assert (report.train, report.order) == (last.train, last.order)
    for config, each in zip(configs[2:], members[2:], strict=True):
        go_on_alone(each, train, config)
    for config, each in zip(configs, members, strict=True):
        assert weights_digest(each.model.state_dict()) == alone(config, train, None).weights


def test_a_checkpoint_of_the_plain_loop_can_be_continued_side_by_side(digits: Dataset) -> None:
    train = some_of(digits, 260)
    configs = varied("cnn", "shared", "batch_size=50")[:2]
    members = [member(config, train) for config in configs]
    for config, each in zip(configs, members, strict=True):

        def stop(position: Position, each: Member = each) -> None:
            if position.step == 4:
                each.position = paused(position, CPU)
                raise StopError

        with pytest.raises(StopError):
            go_on_alone(each, train, config, stop)
    for _ in fit_many(members, train, None, batch_size=50, epochs=2):
        pass
    for config, each in zip(configs, members, strict=True):
        assert weights_digest(each.model.state_dict()) == alone(config, train, None).weights


@pytest.fixture
def forgetful(monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer of this machine is known, in memory or on the disk."""
    caches: list[Any] = [linear.product_way, linear.outer_product_way, linear.batched_way]
    caches += [convolution_ways, linear_way, exact_ways._answers]
    for cached in caches:
        cached.cache_clear()
    yield
    for cached in caches:
        cached.cache_clear()


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize("model", ["logistic_regression", "cnn"])
def test_on_a_machine_where_nothing_wide_is_exact_the_plain_ways_are_taken(
    model: str, digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every kernel rounded otherwise for many: layer by layer one by one, exact all the same."""

    def choose(question: str, ways: Sequence[str], *_: object) -> str:
        return ways[-1]

    for module in ("linear", "layers"):
        monkeypatch.setattr(f"digitlab.training.fused.{module}.choose", choose)
    check(varied(model, "shared", "batch_size=50")[:4], some_of(digits, 120), digits.validation)


@pytest.mark.usefixtures("forgetful")
def test_on_a_machine_where_no_way_is_exact_it_is_refused_before_anything_is_changed(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probe, "equal", lambda some, others: False)
    configs = varied("logistic_regression", "shared", "batch_size=50")[:2]
    members = [member(config, digits.train) for config in configs]
    before = [weights_digest(each.model.state_dict()) for each in members]
    with pytest.raises(NotFusable, match=r"rounds 2 of them otherwise .* takes [0-9.]+ times"):
        next(fit_many(members, digits.train, None, batch_size=50, epochs=1))
    assert [weights_digest(each.model.state_dict()) for each in members] == before


@pytest.mark.usefixtures("forgetful")
def test_what_was_found_out_is_kept_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []
    cost = {"inexact": 0, "fast": 1, "plain": 50}

    def compute(way: str) -> list[Tensor]:
        tried.append(way)
        sum(range(100_000 * cost[way]))
        return [torch.zeros(1) if way == "inexact" else torch.ones(1)]

    def ask() -> str:
        draws, alone = [exact_ways.Draw(0, True, CPU)], lambda: [torch.ones(1)]
        return exact_ways.choose("a test", list(cost), draws, lambda draw: (compute, alone))

    assert ask() == "fast", "of the exact ones"
    num_tried = len(tried)
    exact_ways._answers.cache_clear()  # as a new process has it
    assert ask() == "fast"
    assert len(tried) == num_tried, "it did not try again"
    assert exact_ways.known_answers()["a test"].gain > 5


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(
    "damage",
    [
        *("", "[]", "{", '{"KEY": 3}', '{"KEY": {"answers": {"a test": {"way": "fast"}}}}'),
        '{"KEY": {"answers": {"a test": {"way": "no way", "gain": 1.0}}}}',
    ],
)
def test_answers_that_cannot_be_read_are_found_out_again(damage: str) -> None:
    file = project.mlruns() / exact_ways.FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(damage.replace("KEY", exact_ways._key(1, "torch.mm")))
    found = exact_ways.remembered("a test", ["fast", "plain"], lambda: exact_ways.Answer("fast", 2.0))
    assert found.way == "fast"
    exact_ways._answers.cache_clear()
    assert exact_ways.known_answers() == {"a test": exact_ways.Answer("fast", 2.0)}


@pytest.mark.usefixtures("forgetful")
def test_answers_of_other_machines_stay_and_those_of_other_code_are_dropped() -> None:
    entry = {"answers": {"a test": {"way": "fast", "gain": 2.0}}}
    others = {
        "other machine": {
            "depends_on": {"source": code_digest(), "cpu": "another"},
            **entry,
        },
        "other code": {"depends_on": {"source": "older"}, **entry},
    }
    file = project.mlruns() / exact_ways.FILE
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps(others))
    assert exact_ways.known_answers() == {}
    exact_ways.remembered("a test", ["plain"], lambda: exact_ways.Answer("plain"))
    kept = json.loads(file.read_text())
    assert set(kept) == {"other machine", exact_ways._key(1, "torch.mm")}
    assert kept[exact_ways._key(1, "torch.mm")]["depends_on"]["source"] == code_digest()


def test_minus_zero_and_nan_are_told_apart_from_zero() -> None:
    assert exact_ways.equal([torch.tensor([float("nan")])], [torch.tensor([float("nan")])])
    assert not exact_ways.equal([torch.tensor([0.0])], [torch.tensor([-0.0])])


def test_a_model_without_a_form_is_refused(digits: Dataset) -> None:
    class Other(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(784, 10)

        def forward(self, images: Tensor) -> Tensor:
            made: Tensor = self.linear(images.flatten(1))
            return made

    config = compose(["epochs=1"])
    members = [dataclasses.replace(member(config, digits.train), model=Other()) for _ in range(2)]
    with pytest.raises(NotFusable, match="no form"):
        next(fit_many(members, digits.train, None, batch_size=50, epochs=1))


def test_wide_products_are_used_here_at_all() -> None:
    """Else it would all be exact, and nothing faster: not on any machine that this was tried on."""
    assert linear.product_way(64, 100, linear.Sizes(10, 784), CPU) != "columns 1"
    forward, _, _ = convolution_ways(torch.Size((100, 1, 28, 28)), torch.Size((4, 10, 1, 5, 5)), CPU)
    assert forward == TOGETHER
