"""Products through oneDNN are torch's, and are taken where they are faster."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from lightglue.support import products
from lightglue.support.products import linear, rounded, similarities

NUMBERS = torch.Generator().manual_seed(3)
AMD = "processor\t: 0\nvendor_id\t: AuthenticAMD\ncpu family\t: 26\n"


@pytest.mark.parametrize("rows", [0, 1, 2, 17, 64, 300])
@pytest.mark.parametrize(("inputs", "outputs"), [(256, 768), (64, 33), (3, 1), (1, 5)])
@pytest.mark.parametrize("biased", [True, False])
@pytest.mark.usefixtures("onednn")
def test_a_product_is_that_of_torch(rows, inputs, outputs, biased):
    x, weight = torch.randn(rows, inputs, generator=NUMBERS), torch.randn(outputs, inputs, generator=NUMBERS)
    bias = torch.randn(outputs, generator=NUMBERS) if biased else None
    expected = F.linear(x.double(), weight.double(), None if bias is None else bias.double()).float()
    found = linear(x, weight, bias)
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-5)
    assert found.is_contiguous()


@pytest.mark.parametrize("limit", [None, "AVX2"])
def test_bfloat16_goes_to_onednn_where_it_may_use_the_instructions(limit, monkeypatch):
    """Elsewhere it would refuse."""
    if limit is not None:
        monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", limit)
    x, weight, bias = (torch.randn(*shape, generator=NUMBERS).bfloat16() for shape in ((40, 64), (24, 64), (24,)))
    expected = F.linear(x.double(), weight.double(), bias.double())
    found = linear(x, weight, bias)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.double(), expected, atol=0.02, rtol=0.01)


def test_rows_do_not_depend_on_the_rows_beside_them(onednn):
    """From two rows on: otherwise a pair's matches would depend on how many pairs it is matched with."""
    x, weight, bias = (torch.randn(*shape, generator=NUMBERS) for shape in ((512, 256), (512, 256), (512,)))
    whole = linear(x, weight, bias)
    for rows in (32, 96, 100, 352) if onednn else (32,):
        assert torch.equal(linear(x[:rows], weight, bias), whole[:rows])


@pytest.mark.parametrize(("m", "n"), [(0, 5), (5, 0), (1, 1), (33, 700), (128, 64)])
@pytest.mark.usefixtures("onednn")
def test_similarities_are_all_products_of_two_rows(m, n):
    a, b = torch.randn(m, 130, generator=NUMBERS), torch.randn(n, 130, generator=NUMBERS)
    torch.testing.assert_close(similarities(a, b), (a.double() @ b.double().T).float(), atol=1e-4, rtol=1e-5)


@pytest.mark.usefixtures("onednn")
def test_other_tensors_are_multiplied_as_ever():
    """Gradients, transposed matrices, other precisions."""
    x, weight = torch.randn(20, 8, generator=NUMBERS), torch.randn(8, 6, generator=NUMBERS)
    assert torch.equal(linear(x, weight.T), F.linear(x, weight.T))
    assert linear(x.double(), weight.T.double()).dtype == torch.float64
    wanted = weight.T.contiguous().requires_grad_()
    linear(x, wanted).sum().backward()
    torch.testing.assert_close(wanted.grad, x.sum(0).expand(6, 8))
    with torch.no_grad():
        torch.testing.assert_close(linear(x, wanted), x @ weight)


def test_numbers_of_rows_are_few_and_little_larger():
    sizes = {rounded(n) for n in range(1, 4097)}
    assert len(sizes) == 16 + 3 * 8
    assert all(n <= rounded(n) < n + max(32, n / 8) for n in range(1, 4097))
    assert rounded(0) == 0


@pytest.fixture
def cpu(monkeypatch, tmp_path):
    """An AMD CPU with AVX-512, whatever this one is."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: True)
    monkeypatch.setattr(products, "_operator_works", lambda: True)
    for name in ("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA"):
        monkeypatch.delenv(name, raising=False)
    file = tmp_path / "cpuinfo"
    file.write_text(AMD)
    monkeypatch.setattr(products, "CPUINFO", file)
    return file


def decided() -> bool:
    """Anew, as at the start of a process."""
    return products.onednn_is_faster.__wrapped__()


def test_onednn_multiplies_on_amds_cpus_with_avx512(cpu):
    assert decided()
    cpu.write_text(AMD.replace("AuthenticAMD", "GenuineIntel"))
    assert not decided(), "there MKL uses all that the CPU has"
    cpu.write_text("Processor\t: AArch64\n")
    assert not decided()


@pytest.mark.parametrize(
    ("name", "value", "taken"),
    [
        ("ONEDNN_MAX_CPU_ISA", "AVX2", False),
        ("DNNL_MAX_CPU_ISA", "avx2_vnni", False),
        ("ONEDNN_MAX_CPU_ISA", "AVX512_CORE_BF16", True),
        ("ONEDNN_MAX_CPU_ISA", "all", True),
    ],
)
@pytest.mark.usefixtures("cpu")
def test_who_keeps_onednn_from_avx512_keeps_it_from_products(name, value, taken, monkeypatch):
    monkeypatch.setenv(name, value)
    assert decided() is taken


@pytest.mark.usefixtures("cpu")
def test_without_avx512_or_without_mkl_torch_multiplies(monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
        assert not decided()
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: False)
    assert not decided()


def test_a_system_without_cpuinfo_is_asked_for_the_vendor(cpu, monkeypatch):
    cpu.unlink()
    monkeypatch.setattr(products.platform, "processor", lambda: "AMD64 Family 25 Model 97 Stepping 2, AuthenticAMD")
    assert decided()
    monkeypatch.setattr(products.platform, "processor", lambda: "Intel64 Family 6 Model 85 Stepping 7, GenuineIntel")
    assert not decided()
    monkeypatch.setattr(products.platform, "processor", lambda: "")
    assert not decided()


@pytest.mark.parametrize("error", [AttributeError, RuntimeError, TypeError, NotImplementedError])
def test_an_operator_that_is_not_there_is_not_used(error, monkeypatch):
    def fails(*arguments):
        raise error("no")

    monkeypatch.setattr(products, "_by_onednn", fails)
    assert not products._operator_works.__wrapped__()
    monkeypatch.setattr(products, "_by_onednn", lambda x, weight, bias: F.linear(x, weight, bias) + 1)
    assert not products._operator_works.__wrapped__(), "nor one that multiplies otherwise"
