"""Each augmentation equals golden values, PIL or single pixels; random parameters have the right distributions."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import functional as reference

from benchmarks.data import augment_one
from data.augment import (
    ASPECT,
    CUTMIX,
    GRAYSCALE,
    HUE,
    IMAGENET_MEAN,
    IMAGENET_STD,
    NOTHING,
    SPECTRUM,
    BatchAugment,
    augment,
    normalise,
)
from data.hue import adjust_hue, hsv_to_rgb, rgb_to_hsv
from data.vimc import channel_cutmix, spectrum_jitter, weighted_grayscale
from engine.extract import spectrum
from tests.helpers.golden import GOLDEN

GOLDEN_TRANSFORMS = dict(np.load(GOLDEN / "transforms.npz"))
OFF = {"color_jitter": False, "vimc_wg": False, "vimc_cc": False, "vimc_sj": False}
PLAIN = {"random_flip": False, "random_crop": False, "random_erase": False}


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()


def random_images(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def assert_equals(images: torch.Tensor, golden: str, tolerance: int = 0):
    difference = images[0].permute(1, 2, 0).int() - torch.from_numpy(GOLDEN_TRANSFORMS[golden]).int()
    assert difference.abs().max() <= tolerance


# --- one augmentation at a time -------------------------------------------------------------------------------------


def test_golden_weighted_grayscale():
    weights = torch.from_numpy(GOLDEN_TRANSFORMS["weighted_grayscale_weights"])[None]
    assert_equals(weighted_grayscale(batch(GOLDEN_TRANSFORMS["image"]), weights), "weighted_grayscale", tolerance=1)


@pytest.mark.parametrize("name", [name for name in GOLDEN_TRANSFORMS if name.startswith("spectrum_jitter")])
def test_golden_spectrum_jitter(name):
    channel, factor = name.removeprefix("spectrum_jitter_c").split("_f")
    images = batch(GOLDEN_TRANSFORMS["image"])
    assert_equals(spectrum_jitter(images, torch.tensor([int(channel)]), torch.tensor([float(factor)])), name, 1)


@pytest.mark.parametrize("name", ["red", "green", "blue"])
def test_golden_channels(name):
    assert_equals(spectrum(batch(GOLDEN_TRANSFORMS["image"]), name), f"channel_{name[0]}")


@given(
    st.tuples(st.integers(-5, 15), st.integers(-5, 15), st.integers(0, 20), st.integers(0, 20)),
    st.permutations([0, 1, 2]),
)
@settings(max_examples=50, deadline=None)
def test_channel_cutmix_against_pixels(box, channels):
    background, foreground, _ = channels
    image = random_images(1, 12, 8)
    result = channel_cutmix(batch(*image), torch.tensor([background]), torch.tensor([foreground]), torch.tensor([box]))
    top, left, height, width = box
    for row in range(12):
        for column in range(8):
            inside = top <= row < top + height and left <= column < left + width
            value = image[0, row, column, foreground if inside else background]
            assert (result[0, :, row, column] == value).all()


def test_hue_equals_torchvision_on_pil_images_bit_for_bit():
    images = random_images(60, 40, 24)
    images[:10] //= 16  # dark
    images[10:20] = images[10:20, ..., :1]  # grey
    images[20:30] = images[20:30] // 64 * 85  # few, saturated colours
    shifts = torch.from_numpy(np.random.default_rng(1).uniform(-0.5, 0.5, 60))
    shifts[:3] = torch.tensor([0.0, 0.5, -0.5])
    expected = [
        np.asarray(reference.adjust_hue(Image.fromarray(image), shift))
        for image, shift in zip(images, shifts.tolist(), strict=True)
    ]
    assert torch.equal(adjust_hue(batch(*images), shifts), batch(*expected))


def every_triple() -> torch.Tensor:
    """All 2^24 triples of 8-bit numbers: (16, 3, 1024, 1024)."""
    level = torch.arange(256, dtype=torch.uint8)
    return torch.stack(torch.meshgrid(level, level, level, indexing="ij")).view(3, 16, 1024, 1024).transpose(0, 1)


def converted_by_pil(images: torch.Tensor, source: str, target: str) -> torch.Tensor:
    """(3, H, W) -> (3, H, W)."""
    height, width = images.shape[1:]
    image = Image.frombytes(source, (width, height), images.permute(1, 2, 0).contiguous().numpy().tobytes())
    return torch.from_numpy(np.array(image.convert(target))).permute(2, 0, 1)


def test_every_colour_is_converted_to_hsv_and_back_as_by_pil():
    """Every colour with every hue shift equals PIL's result. A grey pixel has no hue."""
    for triples in every_triple():
        expected = converted_by_pil(triples, "RGB", "HSV")
        found = torch.stack(rgb_to_hsv(triples[None]), dim=1)[0]
        coloured = expected[1] > 0
        assert torch.equal(found[1:], expected[1:])
        assert torch.equal(found[0] * coloured, expected[0] * coloured)
        assert torch.equal(hsv_to_rgb(*triples[:, None])[0], converted_by_pil(triples, "HSV", "RGB"))


