"""Check a checkpoint's own configuration before it is resumed."""

from pathlib import Path

from yacs.config import CfgNode

from configs.yaml_file import decode, read_yaml
from utils.run.errors import UserError, shown

# keys whose values cannot be seen in the weights; a network that is tested with other values performs worse
NOT_IN_WEIGHTS = ("dataset", "image_size", "resize", "drop_last_stride")


def check_resume(cfg: CfgNode) -> str:
    """Compare ``cfg`` with the ``config.yml`` beside the checkpoint ``cfg.resume``, if there is one.

    A checkpoint is a bare state dict, so only ``config.yml`` says which data it was trained on.

    Returns:
        A warning for the log, or an empty string.

    Raises:
        UserError: the checkpoint was trained on another RegDB split, which includes half of the test identities of
            this one.
        UserError: a checkpoint to test was trained on another data set with another number of classes.
    """
    if not cfg.resume:
        return ""
    path = Path(cfg.resume).parent / "config.yml"
    trained = _read(path)
    if "dataset" not in trained:
        if cfg.dataset == "regdb" and cfg.test_only:
            unknown = f"{path} does not exist or names no data set"
            return f"{unknown}: make sure that {cfg.resume} was trained on RegDB's split {cfg.trial}"
        return ""
    dataset, trial, num_id = (trained.get(key, cfg[key]) for key in ("dataset", "trial", "num_id"))
    if dataset == cfg.dataset == "regdb" and trial != cfg.trial:
        raise UserError(
            f"{cfg.resume}: was trained on RegDB's split {shown(trial)} ({path}), which includes half of the test"
            f" identities of split {cfg.trial}; set trial {shown(trial)} or resume a checkpoint of split {cfg.trial}"
        )
    if cfg.test_only and dataset != cfg.dataset and num_id != cfg.num_id:
        raise UserError(
            f"{cfg.resume}: was trained on {shown(dataset)} with {shown(num_id)} classes ({path}); set dataset"
            f" {shown(dataset)}, or num_id {shown(num_id)} to test it on {cfg.dataset}"
        )
    other = [key for key in NOT_IN_WEIGHTS if key in trained and trained[key] != _plain(cfg[key])]
    return "; ".join(f"trained with {key} {shown(trained[key])}, now {shown(cfg[key])}" for key in other)


def _read(path: Path) -> dict[str, object]:
    """Keys and values of ``path``; empty if the file is missing or not a configuration."""
    try:
        return {key: _plain(value) for key, value in read_yaml(path).items()}
    except (FileNotFoundError, UserError):
        return {}


def _plain(value: object) -> object:
    """``value`` in the form in which values are compared: text is decoded, tuples become lists, as in YAML."""
    value = decode(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, tuple) else value
