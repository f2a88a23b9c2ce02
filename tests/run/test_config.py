"""Configurations: each is read correctly or refused in one line."""

import re
from collections import Counter
from functools import partial
from pathlib import Path

import pytest
import yaml

from configs import get_config
from configs.checks import CHOICES, RULES
from configs.default import strategy_cfg
from data.datasets import DATASETS
from losses import LOSSES
from tests.helpers.fuzzing import mutations, outcome, report
from utils.run.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# documented by the released code: key -> default, SYSU_MCJA.yml, RegDB_MCJA.yml
RELEASED = {
    "prefix": ("SYSU", "SYSU", "RegDB"),
    "dataset": ("sysu", "sysu", "regdb"),
    "image_size": ((384, 128), (384, 192), (384, 192)),
    "sample_method": ("norm_triplet",) * 3,
    "p_size": (8, 8, 4),
    "k_size": (16, 16, 32),
    "batch_size": (128, 128, 128),
    **dict.fromkeys(("random_flip", "random_crop", "random_erase", "color_jitter"), (True,) * 3),
    "padding": (10, 10, 10),
    **dict.fromkeys(("vimc_wg", "vimc_cc", "vimc_sj"), (True,) * 3),
    "drop_last_stride": (False,) * 3,
    "mda_ratio": (2, 2, 2),
    "mda_m": (2, 2, 12),
    **dict.fromkeys(("loss_id", "loss_cmr"), (True,) * 3),
    "lr": (0.00035,) * 3,
    "wd": (0.0005,) * 3,
    "num_epoch": (140, 140, 300),
    "lr_step": ([80, 120], [80, 120], [300]),
    "fp16": (True,) * 3,
    "start_eval": (0, 0, 0),
    "log_period": (10, 10, 5),
    "eval_interval": (1, 1, 1),
    "resume": ("",) * 3,
    "mser": (True,) * 3,
    "test_only": (False,) * 3,
    "num_id": (395, 395, 206),
    "num_cam": (6, 6, 2),
    "data_root": ("../../Datasets/SYSU-MM01", "../../Datasets/SYSU-MM01", "../../Datasets/RegDB"),
}


@pytest.fixture
def write(tmp_path):
    def write(text: str | bytes, name: str = "x.yml") -> Path:
        (tmp_path / name).write_bytes(text.encode() if isinstance(text, str) else text)
        return tmp_path / name

    return write


def refused(path: Path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        get_config(path, overrides)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 500
    return str(error.value)


# --- defaults and shipped files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", RELEASED)
def test_released_names_and_values(key, write):
    found = [get_config(path)[key] for path in (write(""), CONFIGS / "SYSU_MCJA.yml", CONFIGS / "RegDB_MCJA.yml")]
    assert tuple(found) == RELEASED[key]
    assert [type(value) for value in found] == [type(value) for value in RELEASED[key]]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.name)
def test_shipped_files_are_valid(path):
    assert get_config(path).is_frozen()


def test_every_key_says_what_it_means():
    text = (CONFIGS / "default" / "strategy.py").read_text()
    for key in strategy_cfg:
        assert re.search(rf"strategy_cfg\.{key} = .*  # \S", text), key


@pytest.mark.parametrize("name", DATASETS)
def test_data_sets_have_defaults_of_the_same_keys_and_types(name, write):
    defaults = DATASETS[name].defaults
    assert defaults.keys() - {"mser"} == DATASETS["sysu"].defaults.keys()
    assert {key: type(value) for key, value in defaults.items()} == {key: type(strategy_cfg[key]) for key in defaults}
    cfg = get_config(write(f"dataset: {name}"))
    assert {key: cfg[key] for key in defaults} == defaults


def test_mser_defaults_depend_on_the_data_set(write):
    sysu, regdb = get_config(write("dataset: sysu")), get_config(write("dataset: regdb"))
    assert (sysu.mser_k1, sysu.mser_k2, sysu.mser_lambda) == (40, 20, 0.3)
    assert (regdb.mser_k1, regdb.mser_k2, regdb.mser_lambda) == (50, 10, 0.2)


def test_file_beats_default_and_command_line_beats_file(write):
    cfg = get_config(write("lr: 0.1\nnum_id: 7\ndata_root: a\n"), ["lr", "0.2", "data_root", "b c"])
    assert (cfg.lr, cfg.num_id, cfg.data_root) == (0.2, 7, "b c")


def test_a_frozen_configuration_cannot_be_changed(write):
    with pytest.raises(AttributeError):
        get_config(write("")).lr = 1.0


def test_saved_and_read_again_it_is_the_same(write):
    cfg = get_config(CONFIGS / "RegDB_MCJA.yml", ["trial", "3"])
    assert get_config(write(cfg.dump())) == cfg
    assert yaml.safe_load(cfg.dump())["image_size"] == [384, 192]  # plain YAML


