"""What multiplies in a logistic regression: exact side by side, chosen by speed, recorded."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import platformdirs
import pytest
import torch

from digitlab.config.composition import compose
from digitlab.data.splits import Dataset, load
from digitlab.errors import ConfigError
from digitlab.models import products as library
from digitlab.models.products import ALL, TORCH, Product
from digitlab.training import arithmetic, products
from digitlab.training.devices import prepare_process
from digitlab.training.fused import linear
from tests.support.members import check, some_of
from tests.training.test_fused import varied

OTHERS = [name for name in ALL if name != TORCH.name]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return load(compose([]).data, None)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def _as_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is known of this machine, and torch.mm multiplies again afterwards."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / name))
    products.fastest_product.cache_clear()
    yield
    products.fastest_product.cache_clear()
    library.use(TORCH)


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Callable[[Mapping[str, float]], None]:
    """Seconds of a step by product, alone and side by side alike."""

    def pretend(seconds: Mapping[str, float]) -> None:
        def measure(works: Mapping[str, object], *_: object) -> dict[str, float]:
            return {name: seconds[name] for name in works}

        monkeypatch.setattr(products, "measure", measure)

    return pretend


@pytest.mark.parametrize("orders", ["shared", "separate", "mixed"])
@pytest.mark.parametrize("batch_size", [10, 64, 100, 1000])
@pytest.mark.parametrize("name", OTHERS)
def test_each_member_has_the_bits_that_it_has_alone(
    name: str, batch_size: int, orders: str, digits: Dataset
) -> None:
    library.use(ALL[name])
    configs = varied("logistic_regression", orders, f"batch_size={batch_size}")
    check(configs, some_of(digits, 1257), digits.validation)


def test_the_fastest_is_taken_if_the_margin_is_clear(
    timed: Callable[[Mapping[str, float]], None],
) -> None:
    timed({"torch.mm": 1.0, "onednn": 0.5, "onednn-forward": 0.7})
    assert products.fastest_product().name == "onednn"
    products.fastest_product.cache_clear()
    timed({"torch.mm": 1.0, "onednn": 2.0, "onednn-forward": 0.1})
    assert products.fastest_product().name == "onednn", "as it was found: the file is for all"
    for damaged in ("", "[]", '{"a": ', "{}"):
        products.fastest_product.cache_clear()
        (Path(platformdirs.user_cache_dir("digitlab")) / products.FILE).write_text(damaged)
        assert products.fastest_product().name == "onednn-forward"


def test_a_small_margin_is_none(timed: Callable[[Mapping[str, float]], None]) -> None:
    timed({"torch.mm": 1.0, "onednn": 0.9, "onednn-forward": 0.95})
    assert products.fastest_product() is TORCH


def test_what_is_fast_only_where_it_is_not_exact_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """In blocks twice as fast as torch.mm; but only member by member exact, and then slow."""

    def step(product: Product, count: int, forward: str, backward: str) -> object:
        return (product, count, forward)

    def measure(works: Mapping[str, tuple[Product, int, str]], *_: object) -> dict[str, float]:
        return {
            n: 0.5 if p is not TORCH and w != "columns 1" else 1.0 for n, (p, _, w) in works.items()
        }

    monkeypatch.setattr(products, "_step", step)
    monkeypatch.setattr(products, "measure", measure)
    monkeypatch.setattr(products, "product_way", lambda *_: "columns 1")
    assert products.fastest_product() is TORCH


def test_without_the_private_operator_torch_multiplies(
    monkeypatch: pytest.MonkeyPatch, timed: Callable[[Mapping[str, float]], None]
) -> None:
    def missing(*_: object) -> torch.Tensor:
        raise AttributeError("'_OpNamespace' 'mkldnn' object has no attribute '_linear_pointwise'")

    for name in OTHERS:
        monkeypatch.setitem(ALL, name, Product(name, missing, torch.mm))
    timed({"torch.mm": 1.0})
    assert products.fastest_product() is TORCH
    monkeypatch.setenv(arithmetic.PRODUCT_VARIABLE, "onednn")
    assert products.usual_product() is TORCH


@pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch was built without oneDNN")
def test_this_torch_has_the_private_operator() -> None:
    assert all(library.is_available(product) for product in ALL.values())


@pytest.mark.parametrize("knob", ["model=cnn", "threads=2"])
def test_where_there_is_no_choice_torch_multiplies(knob: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(arithmetic.PRODUCT_VARIABLE, "onednn")
    prepare_process(compose(["model=logistic_regression", "device=cpu"]))
    assert library.in_use().name == "onednn"
    prepare_process(compose(["model=logistic_regression", "device=cpu", knob]))
    torch.set_num_threads(1)
    assert library.in_use() is TORCH


def test_an_unknown_product_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(arithmetic.PRODUCT_VARIABLE, "mlk")
    with pytest.raises(ConfigError, match=r"DIGITLAB_PRODUCT must be one of torch\.mm, onednn"):
        products.usual_product()


def test_the_arithmetic_names_it_and_the_canary_hears_it() -> None:
    canaries = set()
    for name, product in ALL.items():
        library.use(product)
        assert arithmetic.describe(threads=1, device="cpu")["product"] == name
        canaries.add(arithmetic.canary(threads=1, device="cpu"))
    assert len(canaries) == len(ALL)


def test_what_is_differentiated_or_exported_is_left_to_torch() -> None:
    library.use(ALL["onednn"])
    assert library.current() is TORCH
    with torch.no_grad():
        assert library.current().name == "onednn"


def test_wide_products_are_used_with_each_here_at_all() -> None:
    for product in ALL.values():
        library.use(product)
        assert linear.product_way(64, 100, linear.Sizes(10, 784, product), CPU) != "columns 1"
