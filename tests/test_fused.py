"""Members side by side have the bits of each alone: weights, losses, optimizer, checkpoints."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from digitlab.composition import compose
from digitlab.config import Config
from digitlab.data import Dataset, Split, load
from digitlab.errors import Diverged
from digitlab.fused import forms, linear
from digitlab.fused.convnet import TOGETHER, convolution_forms, linear_form
from digitlab.fused.epochs import Moment
from digitlab.fused.members import Member, NotFusable
from digitlab.fused.training import fit_many
from digitlab.models import build_model
from digitlab.optimizers import build_optimizer
from digitlab.schedules import build_schedule
from digitlab.serving import weights_digest
from digitlab.training import EpochReport, Position, fit, num_steps, paused

CPU = torch.device("cpu")
OPTIMIZERS = [
    ["optimizer=sgd"],
    ["optimizer=sgd", "optimizer.momentum=0.9"],
    ["optimizer=sgd", "optimizer.momentum=0.8", "optimizer.nesterov=true"],
    ["optimizer=adam"],
    ["optimizer=adam", "optimizer.beta_1=0.5", "optimizer.epsilon=1e-4"],
    ["optimizer=adamw"],
    ["optimizer=rmsprop"],
    ["optimizer=rmsprop", "optimizer.momentum=0.5", "optimizer.alpha=0.9"],
]
SCHEDULES = ["constant", "cosine", "step", "one_cycle"]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(compose([]).data, None)  # type: ignore[arg-type]


def some_of(dataset: Dataset, count: int) -> Split:
    train = dataset.train
    return dataclasses.replace(train, images=train.images[:count], labels=train.labels[:count])


def member(config: Config, train: Split) -> Member:
    model = build_model(config.model, config.seed)
    order_seed = config.data.order_seed
    return Member(
        model=model,
        optimizer=build_optimizer(config.optimizer, list(model.parameters())),
        schedule=build_schedule(
            config.scheduler,
            config.optimizer.learning_rate,
            steps_per_epoch=num_steps(len(train), config.batch_size),
            epochs=config.epochs,
        ),
        seed=config.seed,
        order_seed=config.seed if order_seed is None else order_seed,
        position=Position(epoch=1),
    )


@dataclasses.dataclass
class Trained:
    """Everything that must be equal to the bit. ended: how a training that diverged did."""

    weights: str
    reports: list[EpochReport]
    optimizer: list[bytes]
    ended: str


def trained(member: Member, reports: Sequence[EpochReport], ended: object) -> Trained:
    return Trained(
        "" if ended else weights_digest(member.model.state_dict()),
        [dataclasses.replace(r, seconds=0.0, images_per_second=0.0) for r in reports],
        [] if ended else [t.contiguous().numpy().tobytes() for t in member.optimizer.state().values()],
        str(ended or ""),
    )


def alone(config: Config, train: Split, validation: Split | None) -> Trained:
    single, reports, ended = member(config, train), list[EpochReport](), None
    try:
        for report in fit(
            single.model,
            train,
            validation,
            optimizer=single.optimizer,
            schedule=single.schedule,
            batch_size=config.batch_size,
            epochs=config.epochs,
            seed=single.seed,
            order_seed=single.order_seed,
        ):
            reports.append(report)
    except Diverged as error:
        ended = error
    return trained(single, reports, ended)


def go_on_alone(
    each: Member,
    train: Split,
    config: Config,
    before_step: Callable[[Position], None] = lambda position: None,
) -> None:
    for _ in fit(
        each.model,
        train,
        None,
        optimizer=each.optimizer,
        schedule=each.schedule,
        batch_size=config.batch_size,
        epochs=config.epochs,
        seed=each.seed,
        order_seed=each.order_seed,
        start=each.position,
        before_step=before_step,
    ):
        pass


def together(
    configs: Sequence[Config], train: Split, validation: Split | None, **options: Any
) -> list[Trained]:
    members = [member(config, train) for config in configs]
    told: dict[Member, list[EpochReport]] = {each: [] for each in members}
    first = configs[0]
    for reports in fit_many(
        members, train, validation, batch_size=first.batch_size, epochs=first.epochs, **options
    ):
        for each, report in reports:
            told[each].append(report)
    return [trained(each, told[each], each.diverged) for each in members]


def check(configs: Sequence[Config], train: Split, validation: Split | None = None) -> None:
    expected = [alone(config, train, validation) for config in configs]
    for config, one, other in zip(configs, together(configs, train, validation), expected, strict=True):
        assert one == other, config


def varied(model: str, orders: str, *more: str) -> list[Config]:
    """A member for each optimizer and some, of other rates, decays, schedules, dropouts and seeds."""
    configs = []
    for i, optimizer in enumerate([*OPTIMIZERS, OPTIMIZERS[3], OPTIMIZERS[0]]):
        line = [f"model={model}", *optimizer, f"optimizer.learning_rate={0.002 * (i + 1)}"]
        line += [f"optimizer.weight_decay={[0.0, 0.001, 0.1][i % 3]}", f"seed={i}"]
        line += [f"scheduler={SCHEDULES[i % 4]}", "epochs=2", *more]
        order = {"shared": 7, "separate": i, "mixed": [1, 2, 2, 1, 1, 5, 6, 7, 2, 9][i]}[orders]
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


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_the_members_are(data: st.DataObject, digits: Dataset) -> None:
    """Drawn: model and its shape, batch size, images, and for each member all that may differ."""
    draw = data.draw
    shape = ["model=logistic_regression"]
    if draw(st.booleans(), "is a cnn"):
        widths = {"channels_1": st.integers(1, 12), "channels_2": st.integers(1, 20)}
        widths["hidden_units"] = st.integers(1, 60)
        shape = ["model=cnn", *(f"model.{k}={draw(width, k)}" for k, width in widths.items())]
    images = draw(st.integers(2, 300), "images")
    shape += [f"batch_size={draw(st.integers(1, images), 'batch_size')}", "epochs=2"]
    configs = []
    for _ in range(draw(st.integers(2, 6), "members")):
        line = [*shape, *draw(st.sampled_from(OPTIMIZERS), "optimizer")]
        line.append(f"optimizer.learning_rate={draw(st.floats(1e-5, 0.05), 'rate')}")
        line.append(f"optimizer.weight_decay={draw(st.sampled_from([0.0, 0.01]), 'decay')}")
        line.append(f"scheduler={draw(st.sampled_from(SCHEDULES), 'scheduler')}")
        line += [f"seed={draw(st.integers(0, 5), 'seed')}"]
        line += [f"data.order_seed={draw(st.sampled_from(['null', 1, 2]), 'order')}"]
        if "model=cnn" in shape:
            line.append(f"model.conv_dropout={draw(st.sampled_from([0.0, 0.3]), 'conv_dropout')}")
            line.append(f"model.hidden_dropout={draw(st.sampled_from([0.0, 0.5]), 'hidden')}")
        configs.append(compose(line))
    try:
        check(configs, some_of(digits, images))
    except NotFusable:
        # For shapes in which this machine has no exact way: they are trained alone instead.
        assert "model=cnn" in shape, "logistic regression always has one"


def test_many_members_are_exact_too(digits: Dataset) -> None:
    line = ["batch_size=100", "epochs=1", "optimizer=sgd", "data.order_seed=0"]
    configs = [compose([*line, f"optimizer.learning_rate={0.001 * k}"]) for k in range(1, 71)]
    check(configs, digits.train, digits.validation)


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
    caches: list[Any] = [linear.product_form, linear.outer_product_form, linear.batched_form]
    caches += [convolution_forms, linear_form, forms._answers]
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
    real = forms.choose

    def choose(question: str, ways: Sequence[str], *functions: Callable[..., Any]) -> str:
        return real(question, ways, *functions) if "training of" in question else ways[-1]

    for module in ("linear", "convnet"):
        monkeypatch.setattr(f"digitlab.fused.{module}.choose", choose)
    check(varied(model, "shared", "batch_size=50")[:4], some_of(digits, 120), digits.validation)


@pytest.mark.usefixtures("forgetful")
def test_on_a_machine_where_no_way_is_exact_it_is_refused_before_anything_is_changed(
    digits: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forms, "equal", lambda some, others: False)
    configs = varied("logistic_regression", "shared", "batch_size=50")[:2]
    members = [member(config, digits.train) for config in configs]
    before = [weights_digest(each.model.state_dict()) for each in members]
    with pytest.raises(NotFusable, match="rounds them otherwise"):
        next(fit_many(members, digits.train, None, batch_size=50, epochs=1))
    assert [weights_digest(each.model.state_dict()) for each in members] == before
    for _ in fit_many(members, digits.train, None, batch_size=50, epochs=1, is_exact=False):
        pass
    for config, each in zip(configs, members, strict=True):
        expected = member(config, digits.train)
        go_on_alone(expected, digits.train, dataclasses.replace(config, epochs=1))
        for one, other in zip(each.model.parameters(), expected.model.parameters(), strict=True):
            torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)


@pytest.mark.usefixtures("forgetful")
def test_what_was_found_out_is_kept_for_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[str] = []

    def compute(way: str) -> list[Tensor]:
        tried.append(way)
        return [torch.ones(1) if way == "exact" else torch.zeros(1)]

    def ask() -> str:
        return forms.choose("a test", ["fast", "exact", "plain"], compute, lambda: [torch.ones(1)])

    assert ask() == "exact"
    assert tried == ["fast", "exact"]
    forms._answers.cache_clear()  # as a new process has it
    assert ask() == "exact"
    assert tried == ["fast", "exact"], "it did not try again"


def test_minus_zero_and_nan_are_told_apart_from_zero() -> None:
    assert forms.equal([torch.tensor([float("nan")])], [torch.tensor([float("nan")])])
    assert not forms.equal([torch.tensor([0.0])], [torch.tensor([-0.0])])


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
        next(fit_many(members, digits.train, None, batch_size=50, epochs=1, is_exact=False))


def test_wide_products_are_used_here_at_all() -> None:
    """Else it would all be exact, and nothing faster: not on any machine that this was tried on."""
    assert linear.product_form(64, 100, CPU, is_exact=True) != "columns 1"
    forward, _, _ = convolution_forms(torch.Size((100, 1, 28, 28)), torch.Size((4, 10, 1, 5, 5)), CPU)
    assert forward == TOGETHER
