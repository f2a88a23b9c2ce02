"""Every configuration key with its default. The comment behind a key is its meaning.

Keys above the line "beyond the released code" carry the released names, meanings and defaults. Keys whose default
depends on the data set stand in ``dataset.py``.
"""

from yacs.config import CfgNode

strategy_cfg = CfgNode()

strategy_cfg.prefix = "SYSU"  # first part of the run folder's name
strategy_cfg.dataset = "sysu"  # sysu | regdb

# images
strategy_cfg.image_size = (384, 128)  # (height, width) in pixels
strategy_cfg.random_flip = True  # mirror with probability 0.5
strategy_cfg.random_crop = True  # pad by `padding` with grey 127, crop back at a random place
strategy_cfg.random_erase = True  # erase a random rectangle with probability 0.5
strategy_cfg.color_jitter = True  # hue jitter of +-0.2 as one of the four modality augmentations
strategy_cfg.padding = 10  # pixels of padding before the random crop
strategy_cfg.vimc_wg = True  # weighted grayscale as one of the four
strategy_cfg.vimc_cc = True  # channel cutmix as one of the four
strategy_cfg.vimc_sj = True  # spectrum jitter as one of the four

# batches
strategy_cfg.sample_method = "norm_triplet"  # see data/samplers.py for the choices
strategy_cfg.p_size = 8  # identities per batch
strategy_cfg.k_size = 16  # images per identity in a batch
strategy_cfg.batch_size = 128  # for the samplers that do not draw identities

# model
strategy_cfg.drop_last_stride = False  # stride 1 instead of 2 in the last stage
strategy_cfg.mda_ratio = 2  # kept for released files; has no effect, as released
strategy_cfg.mda_m = 2  # attention maps per Modality Distribution Adapter

# losses
strategy_cfg.loss_id = True  # cross-entropy on identities
strategy_cfg.loss_cmr = True  # cross-modality retrieval loss

# optimisation
strategy_cfg.lr = 0.00035  # Adam's learning rate
strategy_cfg.wd = 0.0005  # weight decay on all parameters
strategy_cfg.num_epoch = 140  # epochs to train
strategy_cfg.lr_step = [80, 120]  # the learning rate is multiplied by 0.1 when so many epochs are completed
strategy_cfg.fp16 = True  # mixed precision; on a CUDA GPU only, a CPU always computes in float32

# course of a run
strategy_cfg.start_eval = 0  # no evaluation during training before this epoch
strategy_cfg.eval_interval = 1  # epochs between evaluations; 0 never evaluates during training
strategy_cfg.log_period = 10  # iterations between log lines
strategy_cfg.resume = ""  # checkpoint: tested with `test_only`, else the weights that training starts from
strategy_cfg.mser = True  # test with Multi-Spectral Enhanced Ranking, too
strategy_cfg.test_only = False  # test `resume` and do not train

# beyond the released code
strategy_cfg.backbone = "resnet50"  # resnet50 | resnet34 | resnet18 | resnet10; all but resnet50 serve demo and tests
strategy_cfg.pretrained = "imagenet"  # imagenet | none | path of a torchvision state dict of the backbone
strategy_cfg.num_workers = 4  # loader processes; changes no result
strategy_cfg.cache = "none"  # none | disk | memory | device: where decoded images are kept; changes no result
strategy_cfg.cache_dir = ""  # folder of the cache's files; empty: <output_dir>/cache
strategy_cfg.skip_unreadable = False  # leave training images that cannot be read out, after trying all at the start
strategy_cfg.test_batch_size = 128  # images per forward pass in testing; changes no result
strategy_cfg.output_dir = "ckptlog"  # runs go to <output_dir>/<dataset>/<run name>
strategy_cfg.checkpoint_minutes = 10.0  # between training states within an epoch; 0: only at the ends of epochs
strategy_cfg.save_features = False  # keep the final test's features in the run folder, for tools.score
strategy_cfg.trial = 1  # RegDB: which of the ten splits, 1 to 10
strategy_cfg.cutmix_region = "released"  # released: height and width swapped, as published | full: the whole image
strategy_cfg.soft_rank = "auto"  # auto: torchsort on a CPU that has it, else builtin | torchsort | builtin
strategy_cfg.amp_dtype = "float16"  # float16 (with loss scaling) | bfloat16
strategy_cfg.amp_backend = "torch"  # torch | apex (only with an NVIDIA apex that still has apex.amp)
strategy_cfg.compile = False  # compile model and losses to one graph; a slow first step, then faster ones on a GPU
strategy_cfg.deterministic = False  # ask torch for deterministic algorithms only (slower on a GPU)
