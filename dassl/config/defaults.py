"""Every setting that the engine knows, with its default. Trainers add theirs in `extend_cfg`."""

from __future__ import annotations

from yacs.config import CfgNode as CN

from dassl.config.node import Config, mark_not_determining

_C = Config()
_C.VERSION = 1

_C.OUTPUT_DIR = "./output"  # log, checkpoints and results of the run
_C.RESUME = ""  # output folder of an interrupted run to continue; empty: start anew
_C.SEED = -1  # seeds Python, numpy and torch; negative: not seeded
_C.USE_CUDA = True  # use a GPU if there is one
_C.VERBOSE = True  # print a summary of the dataset and the model

# --- Images -------------------------------------------------------------------------------------
_C.INPUT = CN()
_C.INPUT.SIZE = (224, 224)  # height, width
_C.INPUT.INTERPOLATION = "bilinear"  # bilinear, bicubic, nearest
_C.INPUT.TRANSFORMS = ()  # names, see dassl.data.transforms
_C.INPUT.NO_TRANSFORM = False  # hand PIL images on untouched
_C.INPUT.PIXEL_MEAN = [0.485, 0.456, 0.406]  # ImageNet's
_C.INPUT.PIXEL_STD = [0.229, 0.224, 0.225]
_C.INPUT.CROP_PADDING = 4  # random_crop
_C.INPUT.RRCROP_SCALE = (0.08, 1.0)  # random_resized_crop: share of the area
_C.INPUT.CUTOUT_N = 1  # cutout: number of holes
_C.INPUT.CUTOUT_LEN = 16  # cutout: side in pixels
_C.INPUT.GN_MEAN = 0.0  # gaussian_noise
_C.INPUT.GN_STD = 0.15
_C.INPUT.RANDAUGMENT_N = 2  # number of operations
_C.INPUT.RANDAUGMENT_M = 10  # strength
_C.INPUT.COLORJITTER_B = 0.4  # brightness
_C.INPUT.COLORJITTER_C = 0.4  # contrast
_C.INPUT.COLORJITTER_S = 0.4  # saturation
_C.INPUT.COLORJITTER_H = 0.1  # hue
_C.INPUT.RGS_P = 0.2  # randomgrayscale: probability
_C.INPUT.GB_P = 0.5  # gaussian_blur: probability
_C.INPUT.GB_K = 21  # gaussian_blur: kernel size

# --- Datasets -----------------------------------------------------------------------------------
_C.DATASET = CN()
_C.DATASET.ROOT = ""  # folder that holds all datasets
_C.DATASET.NAME = ""  # a name in DATASET_REGISTRY
_C.DATASET.SOURCE_DOMAINS = ()  # for datasets with domains
_C.DATASET.TARGET_DOMAINS = ()
_C.DATASET.NUM_LABELED = -1  # semi-supervised datasets: labelled images in all
_C.DATASET.NUM_SHOTS = -1  # training images per class; below 1: all
_C.DATASET.VAL_PERCENT = 0.1  # share of the training set held out, where a dataset does so
_C.DATASET.STL10_FOLD = -1
_C.DATASET.CIFAR_C_TYPE = ""
_C.DATASET.CIFAR_C_LEVEL = 1
_C.DATASET.ALL_AS_UNLABELED = False  # train_u: labelled images as well

# --- Loading ------------------------------------------------------------------------------------
_C.DATALOADER = CN()
# Streams of random numbers that training views are drawn from, as many as upstream has processes
# (dassl.data.workers): it changes the draws. 0: the views are drawn by the main process.
_C.DATALOADER.NUM_WORKERS = 4
_C.DATALOADER.PROCESSES = 0  # at most so many processes carry the streams; 0: one a core
# MiB of decoded training images kept in memory; 0: none; -1: a quarter of what is free, at most
# 16 GiB. A sweep divides it among the runs that it does at once.
_C.DATALOADER.CACHE_MB = -1
_C.DATALOADER.K_TRANSFORMS = 1  # random views of each training image
_C.DATALOADER.RETURN_IMG0 = False  # also hand on the image without augmentation
_C.DATALOADER.TRAIN_X = CN()
_C.DATALOADER.TRAIN_X.SAMPLER = "RandomSampler"
_C.DATALOADER.TRAIN_X.BATCH_SIZE = 32
_C.DATALOADER.TRAIN_X.N_DOMAIN = 0  # domains in a batch, for RandomDomainSampler
_C.DATALOADER.TRAIN_X.N_INS = 16  # images of a class in a batch, for RandomClassSampler
_C.DATALOADER.TRAIN_U = CN()
_C.DATALOADER.TRAIN_U.SAME_AS_X = True  # use TRAIN_X's settings
_C.DATALOADER.TRAIN_U.SAMPLER = "RandomSampler"
_C.DATALOADER.TRAIN_U.BATCH_SIZE = 32
_C.DATALOADER.TRAIN_U.N_DOMAIN = 0
_C.DATALOADER.TRAIN_U.N_INS = 16
_C.DATALOADER.TEST = CN()
_C.DATALOADER.TEST.SAMPLER = "SequentialSampler"
_C.DATALOADER.TEST.BATCH_SIZE = 32

