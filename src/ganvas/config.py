"""Every option of a run, once: its type, default, range and meaning. The CLI, the saved file and the docs are made from it."""

import contextlib
import difflib
from collections.abc import Iterator, Mapping
from typing import Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from ganvas.errors import ConfigError
from ganvas.values import Amount, AmountField, Channels, GroupBy, Holdout, ImageSize, ImageSizeField, Transparency

_ALL_READ = ("family", "z_dim", "z_distribution", "g_channels", "d_channels", "d_spectral_norm")
READS = {                                      # of the options of the networks: what a family has a use for, where it is not all
    "mnist28": {*_ALL_READ, "d_slope", "init"},
    "residual": {*_ALL_READ, "g_depth", "d_depth", "g_norm", "conditional"},
}
RESIDUAL_ALONE = ("g_depth", "d_depth", "g_norm", "conditional")

LossName = Literal["nonsaturating", "minimax", "hinge", "least_squares", "relativistic", "wasserstein", "custom"]
GridMode = Literal["train", "eval"]


class Section(BaseModel):
    """Base of the sections: values never change after the check, and a misspelt option is an error, not a default."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    def _without(self, faults: list[str]) -> Self:
        """The section itself, where a check found no faults. Raises ValueError that tells all of them."""
        if faults:
            raise ValueError("\n".join(faults))
        return self


# ---------------------------------------------------------------- the sections


class DataConfig(Section):
    """Which images, and what is made of them before training."""

    source: str = Field("digits", description="folder, archive or file of images; 'digits' is built in")
    tile: ImageSizeField | None = Field(
        None, description="sprite sheets: each picture is cut into tiles of this size; empty ones dropped")
    frames: Literal["first", "all"] = Field("first", description="of animations: the first frame, or each as an image")
    labels: str = Field(
        "none", min_length=1, description="folder = each sub-folder is a class; or FILE[:COLUMN], a .csv, .jsonl or the like; "
        "network.conditional has the networks learn them")
    class_names: tuple[str, ...] = Field((), description="classes that a conditional run knows, in the order of their numbers")
    class_counts: tuple[int, ...] = Field((), description="images of each of them, by which samples' classes are drawn")
    size: ImageSizeField = Field(ImageSize(64, 64), description="size of the images the networks see, width x height")
    channels: Channels = Field(3, description="1 = grey, 3 = colour, 4 = colour and transparency")
    fit: Literal["crop", "pad", "stretch"] = Field(
        "crop", description="how an image of another shape is made to fit: crop, pad or stretch")
    transparency: Transparency = Field(
        "white", description="what shows through: white, black, checker, #rrggbb, or keep (as a fourth channel)")
    native: bool = Field(False, description="pixel art that was enlarged by a whole factor is brought back to its own size first")
    skip_bad: bool = Field(False, description="leave out files that cannot be read, instead of stopping")
    drop_duplicates: bool = Field(False, description="of images with the very same pixels, only the first is trained on")
    holdout: Holdout = Field(
        0.0, description="images kept out of training, to judge by: a share (0.1, 10%) or a number; twins stay together")
    group_by: GroupBy = Field(
        "none", min_length=1, description="what else stays together in the hold-out: folder, or a regular expression on names")
    rotation_degrees: float = Field(0.0, ge=0, le=180, description="each real image turned by up to this much, at random")
    mirror: bool = Field(False, description="half of the real images mirrored left to right, at random")

    @model_validator(mode="after")
    def _classes_are_counted(self) -> "DataConfig":
        if len(self.class_names) != len(self.class_counts) or min(self.class_counts, default=0) < 0:
            raise ValueError(f"data.class_counts: {len(self.class_counts)} of them for {len(self.class_names)} data.class_names; "
                             "each class needs its number of images")
        return self

    @model_validator(mode="after")
    def _transparency_needs_four_channels(self) -> "DataConfig":
        if (self.transparency == "keep") != (self.channels == 4):
            raise ValueError("data.transparency 'keep' and data.channels 4 belong together: set both or neither")
        return self


class NetworkConfig(Section):
    """The two networks: a family, and the switches by which the classic DCGANs differ."""

    family: Literal["dcgan", "mnist28", "residual", "custom"] = Field(
        "dcgan", description="dcgan = the paper's family, any size; mnist28 = unpadded 28x28; residual = the modern "
        "one, as many sizes; custom = your own modules")
    z_dim: int = Field(100, ge=1, le=4096, description="numbers in a latent z")
    z_distribution: Literal["normal", "uniform"] = Field("normal", description="z ~ N(0, 1), or U(-1, 1)")
    g_channels: int = Field(64, ge=1, le=1024, description="maps of G's last hidden layer; doubled towards z, up to 8 times")
    d_channels: int = Field(64, ge=1, le=1024, description="maps of D's first layer; doubled towards the logit, up to 8 times")
    g_depth: int = Field(0, ge=0, le=8, description="residual: blocks of two convolutions at each of G's resolutions")
    d_depth: int = Field(0, ge=0, le=8, description="residual: blocks of two convolutions at each of D's resolutions")
    g_norm: Literal["batch", "none"] = Field("batch", description="residual: batch norm in G, or no norm anywhere")
    conditional: bool = Field(False, description="residual: the networks are told each image's class, from data.labels")
    d_spectral_norm: bool = Field(False, description="D's weights divided by their largest singular value (Miyato et al. 2018)")
    kernel: Literal[4, 5] = Field(4, description="kernel of the stride-2 convolutions")
    padding: Literal["symmetric", "keras_same"] = Field(
        "symmetric", description="keras_same = 'same' as Keras pads at stride 2 (1 before, 2 after), kernel 5 only")
    conv_bias: bool = Field(False, description="biases in the convolutions")
    linear_bias: bool = Field(True, description="biases in the linear layers")
    g_stem: Literal["conv", "linear"] = Field("conv", description="z to the first maps: transposed convolution or linear")
    g_stem_norm: Literal["maps", "units"] = Field(
        "maps", description="batch norm of the stem over each map, or over every unit before the reshape")
    g_stem_slope: float = Field(0.0, ge=0, lt=1, description="negative slope of G's first activation; 0 = ReLU")
    g_slope: float = Field(0.0, ge=0, lt=1, description="negative slope of G's other activations; 0 = ReLU")
    d_slope: float = Field(0.2, ge=0, lt=1, description="negative slope of D's leaky ReLUs")
    d_norm_first: bool = Field(False, description="batch norm in D's first block too")
    d_norm_last: bool = Field(False, description="D's blocks: convolution, activation, then norm")
    d_head: Literal["conv", "linear"] = Field("conv", description="maps to the logit: convolution or flatten + linear")
    bn_eps: float = Field(1e-5, gt=0, description="epsilon of batch norm")
    bn_momentum: float = Field(0.1, gt=0, le=1, description="share of the newest batch in batch norm's running averages")
    bn_running: bool = Field(True, description="keep running averages; off = batch statistics everywhere, samples too")
    init: Literal["dcgan", "all_normal", "gain_zero_mean", "torch", "glorot"] = Field(
        "dcgan", description="dcgan: weights N(0, .02), norm gain N(1, .02); all_normal: every parameter N(0, .02); "
        "gain_zero_mean: weights and norm gain N(0, .02); torch: PyTorch's defaults; glorot: Glorot uniform, biases 0")

    @model_validator(mode="after")
    def _switches_agree(self) -> "NetworkConfig":
        faults = []
        if self.padding == "keras_same" and self.kernel != 5:
            faults.append("network.padding 'keras_same' is defined for network.kernel 5")
        if self.g_stem_norm == "units" and self.g_stem != "linear":
            faults.append("network.g_stem_norm 'units' needs network.g_stem 'linear'")
        if self.family == "custom" and self.conditional:
            faults.append("network.conditional: own networks are not told classes; leave it out")
        if self.family != "custom":
            fields = type(self).model_fields
            reads = READS.get(self.family, set(fields) - set(RESIDUAL_ALONE))
            faults += [f"network.{name}: network.family '{self.family}' does not read it; leave it out"
                       for name, field in fields.items() if name not in reads and getattr(self, name) != field.default]
        return self._without(faults)


class UpdatePlan(Section):
    """The order of updates in one step: what differs between the classics besides their networks."""

    turns: Literal["both", "alternate_g_first", "alternate_d_first"] = Field(
        "both", description="each batch updates D then G, or only one of them in turn")
    d_step: Literal["joint", "real_then_fake"] = Field(
        "joint", description="one update of D on reals and fakes, or two: reals, then fakes")
    g_fakes: Literal["reuse", "same_z", "fresh"] = Field(
        "reuse", description="G learns from D's fakes, from the same z run again, or from new z")
    d_scale: float = Field(1.0, gt=0, le=1, description="factor of D's loss")
    reduction: Literal["mean", "sum"] = Field("mean", description="losses averaged or summed over the batch")
    real_label: float = Field(1.0, gt=0.5, le=1, description="D's target for reals (one-sided label smoothing below 1)")
    tail: Literal["ragged", "drop", "replacement"] = Field(
        "ragged", description="an epoch's last, smaller batch is kept or dropped; or every batch drawn with replacement")


class TrainConfig(Section):
    """Batch, optimizer and loss."""

    batch: int = Field(128, ge=1, le=65536, description="real images in one step")
    lr: float = Field(2e-4, gt=0, description="Adam's learning rate, both networks")
    betas: tuple[float, float] = Field((0.5, 0.999), description="Adam's beta_1 and beta_2")
    adam_eps: float = Field(1e-8, gt=0, description="Adam's epsilon")
    weight_decay: float = Field(0.0, ge=0, description="L2 penalty through Adam's gradient, on every parameter")
    loss: LossName = Field("nonsaturating", description="adversarial loss; custom = your own pair, from Python")
    r1_gamma: float = Field(0.0, ge=0, description="weight of the R1 gradient penalty on reals; 0 = off")
    r2_gamma: float = Field(0.0, ge=0, description="weight of the R2 gradient penalty on fakes; 0 = off")
    gamma_start: float = Field(1.0, gt=0, description="R1's and R2's weights at the start, times r1_gamma and r2_gamma")
    gamma_ramp_kimg: float = Field(0.0, ge=0, description="images in which they come from there to their own values; 0 = at once")
    gp_weight: float = Field(
        0.0, ge=0, description="weight of WGAN-GP's penalty, between reals and fakes (10 with train.loss wasserstein); 0 = off")
    penalty: Literal["exact", "differences"] = Field(
        "exact", description="R1 and R2 by second derivatives, or by differences of D between an image and one a step aside")
    penalty_every: int = Field(1, ge=1, le=64, description="penalties in every so many steps only, and so many times as heavy")
    init_from: str = Field("", description="run, checkpoint or a tutorial's netG.pth whose weights to start from, where they fit")
    ema_half_life_kimg: float = Field(0.0, ge=0, description="half-life of the averaged generator; 0 = no averaging")
    seed: int = Field(0, ge=0, lt=2**63, description="seed of weights, z, order and augmentation")

    @property
    def second_derivatives(self) -> bool:
        """Whether some steps of D take them."""
        return bool(self.gp_weight or (self.penalty == "exact" and (self.r1_gamma or self.r2_gamma)))

    @model_validator(mode="after")
    def _betas_below_one(self) -> "TrainConfig":
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"train.betas = {list(self.betas)}: both must lie in [0, 1)")
        return self


class AugmentConfig(Section):
    """What D sees of each image, real or made: changed at random, so that few images last longer (DiffAugment)."""

    color: float = Field(0.0, ge=0, le=1, description="brightness, saturation and contrast; 1 = as the paper")
    translation: float = Field(0.0, ge=0, le=0.5, description="moved by up to this share of its sides; the paper has 0.125")
    cutout: float = Field(0.0, ge=0, le=1, description="a square of this share of its sides covered; the paper has 0.5")
    probability: float = Field(1.0, ge=0, le=1, description="each kind of change is made to this share of the images")

    @property
    def is_on(self) -> bool:
        """Whether anything is changed at all."""
        return self.probability > 0 and max(self.color, self.translation, self.cutout) > 0


class OutputConfig(Section):
    """How often a run shows and keeps its state; may change when a run goes on."""

    log_every: AmountField = Field(Amount(50, "steps"), description="a row of statistics")
    grid_every: AmountField = Field(Amount(1, "epochs"), description="a picture of samples")
    grid_n: int = Field(64, ge=1, le=1024, description="samples in the picture")
    grid_z: Literal["fixed", "fresh"] = Field("fixed", description="the same z in each picture, or new ones")
    grid_mode: GridMode = Field("train", description="G's batch norm in the picture: as in training, or as in sampling")
    grid_reals: bool = Field(False, description="as many real images beside the samples")
    checkpoint_every: AmountField = Field(Amount(1, "epochs"), description="a checkpoint")
    checkpoint_minutes: float = Field(10.0, gt=0, description="a checkpoint after this long without one")
    keep_last: int = Field(2, ge=1, description="newest checkpoints kept")
    keep_every: AmountField | None = Field(None, description="checkpoints kept for ever")


class MeasureConfig(Section):
    """How a run in training is measured: what finds its best checkpoint."""

    share: float = Field(0.05, ge=0, le=0.5, description="largest share of the training time for measuring; 0 = never")
    every: AmountField | None = Field(None, description="measure this often, whatever it costs; none = as the share allows")
    extractor: str = Field(
        "random", min_length=1, description="what sees the images: random, classifier, inception or FILE.py:function")
    n: int = Field(512, ge=16, le=50_000, description="samples in one measurement")
    patience: AmountField | None = Field(None, description="stop when nothing better has come for this long; none = never")


class ExecutionConfig(Section):
    """The machine; may change when a run goes on, which is then said not to be bit-exact."""

    device: str = Field("cpu", pattern=r"^(cpu|mps|cuda(:\d+)?)$", description="cpu, cuda, cuda:1 or mps")
    threads: int = Field(1, ge=1, description="CPU threads of the network's arithmetic")
    precision: Literal["fp32", "bf16"] = Field(
        "fp32", description="fp32 or bf16: what the networks compute in; weights stay fp32. bf16 needs a machine made for it")
    compile: bool = Field(
        False, description="fuse the layers by torch.compile: a minute of warm-up, a tenth faster in small networks")
    channels_last: bool = Field(False, description="images lie in memory pixel by pixel, not map by map: faster on CPU and CUDA")


class RunConfig(Section):
    """Everything that decides how a run trains. Saved as config.yaml in the run folder."""

    preset: str = Field("", description="the preset that this started from")
    data: DataConfig = DataConfig()
    network: NetworkConfig = NetworkConfig()
    plan: UpdatePlan = UpdatePlan()
    train: TrainConfig = TrainConfig()
    augment: AugmentConfig = AugmentConfig()
    length: AmountField = Field(Amount(20, "epochs"), description="how long to train")
    output: OutputConfig = OutputConfig()
    measure: MeasureConfig = MeasureConfig()
    execution: ExecutionConfig = ExecutionConfig()

    @property
    def num_classes(self) -> int:
        """Classes that the networks are told; 0 where they know of none."""
        return len(self.data.class_names) if self.network.conditional else 0

    @model_validator(mode="after")
    def _sections_agree(self) -> "RunConfig":
        faults = []
        train, separable = self.train, self.train.loss != "relativistic"
        penalised = train.r1_gamma or train.r2_gamma or train.gp_weight
        if self.plan.d_step == "real_then_fake" and (penalised or not separable):
            faults.append("plan.d_step 'real_then_fake' needs a loss without pairing, and train.r1_gamma 0, "
                          "r2_gamma and gp_weight too")
        if self.plan.real_label != 1 and self.train.loss not in ("nonsaturating", "minimax"):
            faults.append(f"plan.real_label {self.plan.real_label} has no meaning for train.loss '{self.train.loss}'")
        if train.penalty == "differences" and train.gp_weight:
            faults.append("train.penalty 'differences' is for R1 and R2: train.gp_weight needs 'exact'")
        if train.penalty == "differences" and self.network.d_spectral_norm:
            faults.append("train.penalty 'differences' and network.d_spectral_norm: each look at D changes its norms a "
                          "little, which would be taken for a slope; set train.penalty 'exact'")
        if self.execution.compile and train.second_derivatives and train.penalty_every == 1:
            faults.append("execution.compile: PyTorch compiles no second derivatives, and train.r1_gamma, r2_gamma or gp_weight "
                          "make them part of every step; set train.penalty_every to 2 or more, or the three to 0")
        if self.execution.compile and self.network.conditional:
            faults.append("execution.compile does not go with network.conditional: what is compiled is not told classes")
        if train.loss == "wasserstein" and not (penalised or self.network.d_spectral_norm):
            faults.append("train.loss 'wasserstein' needs a bound on D: train.gp_weight 10, or network.d_spectral_norm")
        if self.network.family == "mnist28" and self.data.size != (28, 28):
            faults.append(f"network.family 'mnist28' makes 28x28 images, not {self.data.size}: "
                          "set data.size to 28, or network.family to 'dcgan'")
        by_batch = self.output.grid_mode == "train" or not self.network.bn_running
        if self.network.g_stem_norm == "units" and by_batch and self.output.grid_n < 2:
            faults.append("output.grid_n 1: network.g_stem_norm 'units' needs at least 2 images for its statistics")
        return self._without(faults)


# ---------------------------------------------------------------- dotted names, files, checks

# Short names, the same on the command line and in Python: `--batch 64`, `train(..., batch=64)`.
SHORT = {
    "size": "data.size", "channels": "data.channels", "fit": "data.fit", "transparency": "data.transparency",
    "native": "data.native", "labels": "data.labels", "tile": "data.tile", "frames": "data.frames", "mirror": "data.mirror",
    "skip_bad": "data.skip_bad", "drop_duplicates": "data.drop_duplicates", "holdout": "data.holdout",
    "group_by": "data.group_by",
    "init_from": "train.init_from", "batch": "train.batch", "lr": "train.lr", "seed": "train.seed",
    "patience": "measure.patience",
    "device": "execution.device", "threads": "execution.threads", "precision": "execution.precision",
}
LENGTHS = ("kimg", "epochs", "steps")
# What is chosen from the images where it is not given, or given as "auto"; a run that goes on keeps what was chosen for it.
FROM_IMAGES = (
    "data.size", "data.channels", "data.fit", "data.transparency", "data.native", "data.mirror", "data.holdout")
# When a run goes on. Measurements of one run are compared with each other, so what sees the images may not change.
MAY_CHANGE = ("preset", "data.source", "data.skip_bad", "length", "output", "measure.share", "measure.every", "measure.patience",
              "execution")


def fields(model: type[BaseModel] = RunConfig, prefix: str = "") -> Iterator[tuple[str, FieldInfo]]:
    """Every option as (dotted name, field), in the order of definition."""
    for name, field in model.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def describe(dotted: str) -> str:
    """The one-line meaning of an option, for help texts."""
    return next(field.description or "" for name, field in fields() if name == dotted)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested sections as {dotted name: value}."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {prefix + str(name): value}
    return flat


def make_config(*layers: Mapping[str, Any]) -> RunConfig:
    """A checked RunConfig from layers of {dotted name: value}, later ones winning; what none names keeps its default.

    Raises ConfigError that tells all faults at once, each with its option and value; unknown names get the nearest ones.
    """
    merged = {name: value for layer in layers for name, value in layer.items()}
    known = [name for name, _ in fields()]
    faults = [_unknown(name, known) for name in merged if name not in known]
    nested: dict[str, Any] = {}
    for name in known:
        if name in merged:
            section, _, leaf = name.rpartition(".")
            (nested.setdefault(section, {}) if section else nested)[leaf] = merged[name]
    try:
        config = RunConfig.model_validate(nested)
    except ValidationError as error:
        faults += [_fault(fault) for fault in error.errors()]
    if faults:
        raise ConfigError("\n".join(faults))
    return config


def _unknown(name: str, known: list[str]) -> str:
    leaf = name.rpartition(".")[2]
    near = [option for option in known if option.rpartition(".")[2] == leaf]
    near = near or difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}?" if near else "`ganvas presets NAME` lists every option."
    return f"unknown option '{name}': {hint}"


def _fault(fault: Any) -> str:
    where = ".".join(part for part in fault["loc"] if isinstance(part, str) and not part.startswith("function-"))
    is_pattern = fault["type"] == "string_pattern_mismatch"       # the description says it better than the pattern
    text = "cannot be that" if is_pattern else str(fault["msg"]).removeprefix("Value error, ")
    option = next((field for name, field in fields() if name == where), None)
    if option is None:                                 # a check over several options: the message names them
        return text
    return f"{where} = {fault['input']!r}: {text} ({option.description})"


def parse_setting(text: str) -> tuple[str, Any]:
    """`train.lr=0.001` as (dotted name, value); the value is read as YAML. Raises ConfigError."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigError(f"--set {text}: write OPTION=VALUE, for example --set train.lr=0.0001")
    try:
        parsed = yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise ConfigError(f"--set {text}: the value cannot be read ({error})") from error
    if isinstance(parsed, str):                        # YAML 1.1 reads 1e-4 as text
        with contextlib.suppress(ValueError):
            parsed = float(parsed)
    return name.strip(), parsed


def to_yaml(config: RunConfig) -> str:
    """The text of config.yaml."""
    return yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False, allow_unicode=True)


def from_yaml(text: str, where: str) -> dict[str, Any]:
    """{dotted name: value} from YAML text; `where` names the file in errors. Raises ConfigError."""
    try:
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"{where}: is not valid YAML ({error})") from error
    if not isinstance(values, dict):
        raise ConfigError(f"{where}: holds no options; expected lines such as 'train:' and '  lr: 0.0002'")
    return flatten(values)


def differences(old: RunConfig, new: RunConfig) -> list[str]:
    """The options that a run may not change and that differ, each as a line 'name: old -> new'."""
    before, after = flatten(old.model_dump(mode="json")), flatten(new.model_dump(mode="json"))
    fixed = [name for name in before if not any(name == free or name.startswith(free + ".") for free in MAY_CHANGE)]
    return [f"{name}: {before[name]} -> {after[name]}" for name in fixed if before[name] != after[name]]
