"""The LLCM layout: nine cameras that record visible images by day and infrared ones by night, and lists under ``idx/``.

The folders are as distributed, with what is odd about them: the test images are there twice, ``test_nir/cam3`` is
empty, and some folders hold a ``Thumbs.db``.
"""

import shutil
from pathlib import Path

import numpy as np

from tools.synthetic.camera import CameraSpec
from tools.synthetic.layout import DEFAULT_IDENTITIES, DEFAULT_IMAGES, LARGEST_NUMBER, Layout, require_range
from tools.synthetic.modality import INFRARED, VISIBLE

_SCENES = ("street", "yard", "park", "lobby", "corridor", "street", "yard", "room", "park")  # of cameras 1 to 9
_OFFSET = 9  # the infrared images of camera c have the camera number c + 9
_WITHOUT_INFRARED = 3
_FOLDERS = {VISIBLE: "vis", INFRARED: "nir"}
_HOURS = {VISIBLE: (7, 17), INFRARED: (18, 23)}  # first and last hour
_TEST_SHARE, _SEEN_SHARE = 1 / 3, 0.6
_SEEN_SALT, _NAME_SALT, _SPLIT_SALT = 0x5EE5, 0x4A3E, 0x5912
_STRAY = ("vis/Thumbs.db", "test_vis/cam1/Thumbs.db", "test_nir/cam2/Thumbs.db")


class LLCM(Layout):
    """Samples who is seen by which cameras, by day and by night, and the split."""

    cameras = {
        **{c: CameraSpec(VISIBLE, (scene,)) for c, scene in enumerate(_SCENES, start=1)},
        **{
            c + _OFFSET: CameraSpec(INFRARED, (scene,))
            for c, scene in enumerate(_SCENES, start=1)
            if c != _WITHOUT_INFRARED
        },
    }

    def __init__(
        self,
        *,
        seed: int,
        identities: int = DEFAULT_IDENTITIES,
        images_per_camera: int = DEFAULT_IMAGES,
        test_identities: int | None = None,
    ) -> None:
        require_range("identities", identities, 2, LARGEST_NUMBER)
        require_range("images per camera", images_per_camera, 1, LARGEST_NUMBER)
        if test_identities is None:
            test_identities = max(1, round(_TEST_SHARE * identities))
        require_range("test identities", test_identities, 1, identities - 1)
        self.seed = seed
        self.counts = {
            identity: dict.fromkeys(_sample_cameras(seed, identity), images_per_camera)
            for identity in range(1, identities + 1)
        }
        shuffled = (1 + np.random.default_rng((seed, _SPLIT_SALT)).permutation(identities)).tolist()
        self.splits = {"train": sorted(shuffled[test_identities:]), "test": shuffled[:test_identities]}

    def image_path(self, camera: int, identity: int, instance: int) -> Path:
        """``vis/<identity>/<name>`` or ``nir/...``; the name holds the camera, the time of day and a frame number."""
        modality = self.cameras[camera].modality
        rng = np.random.default_rng((self.seed, _NAME_SALT, camera, identity, instance))
        first, last = _HOURS[modality]
        clock = f"{rng.integers(first, last + 1):02d}{rng.integers(60):02d}{rng.integers(60):02d}"
        # the instance makes the name unique
        frame = 10_000 * int(rng.integers(1, 10)) + instance
        folder = _FOLDERS[modality]
        name = f"{identity:04d}_c{_device(camera):02d}_s{clock}_f{frame}_{folder}.jpg"
        return Path(folder, f"{identity:04d}", name)

    def write_lists(self, root: Path) -> None:
        """Lists of both splits, labelled by rank; the test images again, by camera; and stray files."""
        (root / "idx").mkdir()
        for modality, folder in _FOLDERS.items():
            for split, identities in self.splits.items():
                lines = [
                    f"{path.as_posix()} {label}\n"
                    for label, identity in enumerate(sorted(identities))
                    for _, path in self._images(identity, modality)
                ]
                (root / "idx" / f"{split}_{folder}.txt").write_text("".join(lines))
            for camera in range(1, len(_SCENES) + 1):
                (root / f"test_{folder}/cam{camera}").mkdir(parents=True)
            for identity in self.splits["test"]:
                for camera, path in self._images(identity, modality):
                    target = root / f"test_{folder}/cam{_device(camera)}" / path.relative_to(folder)
                    target.parent.mkdir(exist_ok=True)
                    shutil.copyfile(root / path, target)
        (root / "idx/test_id.txt").write_text(",".join(map(str, self.splits["test"])) + "\n")
        for name in _STRAY:
            (root / name).write_bytes(b"not an image")

    def _images(self, identity: int, modality: str) -> list[tuple[int, Path]]:
        """Camera and path of the images of an identity."""
        return [
            (camera, self.image_path(camera, identity, instance))
            for camera, images in self.counts[identity].items()
            if self.cameras[camera].modality == modality
            for instance in range(1, images + 1)
        ]


def _device(camera: int) -> int:
    """The number of the device, 1 to 9."""
    return camera if camera <= _OFFSET else camera - _OFFSET


def _sample_cameras(seed: int, identity: int) -> list[int]:
    """The cameras that see an identity: some of two or three devices by day, and some of them by night.

    Each identity is seen in both modalities and by two devices or more, else no query of it would have a match.
    """
    rng = np.random.default_rng((seed, _SEEN_SALT, identity))
    while True:
        devices = rng.choice(np.arange(1, _OFFSET + 1), 2 + rng.integers(2), replace=False)
        both = np.concatenate([devices, devices + _OFFSET])
        seen = [int(camera) for camera in both if camera in LLCM.cameras and rng.random() < _SEEN_SHARE]
        modalities = {LLCM.cameras[camera].modality for camera in seen}
        if len(modalities) == 2 and len(set(map(_device, seen))) > 1:
            return sorted(seen)
