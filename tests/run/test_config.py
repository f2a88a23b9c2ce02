import re
from pathlib import Path

import pytest
import yaml

from configs import get_config
from configs.checks import CHOICES, RULES
from configs.default import dataset_cfg, strategy_cfg
from utils.run.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"

# what the paper's code documents: key -> default, SYSU_MCJA.yml, RegDB_MCJA.yml
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
    def write(text: str, name: str = "x.yml") -> Path:
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return write


def refused(path, *overrides: str) -> str:
    with pytest.raises(UserError) as error:
        get_config(path, overrides)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("key", RELEASED)
def test_released_names_and_values(key, write):
    found = [get_config(path)[key] for path in (write(""), CONFIGS / "SYSU_MCJA.yml", CONFIGS / "RegDB_MCJA.yml")]
    assert tuple(found) == RELEASED[key]
    assert [type(value) for value in found] == [type(value) for value in RELEASED[key]]


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yml")), ids=lambda path: path.name)
def test_shipped_files_resolve(path):
    assert get_config(path).is_frozen()


def test_every_key_says_what_it_means():
    """One line per key in the defaults, each with its meaning behind it."""
    text = "".join((CONFIGS / "default" / name).read_text() for name in ("strategy.py", "dataset.py"))
    for key in [*strategy_cfg, *dataset_cfg["sysu"]]:
        assert re.search(rf"\b{key} ?= ?.*  # \S", text), key
    assert dataset_cfg["sysu"].keys() == dataset_cfg["regdb"].keys()


def test_mser_defaults_follow_the_data_set(write):
    sysu, regdb = get_config(write("dataset: sysu")), get_config(write("dataset: regdb"))
    assert (sysu.mser_k1, sysu.mser_k2, sysu.mser_lambda) == (40, 20, 0.3)
    assert (regdb.mser_k1, regdb.mser_k2, regdb.mser_lambda) == (50, 10, 0.2)


def test_file_beats_default_and_command_line_beats_file(write):
    path = write("lr: 0.1\nnum_id: 7\ndata_root: a\n")
    cfg = get_config(path, ["lr", "0.2", "data_root", "b c"])
    assert (cfg.lr, cfg.num_id, cfg.data_root) == (0.2, 7, "b c")


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        ("image_size", "(64, 32)", (64, 32)),
        ("image_size", "[64, 32]", (64, 32)),
        ("lr", "5e-4", 5e-4),
        ("lr", "1", 1.0),
        ("fp16", "false", False),
        ("fp16", "False", False),
        ("lr_step", "[3, 5]", [3, 5]),
        ("lr_step", "[]", []),
        ("pretrained", "none", "none"),
        ("prefix", "2024", "2024"),
        ("trial", "10", 10),
    ],
)
def test_overrides_are_read_as_the_type_of_the_default(write, key, text, value):
    found = get_config(write(""), [key, text])[key]
    assert (found, type(found)) == (value, type(value))


def test_scientific_notation_that_yaml_takes_for_text(write):
    assert get_config(write("lr: 5e-4")).lr == 5e-4


def test_frozen(write):
    with pytest.raises(AttributeError):
        get_config(write("")).lr = 1.0


def test_saved_and_read_again_it_is_the_same(write):
    cfg = get_config(CONFIGS / "RegDB_MCJA.yml", ["trial", "3"])
    assert get_config(write(cfg.dump())) == cfg


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("p_sise: 8", ["p_sise", "8", "x.yml", "did you mean 'p_size'"]),
        ("lr: fast", ["lr", "fast", "x.yml", "a number"]),
        ("p_size: 8.0", ["p_size", "8.0", "a whole number"]),
        ("p_size: true", ["p_size", "True", "a whole number"]),
        ("fp16: 1", ["fp16", "1", "true or false"]),
        ("prefix: 7", ["prefix", "7", "text"]),
        ("image_size: 384", ["image_size", "384", "list of whole numbers"]),
        ("image_size: (384, 192, 3)", ["image_size", "(384, 192, 3)", "(height, width)"]),
        ("image_size: (16, 192)", ["image_size", "at least 32"]),
        ("lr_step: [120, 80]", ["lr_step", "[120, 80]", "ascending"]),
        ("lr: 0", ["lr", "0", "above 0"]),
        ("lr: .nan", ["lr", "nan", "above 0"]),
        ("wd: -1.0", ["wd", "-1.0", "at least 0"]),
        ("trial: 11", ["trial", "11", "between 1 and 10"]),
        ("mser_lambda: 1.5", ["mser_lambda", "1.5", "between 0 and 1"]),
        ("dataset: regbd", ["dataset", "regbd", "did you mean 'regdb'"]),
        ("dataset: [sysu]", ["dataset", "text"]),
        ("soft_rank: torchsrot", ["soft_rank", "torchsrot", "did you mean 'torchsort'"]),
        ("sample_method: triplet", ["sample_method", "triplet", "choose from norm_triplet"]),
        ("prefix: ../x", ["prefix", "../x", "plain file name"]),
        ("loss_id: false\nloss_cmr: false", ["loss_cmr", "nothing to learn"]),
        ("compile: true\nsoft_rank: torchsort", ["compile", "soft_rank torchsort"]),
        ("test_only: true", ["test_only", "resume"]),
        ("sample_method: cross_modality_identity\nk_size: 5", ["k_size", "5", "even"]),
        ("sample_method: cross_modality_random\nbatch_size: 5", ["batch_size", "5", "even"]),
        ("p_size: 1\nk_size: 1", ["one image"]),
        ("lr: 1\nlr: 2", ["x.yml:2:1", "'lr' is given twice"]),
        ("lr: 1\n\twd: 2", ["x.yml:2:1", "not valid YAML"]),
        ("lr: !!python/object/apply:os.getcwd []", ["x.yml:1:5", "not valid YAML"]),
        ("3: x", ["x.yml:1:1", "key 3 is not a name"]),
        ("- lr", ["x.yml", "key: value"]),
        ("[" * 2000, ["x.yml", "not valid YAML"]),
    ],
)
def test_refused_in_one_line_that_names_it(write, text, words):
    message = refused(write(text))
    for word in words:
        assert word in message, message


@pytest.mark.parametrize("key", CHOICES)
def test_every_choice_is_taken_and_nothing_else(write, key):
    for choice in CHOICES[key]:
        assert get_config(write(""), [key, choice])[key] == choice
    assert f"{key}: 'nonsense' (command line) is unknown" in refused(write(""), key, "nonsense")


def test_every_rule_names_a_key():
    keys = {*strategy_cfg, *dataset_cfg["sysu"]}
    assert RULES.keys() <= keys
    assert CHOICES.keys() <= keys


def test_files_that_cannot_be_read(write, tmp_path):
    write("", "SYSU.yml")
    assert "did you mean 'SYSU.yml'" in refused(tmp_path / "SYSY.yml")
    assert "a configuration is a .yml or .yaml file" in refused(write("import os", "x.py"))
    (tmp_path / "binary.yml").write_bytes(b"\xff\xfe\x00")
    assert "cannot be read as text" in refused(tmp_path / "binary.yml")
    assert "'lr' has no partner" in refused(write(""), "lr")


def test_dumped_files_are_plain_yaml(write):
    assert yaml.safe_load(get_config(write("")).dump())["image_size"] == [384, 128]
