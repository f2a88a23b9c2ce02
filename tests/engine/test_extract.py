"""Extraction: every image once, in the data set's order; mixed precision changes metrics by rounding only."""

import numpy as np
import pytest
import torch

from data.augment import normalise
from data.datasets import SYSU
from data.datasets.images import ImageFiles
from engine.evaluator import QUERIES, RESULTS, Evaluator
from engine.extract import Extractor, spectrum
from engine.precision import inference_dtype
from models import MCJA
from tests.helpers.apex import StandInForApex
from utils.features import SPECTRA
from utils.rank_lists import CAPTION, GAP, HEIGHT, MARGIN, WIDTH
from utils.rerank import MSER

CPU, SIZE = torch.device("cpu"), (64, 32)
OPTIONS = {"batch_size": 32, "num_workers": 0}


@pytest.fixture(scope="module")
def dataset(sysu_root):
    return SYSU(sysu_root, "test")


@pytest.fixture(scope="module")
def source(dataset):
    return ImageFiles(dataset, SIZE)


@pytest.fixture(scope="module")
def model(dataset, source):
    """A small network whose batch norm statistics were computed on these images."""
    torch.manual_seed(0)
    model = MCJA(8, backbone="resnet10")
    images = normalise(source.take(range(0, len(dataset), 3)))
    with torch.no_grad():
        for _ in range(20):
            model(images)
    return model


def test_each_spectrum_is_that_of_the_image_and_infrared_has_one(dataset, source, model):
    features = Extractor(dataset, source, CPU, **OPTIONS)(model, SPECTRA)
    assert features.paths.tolist() == dataset.paths.tolist()
    images = source.take(range(len(dataset)))
    model.eval()
    with torch.no_grad():
        for name in SPECTRA:
            seen = torch.where(torch.from_numpy(dataset.infrared)[:, None, None, None], images, spectrum(images, name))
            np.testing.assert_allclose(features.spectra[name], model(normalise(seen)), rtol=1e-4, atol=1e-4)


def test_images_are_read_once_and_infrared_passes_once(dataset, source, model):
    read, passed = [], []

    class Counted:
        use_workers = False

        def take(self, positions):
            read.extend(positions)
            return source.take(positions)

    hook = model.register_forward_pre_hook(lambda _, inputs: passed.append(len(inputs[0])))
    Extractor(dataset, Counted(), CPU, **OPTIONS)(model, SPECTRA)
    hook.remove()
    assert sorted(read) == list(range(len(dataset)))
    assert sum(passed) == dataset.infrared.sum() + 4 * (~dataset.infrared).sum()


def test_cudnn_tries_out_algorithms_in_training_only(dataset, source, model, monkeypatch):
    seen = []
    hook = model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    Extractor(dataset, source, CPU, **OPTIONS)(model)
    hook.remove()
    assert seen and not any(seen)
    assert torch.backends.cudnn.benchmark


def test_a_model_is_left_in_its_mode(dataset, source, model):
    extractor = Extractor(dataset, source, CPU, **OPTIONS)
    for training in (True, False):
        extractor(model.train(training))
        assert model.training is training


def test_mixed_precision_gives_the_same_features_and_ranks(dataset, source, model):
    exact = Evaluator(dataset, Extractor(dataset, source, CPU, **OPTIONS), mser=None)
    mixed = Evaluator(dataset, Extractor(dataset, source, CPU, **OPTIONS, dtype=torch.float16), mser=None)
    (results, features), (mixed_results, mixed_features) = exact.test(model), mixed.test(model)
    error = np.linalg.norm(features.spectra["original"] - mixed_features.spectra["original"], axis=1)
    error /= np.linalg.norm(features.spectra["original"], axis=1)
    assert 0 < error.max() < 1e-2
    for name, result in results.items():
        # with so few queries, each is worth more than 0.1 points
        assert mixed_results[name].mean.rank1 == pytest.approx(
            result.mean.rank1, abs=0.1 + 100 / dataset.infrared.sum()
        )


def test_only_a_gpu_computes_in_half_precision():
    assert inference_dtype(CPU, fp16=True, amp_dtype="float16") is None
    assert inference_dtype(torch.device("cuda"), fp16=False, amp_dtype="float16") is None
    assert inference_dtype(torch.device("cuda"), fp16=True, amp_dtype="float16") == torch.float16


def test_what_is_trained_in_bfloat16_is_not_tested_in_float16():
    assert inference_dtype(torch.device("cuda"), fp16=True, amp_dtype="bfloat16") is None


def test_the_best_model_is_selected_by_the_data_sets_settings(dataset, source, model):
    evaluator = Evaluator(dataset, Extractor(dataset, source, CPU, **OPTIONS), mser=None)
    results = evaluator.test_plain(model)
    assert evaluator.select(model).score == results["all/1-shot"].mean
    assert any(result.mean != results["all/1-shot"].mean for result in results.values())


def test_rank_lists_are_drawn_if_their_images_can_be_read(dataset, source, model, monkeypatch, tmp_path, caplog):
    evaluator = Evaluator(dataset, Extractor(dataset, source, CPU, **OPTIONS), mser=None)
    score, picture = evaluator.select(model)
    row = HEIGHT + 2 * MARGIN + CAPTION
    assert picture.size == ((1 + RESULTS) * (WIDTH + 2 * MARGIN) + GAP, QUERIES * row)
    monkeypatch.setattr(dataset, "root", tmp_path)
    assert evaluator.select(model) == (score, None)
    assert f"no picture of rank lists: {tmp_path}/" in caplog.text


def test_scoring_is_not_cast_by_apex(dataset, source, model, monkeypatch):
    plain = Evaluator(dataset, Extractor(dataset, source, CPU, **OPTIONS), mser=MSER(5, 3, 0.3))
    features = plain.test(model)[1]
    expected = plain._score(features, plain.protocol, plain.mser)
    apex = StandInForApex(monkeypatch)
    evaluator = Evaluator(dataset, plain.extractor, mser=plain.mser, no_casts=apex.disable_casts)
    assert evaluator._score(features, evaluator.protocol, evaluator.mser) == expected
