"""Every configuration key with its type, default and meaning.

Keys before "beyond the released code" have the released names, meanings and defaults. The data set's own defaults,
``DATASETS[name].defaults``, replace those of the keys marked "default: the data set's".
"""

from yacs.config import CfgNode

strategy_cfg = CfgNode()

strategy_cfg.prefix = "SYSU"  # start of the name of the run folder

# data set
strategy_cfg.dataset = "sysu"  # sysu | regdb
strategy_cfg.data_root = ""  # folder of the unpacked data set; default: the data set's
strategy_cfg.num_id = 0  # training identities, one class each; default: the data set's
strategy_cfg.num_cam = 0  # cameras; default: the data set's

# images
strategy_cfg.image_size = (384, 128)  # (height, width) in pixels
strategy_cfg.random_flip = True  # mirror with probability 0.5
strategy_cfg.random_crop = True  # pad by `padding` with grey 127, then crop the original size at a random position
strategy_cfg.random_erase = True  # erase a random rectangle with probability 0.5
strategy_cfg.color_jitter = True  # hue jitter of +-0.2 as one of the four modality augmentations
strategy_cfg.padding = 10  # pixels of padding before the random crop
strategy_cfg.vimc_wg = True  # weighted grayscale as one of the four
strategy_cfg.vimc_cc = True  # channel cutmix as one of the four
strategy_cfg.vimc_sj = True  # spectrum jitter as one of the four

# batches
strategy_cfg.sample_method = "norm_triplet"  # a name in data/samplers.py: SAMPLERS
strategy_cfg.p_size = 8  # identities per batch
strategy_cfg.k_size = 16  # images per identity in a batch
strategy_cfg.batch_size = 128  # images per batch, for samplers that do not draw identities

# model
strategy_cfg.drop_last_stride = False  # stride 1 instead of 2 in the last stage
strategy_cfg.mda_ratio = 2  # no effect, as in the released code; kept so that its files load
strategy_cfg.mda_m = 2  # attention maps per Modality Distribution Adapter

# losses
strategy_cfg.loss_id = True  # cross-entropy on identities, weight 1
strategy_cfg.loss_cmr = True  # cross-modality retrieval loss, weight 1

# optimisation
strategy_cfg.lr = 0.00035  # Adam's learning rate
strategy_cfg.wd = 0.0005  # weight decay on all parameters
strategy_cfg.num_epoch = 140  # epochs to train
strategy_cfg.lr_step = [80, 120]  # multiply the learning rate by 0.1 after these epochs
strategy_cfg.fp16 = True  # mixed precision on a CUDA GPU; a CPU always computes in float32

# run
strategy_cfg.start_eval = 0  # no evaluation during training before this epoch
strategy_cfg.eval_interval = 1  # epochs between evaluations; 0: none during training
strategy_cfg.log_period = 10  # iterations between log lines
strategy_cfg.resume = ""  # checkpoint to test (with `test_only`) or to start training from; only its weights are loaded
strategy_cfg.test_only = False  # test `resume` without training

# re-ranking: Multi-Spectral Enhanced Ranking (MSER)
strategy_cfg.mser = True  # report results with MSER too
strategy_cfg.mser_k1 = 0  # size of the k-reciprocal neighbourhood; default: the data set's
strategy_cfg.mser_k2 = 0  # neighbours that are averaged, 1: no averaging; default: the data set's
strategy_cfg.mser_lambda = 0.0  # weight of the original distance; default: the data set's

# beyond the released code
strategy_cfg.backbone = "resnet50"  # resnet50 | resnet34 | resnet18 | resnet10; the smaller ones are for demo and tests
strategy_cfg.pretrained = "imagenet"  # imagenet | none | file with a torchvision state dict of the backbone
strategy_cfg.num_workers = 4  # loader processes (12 for a fast GPU without a cache); does not change results
strategy_cfg.cache = "none"  # none | disk | device: where decoded images are cached; does not change results
strategy_cfg.cache_dir = ""  # folder of the cache files, which `cache device` reads, too; empty: <output_dir>/cache
strategy_cfg.skip_unreadable = False  # decode all training images at the start and leave unreadable ones out
strategy_cfg.test_batch_size = 128  # images per forward pass in testing; changes results at most by rounding
strategy_cfg.output_dir = "ckptlog"  # the run folder is <output_dir>/<dataset>/<run name>
strategy_cfg.checkpoint_minutes = 10.0  # minutes between training states; 0: only at the end of each epoch
strategy_cfg.save_features = False  # save the final test's features in the run folder, for tools.score
strategy_cfg.trial = 1  # RegDB: split 1 to 10
strategy_cfg.cutmix_region = "released"  # released (height and width swapped, as published) | full (the whole image)
strategy_cfg.soft_rank = "auto"  # auto (torchsort on the CPU if installed, else builtin) | torchsort | builtin
strategy_cfg.amp_dtype = "float16"  # float16 (with loss scaling) | bfloat16 (testing is in float32 then)
strategy_cfg.amp_backend = "torch"  # torch | apex (needs an NVIDIA apex that still has apex.amp)
strategy_cfg.compile = False  # compile model and losses into one graph: slow first step, then faster steps on a GPU
strategy_cfg.deterministic = False  # deterministic algorithms where they exist (slower on a GPU)
