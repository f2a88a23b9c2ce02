"""The RegDB layout: names of the images, and the lists of ten trials under `idx/`."""

from pathlib import Path

import numpy as np

from .scenes import THERMAL, VISIBLE

# visible is camera 2 and thermal camera 3, as in the code that reads them
MODALITIES = {2: VISIBLE, 3: THERMAL}
FOLDERS = {2: "Visible", 3: "Thermal"}
# the two cameras are carried about
SCENE_KINDS = ("street", "park", "yard", "street", "park", "yard", "lobby")
TRIALS = 10
LEAST_IDENTITIES = 2
_SPLIT_SALT = 0x4E6D


def image_path(camera: int, identity: int, instance: int) -> Path:
    """The path of an image relative to the root."""
    folder = FOLDERS[camera]
    return Path(folder, str(identity), f"{identity:03d}_{folder[0].lower()}_{instance:02d}.bmp")


def write_lists(root: Path, identities: int, images: int, seed: int) -> None:
    """Writes `root/idx`: per trial half of the identities to train and half to test, labelled by rank."""
    folder = root / "idx"
    folder.mkdir(parents=True)
    rng = np.random.default_rng((seed, _SPLIT_SALT))
    for trial in range(1, TRIALS + 1):
        drawn = 1 + rng.permutation(identities)
        halves = {"train": np.sort(drawn[: identities // 2]), "test": np.sort(drawn[identities // 2 :])}
        for split, half in halves.items():
            for camera, modality in MODALITIES.items():
                lines = [
                    f"{image_path(camera, int(identity), instance).as_posix()} {label}\n"
                    for label, identity in enumerate(half)
                    for instance in range(1, images + 1)
                ]
                (folder / f"{split}_{modality}_{trial}.txt").write_text("".join(lines))