# --- Model --------------------------------------------------------------------------------------
_C.MODEL = CN()
_C.MODEL.INIT_WEIGHTS = ""  # weights to start training from
_C.MODEL.BACKBONE = CN()
_C.MODEL.BACKBONE.NAME = ""
_C.MODEL.BACKBONE.PATH = ""  # a local weights file, instead of the download that NAME stands for
_C.MODEL.BACKBONE.PRETRAINED = True
_C.MODEL.HEAD = CN()
_C.MODEL.HEAD.NAME = ""
_C.MODEL.HEAD.HIDDEN_LAYERS = ()
_C.MODEL.HEAD.ACTIVATION = "relu"
_C.MODEL.HEAD.BN = True
_C.MODEL.HEAD.DROPOUT = 0.0

# --- Optimisation -------------------------------------------------------------------------------
_C.OPTIM = CN()
_C.OPTIM.NAME = "adam"  # see dassl.optim
_C.OPTIM.LR = 0.0003
_C.OPTIM.WEIGHT_DECAY = 5e-4
_C.OPTIM.MOMENTUM = 0.9
_C.OPTIM.SGD_DAMPNING = 0  # upstream's spelling; config files use it
_C.OPTIM.SGD_NESTEROV = False
_C.OPTIM.RMSPROP_ALPHA = 0.99
_C.OPTIM.ADAM_BETA1 = 0.9
_C.OPTIM.ADAM_BETA2 = 0.999
_C.OPTIM.STAGED_LR = False  # layers that are not in NEW_LAYERS get LR * BASE_LR_MULT
_C.OPTIM.NEW_LAYERS = ()
_C.OPTIM.BASE_LR_MULT = 0.1
_C.OPTIM.LR_SCHEDULER = "single_step"  # single_step, multi_step, cosine
_C.OPTIM.STEPSIZE = (-1,)  # epochs
_C.OPTIM.GAMMA = 0.1
_C.OPTIM.MAX_EPOCH = 10
_C.OPTIM.WARMUP_EPOCH = -1  # above 0: warm up for that many epochs
_C.OPTIM.WARMUP_TYPE = "linear"  # linear, constant
_C.OPTIM.WARMUP_CONS_LR = 1e-5  # rate while a constant warm-up lasts
_C.OPTIM.WARMUP_MIN_LR = 1e-5  # rate at which a linear warm-up starts
_C.OPTIM.WARMUP_RECOUNT = True  # the scheduler counts its epochs from the end of the warm-up

# --- Training -----------------------------------------------------------------------------------
_C.TRAIN = CN()
_C.TRAIN.CHECKPOINT_FREQ = 0  # keep the model of every so many epochs; 0, -1: of the last alone
_C.TRAIN.CHECKPOINT_SECONDS = 60.0  # between two states to --resume from; 0: at signals alone
_C.TRAIN.PRINT_FREQ = 10  # batches between two log lines
_C.TRAIN.COUNT_ITER = "train_x"  # train_x, train_u, smaller_one: what an epoch of TrainerXU is
# Weights & Biases beside TensorBoard (dassl.engine.wandb_writer); needs `pip install wandb`.
_C.TRAIN.WANDB = CN()
_C.TRAIN.WANDB.PROJECT = ""  # empty: off
_C.TRAIN.WANDB.ENTITY = ""  # user or team; empty: your own
_C.TRAIN.WANDB.NAME = ""  # of the run; empty: as the output folder is called
_C.TRAIN.WANDB.GROUP = ""  # runs that belong together; a sweep sets it, and the next, by itself
_C.TRAIN.WANDB.JOB_TYPE = ""
_C.TRAIN.WANDB.MODE = ""  # online, offline, disabled; empty: as the variable WANDB_MODE says

# --- Evaluation ---------------------------------------------------------------------------------
_C.TEST = CN()
_C.TEST.EVALUATOR = "Classification"
_C.TEST.PER_CLASS_RESULT = False
_C.TEST.COMPUTE_CMAT = False  # save the confusion matrix to OUTPUT_DIR/cmat.pt
# Also write predictions.csv, confusion.csv and confused.png (dassl.evaluation.error_analysis)
_C.TEST.ERROR_ANALYSIS = False
_C.TEST.NO_TEST = False  # skip the evaluation after training
_C.TEST.SPLIT = "test"  # test, val
_C.TEST.FINAL_MODEL = "last_step"  # last_step, best_val: the model evaluated after training

# --- Trainers add their own settings here ---------------------------------------------------------
_C.TRAINER = CN()
_C.TRAINER.NAME = ""

mark_not_determining(
    _C,
    *("OUTPUT_DIR", "RESUME", "VERBOSE", "USE_CUDA", "DATASET.ROOT"),
    *("DATALOADER.PROCESSES", "DATALOADER.CACHE_MB", "TRAIN.CHECKPOINT_FREQ", "TRAIN.PRINT_FREQ"),
    *("TRAIN.CHECKPOINT_SECONDS", "TRAIN.WANDB", "TEST.ERROR_ANALYSIS"),
)


def get_cfg_default() -> Config:
    """Returns a fresh copy of the defaults."""
    return _C.clone()
