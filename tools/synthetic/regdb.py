"""The RegDB layout: a visible and a thermal camera, and lists of ten trials under ``idx/``."""

from pathlib import Path

import numpy as np

from tools.synthetic.camera import CameraSpec
from tools.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES, LARGEST_NUMBER, Layout, require_range
from tools.synthetic.modality import THERMAL, VISIBLE

TRIALS = 10
_SCENES = ("street", "park", "yard", "street", "park", "yard", "lobby")
_FOLDERS = {2: "Visible", 3: "Thermal"}
_SPLIT_SALT = 0x4E6D


class RegDB(Layout):
    """Every identity is seen by both cameras, equally often."""

    cameras = {2: CameraSpec(VISIBLE, _SCENES), 3: CameraSpec(THERMAL, _SCENES)}

    def __init__(
        self, *, seed: int, identities: int = DEFAULT_IDENTITIES, images_per_camera: int = DEFAULT_IMAGES
    ) -> None:
        require_range("identities", identities, 2, LARGEST_NUMBER)
        require_range("images per camera", images_per_camera, 1, LARGEST_NUMBER)
        self.seed, self.identities, self.images = seed, identities, images_per_camera
        self.counts = {i: dict.fromkeys(self.cameras, images_per_camera) for i in range(1, identities + 1)}

    def image_path(self, camera: int, identity: int, instance: int) -> Path:
        folder = _FOLDERS[camera]
        return Path(folder, str(identity), f"{identity:03d}_{folder[0].lower()}_{instance:02d}.bmp")

    def write_lists(self, root: Path) -> None:
        """Per trial, a random half of the identities for training and half for testing, labelled by rank."""
        folder = root / "idx"
        folder.mkdir()
        rng = np.random.default_rng((self.seed, _SPLIT_SALT))
        for trial in range(1, TRIALS + 1):
            train, test = np.split(1 + rng.permutation(self.identities), [self.identities // 2])
            for split, half in (("train", train), ("test", test)):
                for camera, spec in self.cameras.items():
                    lines = [
                        f"{self.image_path(camera, int(identity), instance).as_posix()} {label}\n"
                        for label, identity in enumerate(np.sort(half))
                        for instance in range(1, self.images + 1)
                    ]
                    (folder / f"{split}_{spec.modality}_{trial}.txt").write_text("".join(lines))