# --- values ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("image_size", "(64, 32)", (64, 32)),
        ("image_size", "[64, 32]", (64, 32)),
        ("lr", "5e-4", 5e-4),
        ("lr", "1", 1.0),
        ("fp16", "false", False),
        ("fp16", "False", False),
        ("fp16", "off", False),
        ("lr_step", "[3, 5]", [3, 5]),
        ("lr_step", "[]", []),
        ("pretrained", "none", "none"),
        ("prefix", "2024", "2024"),
        ("trial", "10", 10),
        ("data_root", "C:/a b", "C:/a b"),
    ],
)
def test_overrides_are_read_in_the_type_of_the_default(write, key, text, value):
    found = get_config(write(""), [key, text])[key]
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    ("text", "key", "value"),
    [
        ("# nothing\n", "lr", 0.00035),
        ("\ufefflr: 1", "lr", 1.0),
        ("lr: 1\r\nwd: 2\r\n", "wd", 2.0),
        ("lr: 5e-4", "lr", 5e-4),  # YAML 1.1 reads this as text
        ("lr: '1e-3'", "lr", 1e-3),
        ("p_size: '4'", "p_size", 4),
        ("fp16: off", "fp16", False),
        ("image_size: (64, 32)", "image_size", (64, 32)),
        ("data_root: 'Büro/データ'", "data_root", "Büro/データ"),
        ("prefix: '010'", "prefix", "010"),
    ],
)
def test_files_are_read_as_they_are_meant(write, text, key, value):
    found = get_config(write(text))[key]
    assert (found, type(found)) == (value, type(value))


REFUSED = [
    ("p_sise: 8", ["p_sise", "8", "x.yml", "did you mean 'p_size'"]),
    ("lr: fast", ["lr", "fast", "x.yml", "a number"]),
    ("lr:", ["lr", "a number"]),
    ("p_size: 8.0", ["p_size", "8.0", "a whole number"]),
    ("fp16: 1", ["fp16", "1", "true or false"]),
    ("prefix: 7", ["prefix", "7", "text (quote it)"]),
    ("prefix: 2024-13-31", ["x.yml", "month"]),
    ("image_size: 384", ["image_size", "384", "list of whole numbers"]),
    ("image_size: (384, 192, 3)", ["image_size", "(384, 192, 3)", "(height, width)"]),
    ("image_size: (16, 192)", ["image_size", "at least 32"]),
    ("lr_step: [120, 80]", ["lr_step", "[120, 80]", "ascending"]),
    ("lr: 0", ["lr", "0", "> 0"]),
    ("lr: .nan", ["lr", "nan", "> 0"]),
    ("wd: -1.0", ["wd", "-1.0", ">= 0"]),
    ("trial: 11", ["trial", "11", "between 1 and 10"]),
    ("mser_lambda: 1.5", ["mser_lambda", "1.5", "between 0 and 1"]),
    ("dataset: regbd", ["dataset", "regbd", "did you mean 'regdb'"]),
    ("soft_rank: torchsrot", ["soft_rank", "torchsrot", "did you mean 'torchsort'"]),
    ("sample_method: triplet", ["sample_method", "triplet", "choose from norm_triplet"]),
    ("prefix: ../x", ["prefix", "../x", "plain file name"]),
    ("prefix: ..", ["prefix", "plain file name"]),
    ("prefix: /tmp/x", ["prefix", "plain file name"]),
    ("data_root: ''", ["data_root", "a folder"]),
    ("loss_id: false\nloss_cmr: false\nloss_triplet: none", ["loss_id", "nothing to learn"]),
    ("compile: true\nsoft_rank: torchsort", ["compile", "soft_rank torchsort"]),
    ("compile: true\namp_backend: apex", ["compile", "amp_backend apex"]),
    ("test_only: true", ["test_only", "resume"]),
    ("sample_method: cross_modality_identity\nk_size: 5", ["k_size", "5", "even"]),
    ("sample_method: cross_modality_random\nbatch_size: 5", ["batch_size", "5", "even"]),
    ("p_size: 1\nk_size: 1", ["one image"]),
    ("sample_method: none\nbatch_size: 1", ["batch_size", "one image"]),
    ("lr: 1\nlr: 2", ["x.yml:2:1", "'lr' is given twice"]),
    ("lr: 1\n\twd: 2", ["x.yml:2:1", "not valid YAML"]),
    ("lr: {a: 1}", ["x.yml:1:5", "a value is a number"]),
    ("- lr", ["x.yml:1:1", "key: value"]),
    ("lr: 1\n---\nlr: 2", ["x.yml:2:1", "document"]),
    ("prefix: Büro".encode("latin-1"), ["x.yml", "save it as UTF-8"]),
]


@pytest.mark.parametrize(("text", "words"), REFUSED, ids=[str(text)[:40] for text, _ in REFUSED])
def test_refused_in_one_line_that_names_it(write, text, words):
    message = refused(write(text))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_is_taken_and_nothing_else(write, key):
    for choice in CHOICES[key]:
        assert get_config(write(""), [key, choice])[key] == choice
    assert f"{key}: 'nonsense' (command line) is unknown" in refused(write(""), key, "nonsense")


def test_every_check_names_a_key():
    assert {*RULES, *CHOICES, *LOSSES} <= strategy_cfg.keys()


def test_numbers_cannot_be_negative(write):
    for key, default in strategy_cfg.items():
        if type(default) in (int, float) and key != "mda_ratio":  # mda_ratio has no effect
            assert refused(write(""), key, "-1").startswith(f"{key}: ")


def test_files_that_cannot_be_read(write, tmp_path):
    write("", "SYSU.yml")
    assert "did you mean 'SYSU.yml'" in refused(tmp_path / "SYSY.yml")
    assert "a configuration is a .yml or .yaml file" in refused(write("import os", "x.py"))
    (tmp_path / "folder.yml").mkdir()
    assert "folder.yml: cannot be read (Is a directory)" in refused(tmp_path / "folder.yml")
    assert "'lr' has no value" in refused(write(""), "lr")


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.name)
def test_damaged_files(path, write, tally):
    found = Counter(outcome(partial(get_config, write(text))) for text in mutations(path.read_bytes(), 0, 30))
    report(tally, "configuration", found)
    assert found["refused"] > 0