def test_normalise_equals_torchvision():
    image = random_images(1, 9, 7)[0]
    expected = reference.normalize(reference.to_tensor(Image.fromarray(image)), IMAGENET_MEAN, IMAGENET_STD)
    torch.testing.assert_close(normalise(batch(image))[0], expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("change", ["grayscale", "cutmix", "jitter", "hue"])
def test_per_image_parameters_equal_one_image_at_a_time(change):
    random = torch.Generator().manual_seed(0)
    images = batch(*random_images(6, 16, 12))
    channels = torch.randint(0, 3, (2, 6), generator=random)
    arguments = {
        "grayscale": (weighted_grayscale, torch.rand(6, 3, generator=random) / 3),
        "cutmix": (channel_cutmix, *channels, torch.randint(0, 8, (6, 4), generator=random)),
        "jitter": (spectrum_jitter, channels[0], torch.rand(6, generator=random)),
        "hue": (adjust_hue, torch.rand(6, generator=random) - 0.5),
    }[change]
    function, parameters = arguments[0], arguments[1:]
    together = function(images, *parameters)
    for i in range(6):
        assert torch.equal(together[i : i + 1], function(images[i : i + 1], *(p[i : i + 1] for p in parameters)))


# --- all augmentations together ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(48, 24), (9, 7)])
def test_equals_pil_and_torchvision_image_by_image(size):
    """The padding may be larger than the image."""
    images = random_images(65, *size)
    parameters = BatchAugment(seed=4).draw(torch.arange(65) % 4 == 0, size)
    assert set(parameters.colour.tolist()) == {NOTHING, HUE, GRAYSCALE, CUTMIX, SPECTRUM}
    result = augment(batch(*images), parameters)
    assert result.dtype == torch.float32
    grey_level = 1 / 255 / min(IMAGENET_STD)
    for i in range(65):
        difference = (result[i] - augment_one(Image.fromarray(images[i]), parameters, i)).abs()
        # if a product is a whole number up to rounding, truncation may give either of two grey levels
        assert difference.max() <= grey_level + 1e-5, (i, parameters.colour[i])
        assert (difference > 1e-5).float().mean() < 0.02, (i, parameters.colour[i])


@pytest.mark.parametrize("value", [0, 127, 255])
def test_what_lies_outside_is_filled_with_the_padding_value(value):
    options = {**OFF, **PLAIN, "random_crop": True, "padding": 4, "seed": 1}
    images, infrared = torch.full((20, 3, 12, 8), 60, dtype=torch.uint8), torch.ones(20, dtype=torch.bool)
    shift = BatchAugment(**options).draw(infrared, (12, 8)).shift
    result = BatchAugment(**options, padding_value=value)(images, infrared)
    for image, (down, right) in zip(result, shift.tolist(), strict=True):
        expected = torch.full((3, 12, 8), value, dtype=torch.uint8)
        expected[:, max(0, -down) : 12 - max(0, down), max(0, -right) : 8 - max(0, right)] = 60
        torch.testing.assert_close(image, normalise(expected))


def test_strided_images_are_augmented_alike():
    images = batch(*random_images(8, 20, 10))
    parameters = BatchAugment(seed=2).draw(torch.zeros(8, dtype=torch.bool), (20, 10))
    strided = images.to(memory_format=torch.channels_last)
    result = augment(strided, parameters)
    assert torch.equal(result, augment(images, parameters))
    assert result.is_contiguous()


def test_with_everything_off_images_are_only_normalised():
    images = batch(*random_images(8, 20, 10))
    result = BatchAugment(**OFF, **PLAIN)(images, torch.zeros(8, dtype=torch.bool))
    assert torch.equal(result, normalise(images))


def test_images_are_not_changed_and_the_global_generator_is_not_used():
    images = batch(*random_images(16, 20, 10))
    before = images.clone()
    torch.manual_seed(0)
    first = BatchAugment(seed=3)(images, torch.zeros(16, dtype=torch.bool))
    torch.manual_seed(1)
    second = BatchAugment(seed=3)(images, torch.zeros(16, dtype=torch.bool))
    assert torch.equal(images, before)
    assert torch.equal(first, second)


def test_draws_continue_from_a_saved_state():
    infrared = torch.zeros(4, dtype=torch.bool)
    one = BatchAugment(seed=0)
    one.draw(infrared, (32, 16))
    state = one.state_dict()
    expected = one.draw(infrared, (32, 16))
    other = BatchAugment(seed=9)
    other.load_state_dict(state)
    found = other.draw(infrared, (32, 16))
    assert all(torch.equal(vars(found)[name], value) for name, value in vars(expected).items())


# --- distributions of what is drawn ---------------------------------------------------------------------------------

DRAWS = 40_000


def shares(colour: torch.Tensor) -> list[float]:
    return (torch.bincount(colour, minlength=5) / len(colour)).tolist()


def test_four_colour_changes_are_drawn_equally_and_applied_half_the_time():
    colour = BatchAugment(seed=0).draw(torch.zeros(DRAWS, dtype=torch.bool), (64, 32)).colour
    np.testing.assert_allclose(shares(colour), [0.5, 0.125, 0.125, 0.125, 0.125], atol=0.01)


@pytest.mark.parametrize(
    ("switch", "kind"), [("color_jitter", HUE), ("vimc_wg", GRAYSCALE), ("vimc_cc", CUTMIX), ("vimc_sj", SPECTRUM)]
)
def test_a_switched_off_change_leaves_the_others_as_they_are(switch, kind):
    infrared = torch.zeros(DRAWS, dtype=torch.bool)
    on = BatchAugment(seed=0).draw(infrared, (64, 32)).colour
    off = BatchAugment(seed=0, **{switch: False}).draw(infrared, (64, 32)).colour
    assert torch.equal(off, torch.where(on == kind, NOTHING, on))
    assert shares(off)[NOTHING] == pytest.approx(0.625, abs=0.01)


def test_infrared_images_keep_their_colours():
    parameters = BatchAugment(seed=0).draw(torch.arange(1000) % 2 == 0, (64, 32))
    assert (parameters.colour[::2] == NOTHING).all()
    assert (parameters.colour[1::2] != NOTHING).any()


def test_colour_parameters():
    p = BatchAugment(seed=0).draw(torch.zeros(DRAWS, dtype=torch.bool), (64, 32))
    assert p.hue.abs().max() <= 0.2
    assert p.hue.std() == pytest.approx(0.4 / 12**0.5, rel=0.02)
    torch.testing.assert_close(p.weights.sum(dim=1), torch.ones(DRAWS))
    np.testing.assert_allclose(p.weights.mean(dim=0), [1 / 3] * 3, atol=0.005)
    pairs = torch.bincount(p.background * 3 + p.foreground, minlength=9).reshape(3, 3) / DRAWS
    np.testing.assert_allclose(pairs, (np.ones((3, 3)) - np.eye(3)) / 6, atol=0.01)
    assert p.factor.mean() == pytest.approx(0.5, abs=0.01)


def test_flip_and_crop_draws():
    p = BatchAugment(seed=0, padding=3).draw(torch.zeros(DRAWS, dtype=torch.bool), (64, 32))
    assert p.flip.float().mean() == pytest.approx(0.5, abs=0.01)
    for direction in p.shift.T:
        np.testing.assert_allclose(torch.bincount(direction + 3) / DRAWS, [1 / 7] * 7, atol=0.01)


def test_erasing():
    p = BatchAugment(seed=0).draw(torch.zeros(DRAWS, dtype=torch.bool), (384, 192))
    top, left, height, width = p.erase_box.T
    erased = height > 0
    assert erased.float().mean() == pytest.approx(0.5, abs=0.01)
    share = (height * width)[erased] / (384 * 192)
    smallest, largest = 0.02, 0.30
    assert share.min() > smallest * 0.95
    assert share.max() < largest * 1.05
    assert share.mean() == pytest.approx((smallest + largest) / 2, rel=0.1)
    aspect = height[erased] / width[erased]
    assert aspect.min() > ASPECT[0] * 0.9
    assert aspect.max() < ASPECT[1] * 1.1
    assert (top + height).max() == 384
    assert (left + width).max() == 192


def cutmix_boxes(region: str) -> tuple[torch.Tensor, ...]:
    draw = BatchAugment(seed=0, cutmix_region=region).draw(torch.zeros(DRAWS, dtype=torch.bool), (384, 192))
    return draw.cutmix_box.T


def test_released_cutmix_region_is_swapped():
    top, left, height, width = cutmix_boxes("released")
    assert (top + height).max() == 192  # of 384 rows: the lower half is never replaced
    assert (left + width).max() == 384  # of 192 columns
    assert (left >= 192).float().mean() == pytest.approx(0.26, abs=0.01)  # completely outside the image


def test_full_cutmix_region_is_the_image():
    top, left, height, width = cutmix_boxes("full")
    assert (top + height).max() == 384
    assert (left + width).max() == 192
    share = height * width / (384 * 192)
    assert 0.019 < share.min() < share.max() < 0.335
    assert (height > 0).all()


def test_without_a_rectangle_that_fits_nothing_changes():
    """In an image of one column, none of the ten rectangles fits."""
    p = BatchAugment(seed=0, cutmix_region="full").draw(torch.zeros(50, dtype=torch.bool), (200, 1))
    assert (p.cutmix_box[:, 2:] == 0).all()
    images = batch(*random_images(50, 200, 1))
    pasted = channel_cutmix(images, p.background, p.foreground, p.cutmix_box)
    assert torch.equal(pasted[:, 0], images[torch.arange(50), p.background])


def test_unknown_region_is_refused():
    with pytest.raises(ValueError, match="unknown cutmix_region 'half'"):
        BatchAugment(cutmix_region="half")
