"""Sentence embeddings: a Hugging Face encoder with mean pooling, judged by scored pairs.

The model is read from a local folder only, from safetensors where there are, never running code
of the folder; or from an ONNX file, whose tokenizer lies beside it or in the folder above.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgeprune.console import progress
from edgeprune.errors import TaskError
from edgeprune.text_files import read_lines, read_table

BATCH = 32
# Sentences sorted by length together: batches of like length, yet mixed lengths in any order.
CHUNK = 64 * BATCH
PAIR_COLUMNS = ("score", "sentence1", "sentence2")
_ENCODER_INPUTS = {"input_ids", "attention_mask", "token_type_ids"}
EXAMPLE = "A program measures how fast a network runs on the device it is meant for."


class SentenceEncoder(nn.Module):
    """An encoder whose last hidden states are averaged over the words and normalised."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Map ids and mask (N, L), int64, to embeddings (N, D) of length one."""
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        words = attention_mask.unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * words).sum(1) / words.sum(1).clamp(min=1e-9)
        return F.normalize(mean, dim=1)


class OnnxEncoder(nn.Module):
    """An encoder read from an ONNX file, called as transformers' are.

    It takes ``input_ids`` and ``attention_mask``, maybe ``token_type_ids``, and gives the last
    hidden states first.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        from edgeprune.onnx_import import load_onnx

        self.network = load_onnx(file)
        unknown = sorted(set(self.network.onnx_input_names) - _ENCODER_INPUTS)
        if unknown:
            known = ", ".join(sorted(_ENCODER_INPUTS))
            raise TaskError(f"{file} takes '{unknown[0]}'; an encoder takes {known}")

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """The file's outputs."""
        given = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "token_type_ids": torch.zeros_like(input_ids),
        }
        outputs: tuple[Tensor, ...] = self.network(
            *(given[name] for name in self.network.onnx_input_names)
        )
        return outputs


class Task:
    """Embed sentences; quality is Spearman's rank correlation with the scores of the pairs.

    Args:
        model: Hugging Face model folder with its tokenizer, or an ONNX file in such a folder or in
            one of its own inside it.
        sentences: Unlabelled text, one sentence a line; may be gzipped.
        pairs: Scored pairs, tab-separated with the header score, sentence1, sentence2; may be
            gzipped.
        sequence: Tokens of the deployed input; longer sentences are cut, shorter ones padded.
    """

    quality_name = "spearman"

    def __init__(self, model: Path, sentences: Path, pairs: Path, sequence: int = 128) -> None:
        self._onnx = model if model.suffix == ".onnx" else None
        folder = model if self._onnx is None else _folder_of(model)
        if not (folder / "config.json").is_file():
            raise TaskError(
                f"'{folder}' is not a Hugging Face model folder (no config.json); set model=FOLDER"
            )
        if sequence < 2:
            raise TaskError(f"sequence is {sequence}; it must be at least 2")
        self._folder = folder
        self._sequence = sequence
        self._sentences = read_lines(sentences)
        if len(self._sentences) < BATCH:
            raise TaskError(
                f"{sentences} has {len(self._sentences)} sentences; give at least {BATCH}"
            )
        self._pairs = _read_pairs(pairs)
        self._tokenizer = self._from_folder("AutoTokenizer")

    def model(self) -> nn.Module:
        """The dense encoder in float32."""
        if self._onnx is not None:
            return SentenceEncoder(OnnxEncoder(self._onnx)).eval()
        encoder = self._from_folder("AutoModel", dtype=torch.float32)
        longest = getattr(encoder.config, "max_position_embeddings", None)
        if longest is not None and self._sequence > longest:
            raise TaskError(
                f"sequence is {self._sequence}, but the model's positions end at {longest}"
            )
        return SentenceEncoder(encoder).eval()

    def example_inputs(self) -> tuple[Tensor, ...]:
        """Ids and mask of one sentence at the deployed shape, (1, sequence)."""
        return self._encoded([EXAMPLE], self._sequence)

    def batches(self) -> Iterator[tuple[Tensor, ...]]:
        """Ids and masks (32, L) of sentences of like length; L varies from batch to batch."""
        generator = torch.Generator().manual_seed(0)
        order = torch.randperm(len(self._sentences), generator=generator).tolist()
        for start in range(0, len(order) - BATCH + 1, CHUNK):
            chosen = [self._sentences[i] for i in order[start : start + CHUNK]]
            tokens = self._tokens(chosen)
            by_length = sorted(range(len(tokens)), key=lambda i: (len(tokens[i]), i))
            groups = [by_length[i : i + BATCH] for i in range(0, len(tokens) - BATCH + 1, BATCH)]
            for number in torch.randperm(len(groups), generator=generator).tolist():
                yield self._padded([tokens[i] for i in groups[number]], None)

    def quality(self, predict: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> float:
        """Spearman's correlation of the cosine of each pair with its score."""
        from scipy.stats import spearmanr

        texts = sorted({text for _, *both in self._pairs for text in both})
        vectors: dict[str, Any] = {}
        with progress("embedding the scored pairs", len(texts)) as bar:
            for text in texts:
                ids, mask = self._encoded([text], self._sequence)
                vectors[text] = predict((ids.numpy(), mask.numpy()))[0][0]
                bar.advance()
        cosines = [float(vectors[a] @ vectors[b]) for _, a, b in self._pairs]
        if not np.all(np.isfinite(cosines)) or np.ptp(cosines) == 0:
            return 0.0
        return float(spearmanr(cosines, [score for score, _, _ in self._pairs]).statistic)

    def _encoded(self, texts: list[str], length: int) -> tuple[Tensor, Tensor]:
        return self._padded(self._tokens(texts), length)

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        encoded = self._tokenizer(texts, truncation=True, max_length=self._sequence)
        return list(encoded["input_ids"])

    def _padded(self, tokens: list[list[int]], length: int | None) -> tuple[Tensor, Tensor]:
        width = length or max(len(row) for row in tokens)
        ids = torch.full((len(tokens), width), self._tokenizer.pad_token_id or 0)
        mask = torch.zeros_like(ids)
        for row, words in enumerate(tokens):
            ids[row, : len(words)] = torch.tensor(words)
            mask[row, : len(words)] = 1
        return ids, mask

    def _from_folder(self, kind: str, **options: Any) -> Any:
        try:
            import transformers
        except ImportError as error:
            raise TaskError(
                "task 'sentence-embedding' needs transformers; run pip install 'edgeprune[text]'"
            ) from error
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        loader = getattr(transformers, kind)
        try:
            return loader.from_pretrained(
                str(self._folder), local_files_only=True, trust_remote_code=False, **options
            )
        except Exception as error:
            text = " ".join(str(error).split())[:200]
            raise TaskError(f"cannot load {kind} from {self._folder}: {text}") from error


def _folder_of(file: Path) -> Path:
    """The model folder that an ONNX file belongs to: its own, or the one above."""
    own = (file.parent / "config.json").is_file()
    return file.parent if own else file.resolve().parent.parent


def _read_pairs(path: Path) -> list[tuple[float, str, str]]:
    pairs = []
    for number, (score, first, second) in read_table(path, PAIR_COLUMNS):
        try:
            value = float(score)
        except ValueError as error:
            raise TaskError(f"{path}, line {number}: score '{score}' is not a number") from error
        if not np.isfinite(value):
            raise TaskError(f"{path}, line {number}: score '{score}' is not finite")
        pairs.append((value, first, second))
    if len(pairs) < 2 or len({score for score, _, _ in pairs}) < 2:
        raise TaskError(f"{path} needs at least two pairs of different score")
    return pairs
