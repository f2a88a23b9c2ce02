"""Export a checkpoint: ``python -m tools.export --checkpoint BEST.pth --onnx FILE.onnx --pt2 FILE.pt2`` (one or both).

The exported graph takes resized uint8 RGB images, normalises them, and gives L2-normalised embeddings. The file is
compared with PyTorch before it is written; its metadata say how images are to be prepared. See docs/deploy.md.
"""

import argparse
import hashlib
import io
import json
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn import functional
from yacs.config import CfgNode

from configs import check_resume
from data.augment import IMAGENET_MEAN, IMAGENET_STD
from models import Network
from tools.checkpoint import open_checkpoint
from utils.run.cli import Parser, run_program
from utils.run.errors import UserError
from utils.run.extras import optional_packages
from utils.run.files import write_atomically
from utils.run.versions import commit

INPUT, MODALITY, OUTPUT, METADATA = "images", "is_infrared", "embeddings", "metadata.json"
BATCH = {0: Dim("batch")}  # every input holds any number of images
TRACED_BATCH = 2  # torch.export takes a batch of 1 for a constant
CHECKED_BATCHES = (1, 3)  # images in the batches that are compared with PyTorch
TOLERANCE = 1e-3  # largest absolute difference of any number of an embedding; embeddings have length 1

Run = Callable[..., Tensor]  # inputs of a Deployed -> embeddings (B, D)
RESIZES = {
    "bilinear": "bilinear with antialias (PIL: Image.Resampling.BILINEAR)",
    "lanczos": "Lanczos (PIL: Image.Resampling.LANCZOS)",
}


