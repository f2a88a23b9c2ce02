"""Every configuration key with its type, default and meaning.

Keys before "beyond the released code" have the released names, meanings and defaults. The data set's own defaults,
``DATASETS[name].defaults``, replace those of the keys marked "default: the data set's".
"""

from yacs.config import CfgNode

strategy_cfg = CfgNode()

strategy_cfg.prefix = "SYSU"  # start of the name of the run folder

# data set
strategy_cfg.dataset = "sysu"  # sysu | regdb | llcm
strategy_cfg.data_root = ""  # folder of the unpacked data set; default: the data set's
strategy_cfg.num_id = 0  # training identities, one class each; default: the data set's
strategy_cfg.num_cam = 0  # cameras (devices); default: the data set's

# images
strategy_cfg.image_size = (384, 128)  # (height, width) in pixels
strategy_cfg.random_flip = True  # mirror with probability 0.5
strategy_cfg.random_crop = True  # pad by `padding` with padding_value, then crop the original size at a random position
strategy_cfg.random_erase = True  # erase a random rectangle with probability erase_p
strategy_cfg.color_jitter = True  # hue jitter of +-hue_range as one of the four modality augmentations
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
strategy_cfg.mda_m = 2  # of model mcja: attention maps per Modality Distribution Adapter

# losses
strategy_cfg.loss_id = True  # cross-entropy on identities
strategy_cfg.loss_cmr = True  # cross-modality retrieval loss

# optimisation
strategy_cfg.lr = 0.00035  # learning rate
strategy_cfg.wd = 0.0005  # weight decay on all parameters
strategy_cfg.num_epoch = 140  # epochs to train
strategy_cfg.lr_step = [80, 120]  # multiply the learning rate by lr_decay after these epochs
strategy_cfg.fp16 = True  # mixed precision on a CUDA GPU; a CPU always computes in float32

# run
strategy_cfg.start_eval = 0  # no evaluation during training before this epoch
strategy_cfg.eval_interval = 1  # epochs between evaluations; 0: none during training
strategy_cfg.log_period = 10  # iterations between log lines
strategy_cfg.resume = ""  # checkpoint to test (with `test_only`) or to start training from; only its weights are loaded
strategy_cfg.test_only = False  # test `resume` without training

# re-ranking: Multi-Spectral Enhanced Ranking (MSER)
strategy_cfg.mser = True  # report results with MSER too; default on LLCM: false
strategy_cfg.mser_k1 = 0  # size of the k-reciprocal neighbourhood; default: the data set's
strategy_cfg.mser_k2 = 0  # neighbours that are averaged, 1: no averaging; default: the data set's
strategy_cfg.mser_lambda = 0.0  # weight of the original distance; default: the data set's

# beyond the released code: other methods and ablations; the defaults are the released method
strategy_cfg.model = "mcja"  # mcja | agw: a name in models: MODELS
strategy_cfg.backbone = "resnet50"  # a name in models/resnet.py: BACKBONES; resnet10 and 18 are for demo and tests
strategy_cfg.pretrained = "imagenet"  # imagenet | none | file with a torchvision state dict of the backbone
strategy_cfg.mda_layers = [0, 2, 3, 0]  # of model mcja: how many last blocks of each stage an adapter follows; 0: none
strategy_cfg.non_local_channels = 1  # of model agw: inner channels of the non-local blocks; 0: no blocks
strategy_cfg.pooling = "gem"  # gem (generalised mean) | avg
strategy_cfg.gem_power = 3.0  # power of gem; 1 is the mean
strategy_cfg.weight_id = 1.0  # weight of loss_id
strategy_cfg.label_smoothing = 0.0  # of loss_id, 0 to 1
strategy_cfg.weight_cmr = 1.0  # weight of loss_cmr
strategy_cfg.cmr_strength = 0.5  # strength of the soft rank; the smaller, the closer to the true ranks
strategy_cfg.cmr_direction = "both"  # both | visible_to_infrared | infrared_to_visible: which images are queries of CMR
strategy_cfg.loss_triplet = "none"  # none, or a name in losses: TRIPLETS; on the features before the neck
strategy_cfg.weight_triplet = 1.0  # weight of loss_triplet
strategy_cfg.margin = 0.3  # of loss_triplet; not used by weighted and weighted_exact
strategy_cfg.vimc_p = 0.5  # probability of the modality augmentation that is drawn for a visible image
strategy_cfg.hue_range = 0.2  # largest shift of color_jitter, as a fraction of the hue circle, 0 to 0.5
strategy_cfg.cutmix_region = "released"  # released (height and width swapped, as published) | full (the whole image)
strategy_cfg.cutmix_area = [0.02, 0.33]  # smallest and largest rectangle of vimc_cc, as a fraction of the image
strategy_cfg.erase_p = 0.5  # probability of random_erase
strategy_cfg.erase_area = [0.02, 0.3]  # smallest and largest rectangle of random_erase, as a fraction of the image
strategy_cfg.resize = "bilinear"  # bilinear | lanczos: filter (of Pillow) by which images are resized
strategy_cfg.padding_value = 127  # grey level of the padding before the random crop, 0 to 255
strategy_cfg.optimizer = "adam"  # adam | sgd (momentum 0.9, Nesterov)
strategy_cfg.backbone_lr_factor = 1.0  # factor of the learning rate for all parameters but those of neck and classifier
strategy_cfg.lr_decay = 0.1  # factor of the learning rate after each epoch of lr_step
strategy_cfg.warmup_epochs = 0  # in epoch e of these, the learning rate is multiplied by e / warmup_epochs
strategy_cfg.select_by = "rank1"  # rank1 | mAP: metric of the best model; last: the last model is the best
strategy_cfg.mser_spectra = ["original", "red", "green", "blue"]  # of visible images; [original]: k-reciprocal alone

# beyond the released code: the run
strategy_cfg.num_workers = 4  # loader processes (12 for a fast GPU without a cache); does not change results
strategy_cfg.cache = "none"  # none | disk | device: where decoded images are cached; does not change results
strategy_cfg.cache_dir = ""  # folder of the cache files, which `cache device` reads, too; empty: <output_dir>/cache
strategy_cfg.skip_unreadable = False  # decode all training images at the start and leave unreadable ones out
strategy_cfg.test_batch_size = 128  # images per forward pass in testing; changes results at most by rounding
strategy_cfg.output_dir = "ckptlog"  # the run folder is <output_dir>/<dataset>/<run name>
strategy_cfg.checkpoint_minutes = 10.0  # minutes between training states; 0: only at the end of each epoch
strategy_cfg.save_features = False  # save the final test's features in the run folder, for tools.score
strategy_cfg.trial = 1  # RegDB: split 1 to 10
strategy_cfg.sysu_gallery = "official"  # official | python: also report SYSU-MM01's 1-shot settings as AGW draws them
strategy_cfg.llcm_visible_search = "paper"  # paper | released: also report LLCM's visible_to_infrared_released
strategy_cfg.llcm_gallery = "sampled"  # sampled | all: also report LLCM's two settings with every image of the gallery
strategy_cfg.soft_rank = "auto"  # auto (torchsort on the CPU if installed, else builtin) | torchsort | builtin
strategy_cfg.amp_dtype = "float16"  # float16 (with loss scaling) | bfloat16 (testing is in float32 then)
strategy_cfg.amp_backend = "torch"  # torch | apex (needs an NVIDIA apex that still has apex.amp)
strategy_cfg.compile = False  # compile model and losses into one graph: slow first step, then faster steps on a GPU
strategy_cfg.deterministic = False  # deterministic algorithms where they exist (slower on a GPU)
