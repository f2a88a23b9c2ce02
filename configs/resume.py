"""What the run folder of a checkpoint tells about its training, and whether it may be resumed with a configuration."""

from pathlib import Path

from yacs.config import CfgNode

from configs.default import strategy_cfg
from configs.yaml_file import decode, read_yaml
from utils.run.errors import UserError
from utils.run.messages import shown

# weights do not show these, but a network tested with others than it was trained with performs worse
UNSEEN = ("dataset", "image_size", "drop_last_stride")


def check_resume(cfg: CfgNode) -> str:
    """Compare ``cfg`` with the ``config.yml`` beside the checkpoint ``cfg.resume``, if both are there.

    A checkpoint is a bare state dict, so nothing else tells which split it was trained on.

    Returns:
        What is worth a line in the log; empty if nothing is.

    Raises:
        UserError: the checkpoint was trained on another RegDB split, which holds identities of this test; or it is to
            be tested on another data set with another number of classes.
    """
    if not cfg.resume:
        return ""
    beside = Path(cfg.resume).parent / "config.yml"
    trained, unknown = _read(beside)
    if "dataset" not in trained:
        if cfg.dataset == "regdb" and cfg.test_only:
            return f"{unknown}: make sure that {cfg.resume} was trained on trial {cfg.trial}, not on its test images"
        return ""
    trial = _plain(trained.get("trial", strategy_cfg.trial))
    if trained["dataset"] == cfg.dataset == "regdb" and trial != cfg.trial:
        trial = shown(trial)
        raise UserError(
            f"{cfg.resume}: was trained on RegDB's trial {trial} ({beside}), and half of trial {cfg.trial}'s test"
            f" identities with it; set trial {trial} or resume a checkpoint of trial {cfg.trial}"
        )
    num_id = _plain(trained.get("num_id", cfg.num_id))
    if cfg.test_only and trained["dataset"] != cfg.dataset and num_id != cfg.num_id:
        dataset = shown(trained["dataset"])
        raise UserError(
            f"{cfg.resume}: was trained on {dataset} with {shown(num_id)} classes ({beside}); set dataset {dataset}, or"
            f" num_id {shown(num_id)} to test it on {cfg.dataset} all the same"
        )
    other = [key for key in UNSEEN if key in trained and _plain(trained[key]) != _plain(cfg[key])]
    return "; ".join(f"trained with {key} {shown(trained[key])}, now {shown(cfg[key])}" for key in other)


def _read(path: Path) -> tuple[dict[str, object], str]:
    """The configuration in ``path``, and why there is none."""
    try:
        return read_yaml(path), f"{path} says nothing of a data set"
    except FileNotFoundError:
        return {}, f"there is no {path}"
    except UserError as error:  # a file of that name may be anyone's
        return {}, str(error)


def _plain(value: object) -> object:
    """As it is compared: YAML has lists where the configuration has tuples, or text such as ``(384, 192)``."""
    value = decode(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, tuple) else value