class Deployed(nn.Module):
    """A network with its preprocessing: uint8 RGB images (B, 3, H, W) -> L2-normalised float32 embeddings (B, D).

    A network that needs the modality of the images takes it as a second input, (B,) booleans.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, model: Network):
        super().__init__()
        self.model = model
        self.inputs = [INPUT, MODALITY] if model.needs_modality else [INPUT]
        # buffers: data.augment.normalise caches its constants, which torch.export cannot trace
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN)[:, None, None])
        self.register_buffer("std", torch.tensor(IMAGENET_STD)[:, None, None])

    def forward(self, images: Tensor, is_infrared: Tensor | None = None) -> Tensor:
        normalised = (images.float() / 255 - self.mean) / self.std
        return functional.normalize(self.model(normalised, is_infrared))

    def random_inputs(self, count: int, image_size: tuple[int, int]) -> tuple[Tensor, ...]:
        """Inputs for ``count`` images: noise, every other image infrared."""
        is_infrared = torch.arange(count) % 2 == 1
        return (random_images(count, image_size), is_infrared)[: len(self.inputs)]


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = Parser(prog="python -m tools.export", description=__doc__.splitlines()[0])
    parser.add_argument("--checkpoint", type=Path, required=True, metavar="FILE.pth", help="such as best.pth of a run")
    cfg = "configuration of the checkpoint (default: config.yml beside it)"
    parser.add_argument("--cfg", type=Path, metavar="FILE", help=cfg)
    parser.add_argument("--onnx", type=Path, metavar="FILE.onnx", help="write an ONNX file")
    parser.add_argument("--pt2", type=Path, metavar="FILE.pt2", help="write a file for torch.export.load")
    arguments = parser.parse_args(argv)
    if not (arguments.onnx or arguments.pt2):
        raise UserError("nothing to write; give --onnx FILE.onnx, --pt2 FILE.pt2, or both")
    for name in ("onnx", "pt2"):
        path = getattr(arguments, name)
        if path and not path.parent.is_dir():
            raise UserError(f"--{name}: there is no folder {path.parent}")
        if path and path.suffix.lower() != f".{name}":
            raise UserError(f"--{name}: {path.name} should end in .{name}")
    return arguments


def main(argv: list[str] | None = None) -> int:
    arguments = parse_arguments(argv)
    warnings.simplefilter("ignore")  # of the exporters, about their own code
    # on the CPU: the exported graph is the same
    cfg, network = open_checkpoint(arguments.checkpoint, arguments.cfg, torch.device("cpu"))
    note = check_resume(cfg)
    if note:
        print(note)
    model = Deployed(network).eval()
    metadata = json.dumps(describe(cfg, model, arguments.checkpoint), indent=1)
    program = trace(model, cfg.image_size)
    for path, convert in ((arguments.onnx, to_onnx), (arguments.pt2, to_pt2)):
        if path:
            content, run = convert(program, metadata, model.inputs)
            write_checked(path, content, largest_difference(model, run, cfg.image_size))
    return 0


def describe(cfg: CfgNode, model: Deployed, checkpoint: Path) -> dict[str, object]:
    """The metadata of an exported file: how to prepare images, and what the file was made from."""
    with torch.inference_mode():
        dimensions = model(*model.random_inputs(1, cfg.image_size)).shape[1]
    return {
        "input": INPUT,
        "input_dtype": "uint8",
        "input_layout": "batch, channel, height, width",
        "image_size": list(cfg.image_size),
        "channels": "RGB",
        "resize": RESIZES[cfg.resize],
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "normalised_in_graph": True,
        "output": OUTPUT,
        "embedding_size": dimensions,
        "l2_normalised": True,
        "dataset": cfg.dataset,
        "backbone": cfg.backbone,
        "checkpoint": checkpoint.name,
        "checkpoint_sha256": hashlib.sha256(checkpoint.read_bytes()).hexdigest(),
        "commit": commit(),
        "torch": torch.__version__,
    }


def trace(model: Deployed, image_size: tuple[int, int]) -> ExportedProgram:
    """The graph of ``model`` for batches of any size."""
    inputs, dynamic = model.random_inputs(TRACED_BATCH, image_size), dict.fromkeys(model.inputs, BATCH)
    with torch.no_grad():
        program = torch.export.export(model, inputs, dynamic_shapes=dynamic)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # paths of this machine, which would be written into the file
    return program


def to_onnx(program: ExportedProgram, metadata: str, inputs: Sequence[str]) -> tuple[bytes, Run]:
    """The content of an ONNX file, and a function that runs it with onnxruntime."""
    with optional_packages():
        import onnxruntime
        import onnxscript  # noqa: F401 - torch.onnx needs it

    dynamic = dict.fromkeys(inputs, BATCH)
    exported = torch.onnx.export(
        program, dynamo=True, input_names=inputs, output_names=[OUTPUT], dynamic_shapes=dynamic, verbose=False
    )
    assert exported is not None
    proto = exported.model_proto
    proto.metadata_props.add(key=METADATA, value=metadata)
    content = proto.SerializeToString()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])

    def run(*values: Tensor) -> Tensor:
        named = zip(inputs, (value.numpy() for value in values), strict=True)
        return torch.from_numpy(session.run([OUTPUT], dict(named))[0])

    return content, run


def to_pt2(program: ExportedProgram, metadata: str, inputs: Sequence[str]) -> tuple[bytes, Run]:
    """The content of a file of ``torch.export.save``, and a function that runs it after it was loaded again."""
    file = io.BytesIO()
    torch.export.save(program, file, extra_files={METADATA: metadata})
    content = file.getvalue()
    return content, torch.export.load(io.BytesIO(content)).module()


def largest_difference(model: Deployed, run: Run, image_size: tuple[int, int]) -> float:
    """Largest absolute difference of the embeddings of random images; NaN if any of them is NaN."""
    with torch.inference_mode():
        batches = [model.random_inputs(size, image_size) for size in CHECKED_BATCHES]
        return float(torch.cat([run(*inputs) - model(*inputs) for inputs in batches]).abs().max())


def write_checked(path: Path, content: bytes, difference: float) -> None:
    """Write an exported file and print how far its embeddings are from PyTorch's.

    Raises:
        UserError: they are too far; the file is not written.
    """
    batches = " and ".join(map(str, CHECKED_BATCHES))
    found = f"largest difference from PyTorch {difference:.1e} (batches of {batches} random images)"
    if not difference <= TOLERANCE:  # NaN, too
        raise UserError(f"{path}: not written: {found}, above {TOLERANCE}; try another version of torch or onnxruntime")
    write_atomically(path, lambda file: file.write(content))
    print(f"{path}: {len(content) / 1e6:.1f} MB, {found}")


def random_images(count: int, image_size: tuple[int, int]) -> Tensor:
    """Noise, always the same: uint8 (count, 3, H, W)."""
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, *image_size), dtype=torch.uint8, generator=generator)


if __name__ == "__main__":
    sys.exit(run_program(main))
