"""The names and signatures that other people's trainer and dataset files rely on."""

import importlib
import inspect

import pytest

# Name → parameters as upstream has them; ours may only add optional ones after them.
FUNCTIONS = {
    "dassl.engine.build_trainer": "cfg",
    "dassl.data.DataManager": "cfg, custom_tfm_train=None, custom_tfm_test=None, "
    "dataset_wrapper=None",
    "dassl.data.DatasetWrapper": "cfg, data_source, transform=None, is_train=False",
    "dassl.data.build_data_loader": "cfg, sampler_type='SequentialSampler', data_source=None, "
    "batch_size=64, n_domain=0, n_ins=2, tfm=None, is_train=True, dataset_wrapper=None",
    "dassl.data.data_manager.build_data_loader": "cfg",
    "dassl.data.datasets.Datum": "impath='', label=0, domain=0, classname=''",
    "dassl.data.datasets.DatasetBase": "train_x=None, train_u=None, val=None, test=None",
    "dassl.data.datasets.build_dataset": "cfg",
    "dassl.data.samplers.build_sampler": "sampler_type, cfg=None, data_source=None, "
    "batch_size=32, n_domain=0, n_ins=16",
    "dassl.data.samplers.RandomDomainSampler": "data_source, batch_size, n_domain=0",
    "dassl.data.samplers.SeqDomainSampler": "data_source, batch_size",
    "dassl.data.samplers.RandomClassSampler": "data_source, batch_size, n_ins",
    "dassl.data.transforms.build_transform": "cfg, is_train=True, choices=None",
    "dassl.evaluation.EvaluatorBase": "cfg",
    "dassl.evaluation.Classification": "cfg, lab2cname=None",
    "dassl.evaluation.build_evaluator": "cfg, **kwargs",
    "dassl.optim.build_optimizer": "model, optim_cfg, param_groups=None",
    "dassl.optim.build_lr_scheduler": "optimizer, optim_cfg",
    "dassl.optim.radam.RAdam": "params, lr=0.001, betas=(0.9, 0.999), eps=1e-08, weight_decay=0, "
    "degenerated_to_sgd=True",
    "dassl.modeling.ops.mixup": "x1, x2, y1, y2, beta, preserve_order=False",
    "dassl.modeling.ops.utils.sharpen_prob": "p, temperature=2",
    "dassl.modeling.ops.utils.create_onehot": "label, num_classes",
    "dassl.modeling.ops.utils.sigmoid_rampup": "current, rampup_length",
    "dassl.modeling.ops.utils.linear_rampup": "current, rampup_length",
    "dassl.modeling.ops.utils.ema_model_update": "model, ema_model, alpha",
    "dassl.utils.open_all_layers": "model",
    "dassl.utils.open_specified_layers": "model, open_layers",
    "dassl.utils.init_network_weights": "model, init_type='normal', gain=0.02",
    "dassl.utils.tools.download_url": "url, dst, from_gdrive=False",
    "dassl.metrics.compute_accuracy": "output, target, topk=(1,)",
    "dassl.config.get_cfg_default": "",
    "dassl.config.clean_cfg": "cfg, trainer",
    "dassl.utils.Registry": "name",
    "dassl.utils.check_availability": "requested, available",
    "dassl.utils.load_checkpoint": "fpath",
    "dassl.utils.save_checkpoint": "state, save_dir, is_best=False, "
    "remove_module_from_keys=True, model_name=''",
    "dassl.utils.resume_from_checkpoint": "fdir, model, optimizer=None, scheduler=None",
    "dassl.utils.load_pretrained_weights": "model, weight_path",
    "dassl.utils.setup_logger": "output=None",
    "dassl.utils.set_random_seed": "seed",
    "dassl.utils.collect_env_info": "",
    "dassl.utils.count_num_param": "model=None, params=None",
    "dassl.utils.mkdir_if_missing": "dirname",
    "dassl.utils.listdir_nohidden": "path",  # upstream leaves them unsorted
    "dassl.utils.check_isfile": "fpath",
    "dassl.utils.read_json": "fpath",
    "dassl.utils.write_json": "obj, fpath",
    "dassl.utils.read_image": "path",
    "dassl.utils.tolist_if_not": "x",
    "dassl.utils.MetricMeter": "delimiter=' '",
    "dassl.utils.AverageMeter": "ema=False",
    "dassl.engine.SimpleTrainer": "cfg",
    "dassl.engine.TrainerX": "cfg",
    "dassl.engine.TrainerXU": "cfg",
    "dassl.engine.TrainerBase": "",
}
METHODS = {
    "register_model": "name='model', model=None, optim=None, sched=None",
    "get_model_names": "names=None",
    "save_model": "epoch, directory, is_best=False, val_result=None, model_name=''",
    "resume_model_if_exist": "directory",
    "load_model": "directory, epoch=None",
    "set_model_mode": "mode='train', names=None",
    "update_lr": "names=None",
    "get_current_lr": "names=None",
    "detect_anomaly": "loss",
    "init_writer": "log_dir",
    "close_writer": "",
    "write_scalar": "tag, scalar_value, global_step=None",
    "train": "",
    "before_train": "",
    "after_train": "",
    "before_epoch": "",
    "after_epoch": "",
    "run_epoch": "",
    "test": "split=None",
    "parse_batch_train": "batch",
    "parse_batch_test": "batch",
    "forward_backward": "batch",
    "model_inference": "input",
    "model_zero_grad": "names=None",
    "model_backward": "loss",
    "model_update": "names=None",
    "model_backward_and_update": "loss, names=None",
    "check_cfg": "cfg",
    "build_data_loader": "",
    "build_model": "",
}
REGISTRIES = (
    "dassl.engine.TRAINER_REGISTRY",
    "dassl.data.datasets.DATASET_REGISTRY",
    "dassl.evaluation.EVALUATOR_REGISTRY",
)


def resolve(name: str):
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


def parameters(callable_: object) -> list[str]:
    """Returns ["a", "b=1", ...] without self and annotations."""
    found = inspect.signature(callable_).parameters.values()
    own = [str(p.replace(annotation=inspect.Parameter.empty)) for p in found if p.name != "self"]
    return [part for part in ", ".join(own).split(", ") if part]  # a default may hold commas


def check(ours: list[str], upstream: str) -> None:
    wanted = [w for w in upstream.split(", ") if w]
    assert ours[: len(wanted)] == wanted
    assert all("=" in extra or extra.startswith("*") for extra in ours[len(wanted) :])


@pytest.mark.parametrize(("name", "upstream"), FUNCTIONS.items())
def test_function(name: str, upstream: str):
    ours = parameters(resolve(name))
    if name.endswith("data_manager.build_data_loader"):
        ours = ours[:1]
    check(ours, upstream)


@pytest.mark.parametrize(("name", "upstream"), METHODS.items())
def test_hook_of_a_trainer(name: str, upstream: str):
    check(parameters(getattr(resolve("dassl.engine.TrainerX"), name)), upstream)


@pytest.mark.parametrize("name", REGISTRIES)
def test_registry(name: str):
    registry = resolve(name)
    check(parameters(registry.register), "obj=None, force=False")
    check(parameters(registry.get), "name")
    assert registry.registered_names() == list(dict.fromkeys(registry.registered_names()))


def test_templates_and_loader_stay_where_trainers_look_for_them():
    assert callable(resolve("trainers.coop.load_clip_to_cpu"))
    assert len(resolve("trainers.imagenet_templates.IMAGENET_TEMPLATES")) == 80
    assert len(resolve("trainers.imagenet_templates.IMAGENET_TEMPLATES_SELECT")) == 7
