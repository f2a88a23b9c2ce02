"""What only a CUDA GPU can show; skipped where there is none."""

import pytest
import torch
from test_trainer import losses_of, make_training

from engine.precision import TorchPrecision
from losses.soft_rank import soft_rank
from models import MCJA

pytestmark = pytest.mark.gpu


def on_gpu(**options):
    training = make_training()
    training.device = torch.device("cuda")
    training.model.cuda()
    training.optimizer = torch.optim.Adam(training.model.parameters(), lr=0.01, fused=True)
    training.precision = TorchPrecision(training.device, **options)
    return training


@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-3), (torch.float16, 0.05), (torch.bfloat16, 0.05)])
def test_curves_agree_with_the_cpu(dtype, tolerance):
    assert losses_of(on_gpu(dtype=dtype)) == pytest.approx(losses_of(make_training()), rel=tolerance)


def test_embeddings_agree_with_the_cpu():
    torch.backends.cudnn.allow_tf32 = False
    model = MCJA(5, backbone="resnet18").eval()
    images = torch.randn(4, 3, 96, 48)
    with torch.no_grad():
        torch.testing.assert_close(model.cuda()(images.cuda()).cpu(), model.cpu()(images), rtol=1e-3, atol=1e-3)


def test_soft_ranks_agree_with_the_cpu():
    values = torch.rand(6, 50)
    torch.testing.assert_close(soft_rank(values.cuda()).cpu(), soft_rank(values, backend="builtin"), rtol=0, atol=1e-3)
