"""`transformers:NAME[@REVISION][#CLASS]`: the models of Hugging Face's transformers, which is an extra."""

from __future__ import annotations

import importlib.util
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torchgraft.errors import SourceError, TorchgraftWarning, nearest
from torchgraft.rng import drawn_from
from torchgraft.sources.base import Base, Offer, Source
from torchgraft.sources.takes import example_of, preprocess_of, size_of
from torchgraft.weights.hashes import cached, check_cached

if TYPE_CHECKING:
    from torch import nn

__all__ = ["Transformers"]


class Transformers(Source):
    """A model of transformers: from the hub, a folder, or a configuration alone.

    NAME is `organisation/name` on the hub or in its cache, a folder that `save_pretrained` wrote, a `config.json`,
    or a type of model such as `bert`; the last two are configurations alone and take `@none`: random weights. `#`
    names the class: an Auto class, or one of the models; left out, it is the one that the configuration names.
    Code that comes with a model is never run. Weights have the type that the configuration says.
    """

    form: ClassVar[str] = "NAME[@REVISION|@none][#CLASS]"

    def check(self, *, trust: bool = False) -> None:
        """See that the library is there, and what can be told of the name without a network."""
        if importlib.util.find_spec("transformers") is None:
            raise SourceError(
                "transformers is not installed", where=str(self), hint="pip install 'torchgraft[transformers]'"
            )
        if self.asked:
            self._named_class(self.asked)
        self._check_place()

    def load(self, *, seed: int = 0, trust: bool = False) -> Base:
        """Build the model from its configuration, and load its weights from the cache or the folder."""
        self.check()
        with _quiet(), drawn_from(seed):
            config = self._reached(self._config, "configuration")
            cls = self._class(config)
            bare = self.tag == "none"
            module = self._reached(
                lambda: self._random(cls, config) if bare else self._trained(cls, config), "model"
            )
            found = self._beside("preprocessor_config.json")
            preprocess = preprocess_of(found, config) if found else None
        return Base(
            module,
            str(self),
            size_of(module, config, preprocess),
            preprocess,
            example_of(module, config),
            self._tokenizer(),
        )

    @classmethod
    def offers(cls) -> Sequence[Offer]:
        """List the types of models that can be built, and what lies in the cache of the hub."""
        if importlib.util.find_spec("transformers") is None:
            return []
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        here = [Offer(name, ("main",), "cached") for name in cached()]
        return [*(Offer(f"{name}@none") for name in sorted(CONFIG_MAPPING_NAMES)), *here]

    @property
    def bare(self) -> Source:
        """The same architecture with random weights."""
        asked = f"#{self.asked}" if self.asked else ""
        return self.model_copy(update={"rest": f"{self.name}@none{asked}"})

    def classifier(self) -> Transformers:
        """The same weights with a head for classes of whole texts, unless a class is named or is one already.

        Raises:
            SourceError: the configuration can't be had.
        """
        self.check()
        if self.asked:
            return self
        with _quiet():
            made = self._class(self._reached(self._config, "configuration")).__name__
        text = f"{self.rest}#AutoModelForSequenceClassification"
        return self if made.endswith("ForSequenceClassification") else self.model_copy(update={"rest": text})

    @property
    def name(self) -> str:
        """The part before `@` and `#`."""
        return self.rest.partition("#")[0].partition("@")[0]

    @property
    def tag(self) -> str:
        """The part after `@`: a revision, or `none` for random weights."""
        return self.rest.partition("#")[0].partition("@")[2]

    @property
    def asked(self) -> str:
        """The part after `#`: the class."""
        return self.rest.partition("#")[2]

    @property
    def _local(self) -> Path | None:
        """Where the model lies, if its name is a path."""
        path = Path(self.name).expanduser()
        is_path = path.is_dir() or self.name.startswith((".", "/", "~")) or self.name.endswith(".json")
        return path if is_path else None

    @property
    def _where(self) -> str:
        return str(self._local) if self._local else self.name

    @property
    def _revision(self) -> dict[str, str]:
        return {"revision": self.tag} if self.tag not in ("", "none") else {}

    def _check_place(self) -> None:
        path = self._local
        if path is None:
            self._check_type()
        elif path.suffix == ".json":
            self._check_there(path, "a configuration")
            if self.tag != "none":
                hint = f"transformers:{self.name}@none, or file:WEIGHTS@{self.bare} for weights of a file"
                raise SourceError("a configuration alone has no weights", where=str(self), hint=hint)
        else:
            self._check_there(path / "config.json", "a folder that save_pretrained wrote")

    def _check_there(self, path: Path, what: str) -> None:
        if not path.is_file():
            home = path.parent
            near = nearest(home.name, [one.name for one in home.parent.glob("*")]) if home.parent.is_dir() else ""
            raise SourceError(
                f"there is no {path}", where=str(self), hint=near or f"name {what}, or a name on the hub"
            )

    def _check_type(self) -> None:
        """Refuse a single word with `@none` that is neither a type of model nor in the cache."""
        if "/" in self.name or self.tag != "none" or self._is_type or self.name in cached():
            return
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        hint = nearest(self.name, CONFIG_MAPPING_NAMES) or "torchgraft sources 'transformers:*' lists them"
        raise SourceError(f"transformers has no type of model '{self.name}'", where=str(self), hint=hint)

    @property
    def _is_type(self) -> bool:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING_NAMES

        return self._local is None and self.name in CONFIG_MAPPING_NAMES

    def _config(self) -> Any:
        from transformers import AutoConfig

        if self._is_type and self.tag == "none":
            return AutoConfig.for_model(self.name)
        return AutoConfig.from_pretrained(self._where, trust_remote_code=False, **self._revision)

    def _class(self, config: Any) -> Any:
        """Give the class that is asked for, or the one that the configuration names."""
        import transformers

        if self.asked:
            return self._named_class(self.asked)
        named = getattr(config, "architectures", None) or ()
        return next((cls for one in named if (cls := getattr(transformers, one, None))), transformers.AutoModel)

    def _named_class(self, name: str) -> Any:
        import transformers

        found = getattr(transformers, name, None)
        is_model = hasattr(found, "from_config") or hasattr(found, "forward")
        if not (is_model and hasattr(found, "from_pretrained")):
            known = [one for one in dir(transformers) if "Model" in one or "For" in one]
            raise SourceError(
                f"transformers has no model class '{name}'",
                where=str(self),
                hint=nearest(name, known) or "an Auto class, such as #AutoModelForSequenceClassification",
            )
        return found

    def _random(self, cls: Any, config: Any) -> nn.Module:
        made: nn.Module = cls.from_config(config) if hasattr(cls, "from_config") else cls(config)
        return made

    def _trained(self, cls: Any, config: Any) -> nn.Module:
        if not self._local:
            check_cached(self.name)
        module, told = cls.from_pretrained(
            self._where, config=config, output_loading_info=True, trust_remote_code=False, **self._revision
        )
        self._say(told)
        made: nn.Module = module
        return made

    def _say(self, told: dict[str, Any]) -> None:
        """Say what `from_pretrained` drew at random, and what it left aside."""
        parts = [
            f"{len(names)} {what} (such as {sorted(map(str, names))[0]})"
            for key, what in (
                ("missing_keys", "tensors are not in the weights and were drawn anew"),
                ("mismatched_keys", "tensors have another size there and were drawn anew"),
                ("unexpected_keys", "tensors of the weights have no place"),
            )
            if (names := told.get(key))
        ]
        if parts:
            warnings.warn(f"{self}: {'; '.join(parts)}", TorchgraftWarning, stacklevel=2)

    def _reached(self, load: Callable[[], Any], what: str) -> Any:
        """Load something that may have to be downloaded.

        Raises:
            SourceError: it can't be.
        """
        try:
            return load()
        except (OSError, RuntimeError, ValueError, ImportError, KeyError) as error:
            reason, hint = _reason(error)
            if self._is_type and isinstance(error, OSError):
                hint = f"'{self.name}' alone is a type of model: {self.bare} draws random weights; weights on the "
                hint += "hub are ORGANISATION/NAME"
            raise SourceError(f"the {what} can't be loaded: {reason}", where=str(self), hint=hint) from error
        except Exception as error:
            if type(error).__name__ != "UnpicklingError":
                raise
            raise SourceError(
                "the weights can't be loaded: they hold more than tensors, and code from files is never run",
                where=str(self),
                hint="take a version with safetensors",
            ) from error

    def _beside(self, name: str) -> str:
        """Give the path of a file beside the configuration, in the folder or the cache; empty without one."""
        from transformers.utils import cached_file

        path = self._local
        if (path and path.suffix == ".json") or (path is None and self._is_type and self.tag == "none"):
            return ""
        quiet = {
            f"_raise_exceptions_for_{what}": False
            for what in ("missing_entries", "connection_errors", "gated_repo")
        }
        return str(cached_file(self._where, name, **self._revision, **quiet) or "")

    def _tokenizer(self) -> str | None:
        there = any(self._beside(name) for name in ("tokenizer_config.json", "tokenizer.json", "vocab.txt"))
        return self._where if there else None


def _reason(error: Exception) -> tuple[str, str]:
    """Say in one line why something could not be loaded, and what to do."""
    first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "trust_remote_code" in str(error):
        return "it comes with code of its own, which is never run", "build it by yourself: python:MODULE:FACTORY"
    if isinstance(error, ImportError):
        return first, "install what it names"
    return first, "connect to a network, name a folder (transformers:./FOLDER), or draw random weights: TYPE@none"


@contextmanager
def _quiet() -> Iterator[None]:
    """Let transformers print no reports and bars: what matters of them is said by a warning of ours."""
    from transformers.utils import logging

    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
