"""Kernels against mergekit's own functions, and the properties of DARE's masks."""

import numpy as np
import pytest
import torch
from mergekit.sparsify import RescaleNorm, magnitude

from morphing.merging import kernels

SIZE = kernels.BLOCK + 1234  # more than one block


def vectors(seed: int = 0, size: int = SIZE) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(size, generator=generator)
    return base, base + 0.1 * torch.randn(size, generator=generator)


@pytest.mark.parametrize("density", [0.0, 1e-9, 0.003, 0.4, 0.999, 1.0, 1.5])
@pytest.mark.parametrize("rescale", [False, True])
def test_trimming_is_mergekits(density: float, rescale: bool) -> None:
    base, source = vectors()
    kept, scales = kernels.magnitude_masks(base, [source], [density], rescale)
    expected = magnitude(source - base, density, RescaleNorm.l1 if rescale else None)
    torch.testing.assert_close((source - base) * kept[0] * scales[0], expected)


def test_trimming_keeps_exactly_k_of_equal_magnitudes_by_index() -> None:
    base, source = torch.zeros(10), torch.tensor([1.0, -2, 2, -2, 2, 0.5, 3, 2, 0, 0])
    kept, _ = kernels.magnitude_masks(base, [source], [0.4], False)
    assert kept[0].nonzero().view(-1).tolist() == [1, 2, 3, 6]


@pytest.mark.parametrize("seed", range(5))
def test_kth_largest_is_exact_with_many_equal_values(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randint(0, 50, (20_000,), generator=generator).float()
    for k in (1, 17, 10_000, 20_000):
        assert kernels.kth_largest(values, k) == values.sort(descending=True).values[k - 1]


def test_hashes_are_the_finaliser_of_an_affine_map() -> None:
    key = kernels.mask_key(7, 1, "model.norm.weight")
    start = 2**32 - 3 * 10  # large starts must wrap as the reference does
    hashed = kernels.hash_indices(torch.arange(10, dtype=torch.int32), start, [key])[0]
    index = (start + np.arange(10, dtype=np.uint64)) % 2**32
    value = (index * key[0] + key[1]) % 2**32
    value = ((value ^ (value >> np.uint64(16))) * 0x7FEB352D) % 2**32
    value = ((value ^ (value >> np.uint64(15))) * 0x846CA68B) % 2**32
    assert hashed.numpy().view(np.uint32).tolist() == value.tolist()


def test_masks_nest_as_density_grows() -> None:
    base, source = vectors()
    keys = [kernels.mask_key(0, 0, "w")]
    previous = torch.zeros(1, SIZE, dtype=torch.bool)
    for density in (0.0, 1e-4, 0.1, 0.11, 0.5, 0.9, 1 - 1e-12, 1.0):
        kept = kernels.random_masks(base, [source], [density], keys, False).kept
        assert not (previous & ~kept).any()
        previous = kept
    assert previous.all()


def test_masks_keep_the_density_and_are_independent() -> None:
    base, source = vectors()
    names = [(0, "a"), (1, "a"), (0, "b")]
    keys = [kernels.mask_key(0, position, name) for position, name in names]
    keys.append(kernels.mask_key(1, 0, "a"))
    kept = kernels.random_masks(base, [source] * 4, [0.3] * 4, keys, False).kept.double()
    error = (0.3 * 0.7 / SIZE) ** 0.5
    assert (kept.mean(1) - 0.3).abs().max() < 5 * error
    neighbours = torch.stack([kept[0, :-1], kept[0, 1:]])
    for pair in (kept, neighbours):
        correlation = torch.corrcoef(pair) - torch.eye(len(pair))
        assert correlation.abs().max() < 5 / SIZE**0.5


def test_masks_do_not_depend_on_the_other_sources_or_on_blocks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base, source = vectors()
    keys = [kernels.mask_key(0, position, "w") for position in range(2)]
    both = kernels.random_masks(base, [source, base], [0.3, 0.8], keys, True)
    alone = kernels.random_masks(base, [source], [0.3], keys[:1], True)
    assert torch.equal(both.kept[0], alone.kept[0])
    monkeypatch.setattr(kernels, "BLOCK", 1000)
    small = kernels.random_masks(base, [source], [0.3], keys[:1], True)
    assert torch.equal(small.kept, alone.kept)


def test_rescaling_keeps_the_l1_norm() -> None:
    base, source = vectors()
    kept, scales = kernels.random_masks(base, [source], [0.2], [kernels.mask_key(0, 0, "w")], True)
    delta = source - base
    torch.testing.assert_close((delta * kept[0] * scales[0]).abs().sum(), delta.abs().sum())


def test_no_kernel_changes_its_inputs() -> None:
    base, source = vectors()
    copies = base.clone(), source.clone()
    masks = kernels.random_masks(base, [source], [0.5], [kernels.mask_key(0, 0, "w")], True)
    kernels.magnitude_masks(base, [source], [0.5], True)
    kernels.task_arithmetic(base, [source], [0.5], masks, consensus=True, normalize=True)
    kernels.slerp(base, source, 0.3)
    kernels.linear([base, source], [0.5, 0.2], True)
    kernels.l1_norm(source, base)
    assert torch.equal(base, copies[0])
    assert torch.equal(source, copies[1])


def test_half_precision_inputs_are_merged_in_float32() -> None:
    base = torch.tensor([1.0], dtype=torch.bfloat16)
    sources = [torch.tensor([1.0078125], dtype=torch.bfloat16), torch.tensor([1.01])]
    merged = kernels.task_arithmetic(base, sources, [0.1, 0.2], consensus=False, normalize=False)
    torch.testing.assert_close(merged, torch.tensor([1 + 0.1 * 0.0078125 + 0.2 * 0.01]))
