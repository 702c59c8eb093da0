"""Transformers and recurrent language models, unmodified, under recipes and savers.

BERT, GPT-2, T5 and ViT of transformers, a ViT of timm, an LSTM language model whose head is
its embedding, and a GRU sequence-to-sequence model on packed sequences, all with random
weights and without dropout.
"""

import copy
import functools
import importlib
import pickle
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

import elision
from elision.layers import DenseReadWarning, TiedWeightWarning, watch
from elision.memory import saver
from elision.methods import METHODS
from elision.workloads.libraries.torchvision import import_torchvision

#: Masks here never move far, and the libraries warn of much.
pytestmark = pytest.mark.filterwarnings("ignore")

#: Sizes that configurations of transformers share.
SMALL: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "attention_probs_dropout_prob": 0.0,
    "hidden_dropout_prob": 0.0,
}

RECIPES = (
    "swat",
    "meprop",
    "resprop",
    "rigl:sparsity=0.5",
    "set:sparsity=0.5",
    "fp8",
    "dfp16",
    "bf16",
)

#: A model and the loss of one batch.
Made = tuple[nn.Module, Callable[[nn.Module], Tensor]]


class LanguageModel(nn.Module):
    """An LSTM whose head reads the embedding's table."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(50, 24)
        self.lstm = nn.LSTM(24, 24, num_layers=2, batch_first=True)
        self.head = nn.Linear(24, 50, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores of the next token, ``(batch, time, 50)``."""
        return self.head(self.lstm(self.embed(tokens))[0])


class Seq2Seq(nn.Module):
    """A bidirectional GRU over packed sequences, whose state a GRU decodes."""

    def __init__(self) -> None:
        super().__init__()
        self.source = nn.Embedding(50, 16, padding_idx=0)
        self.target = nn.Embedding(40, 16, padding_idx=0)
        self.encoder = nn.GRU(16, 16, batch_first=True, bidirectional=True)
        self.decoder = nn.GRU(16, 32, batch_first=True)
        self.head = nn.Linear(32, 40)

    def forward(self, source: Tensor, lengths: Tensor, target: Tensor) -> Tensor:
        """Scores of the target's tokens, ``(batch, time, 40)``."""
        packed = pack_padded_sequence(
            self.source(source), lengths, batch_first=True, enforce_sorted=False
        )
        _, states = self.encoder(packed)
        first = torch.cat(list(states), 1).unsqueeze(0)
        y = self.decoder(self.target(target), first)[0]
        steps = torch.full((len(target),), target.shape[1])
        again = pack_padded_sequence(y, steps, batch_first=True)
        return self.head(pad_packed_sequence(again, batch_first=True)[0])


def transformers() -> Any:
    pytest.importorskip("transformers")
    if find_spec("torchvision"):
        import_torchvision()
    return importlib.import_module("transformers")


def tokens(vocabulary: int = 50, length: int = 12) -> Tensor:
    return torch.randint(3, vocabulary, (3, length))


def bert() -> Made:
    library, ids = transformers(), tokens()
    model = library.BertForMaskedLM(library.BertConfig(vocab_size=50, **SMALL))
    return model, lambda m: m(input_ids=ids, labels=ids).loss


def gpt2() -> Made:
    library, ids = transformers(), tokens()
    rates = dict.fromkeys(("attn_pdrop", "embd_pdrop", "resid_pdrop"), 0.0)
    sizes = {"vocab_size": 50, "n_embd": 32, "n_layer": 2, "n_head": 4}
    ends = {"bos_token_id": 0, "eos_token_id": 0}
    model = library.GPT2LMHeadModel(library.GPT2Config(**sizes, **rates, **ends))
    return model, lambda m: m(input_ids=ids, labels=ids).loss


def t5() -> Made:
    library, ids = transformers(), tokens()
    sizes = {"vocab_size": 50, "d_model": 32, "d_kv": 8, "d_ff": 64}
    layers = {"num_layers": 2, "num_heads": 4, "dropout_rate": 0.0}
    model = library.T5ForConditionalGeneration(
        library.T5Config(**sizes, **layers, decoder_start_token_id=0, pad_token_id=0)
    )
    labels = ids[:, :7].contiguous()
    return model, lambda m: m(input_ids=ids, labels=labels).loss


def vit() -> Made:
    library, images = transformers(), torch.randn(3, 3, 32, 32)
    config = library.ViTConfig(**SMALL, image_size=32, patch_size=8, num_labels=4)
    model = library.ViTForImageClassification(config)
    labels = torch.tensor([0, 1, 2])
    return model, lambda m: m(pixel_values=images, labels=labels).loss


def timm_vit() -> Made:
    pytest.importorskip("timm")
    import_torchvision()
    library, images = importlib.import_module("timm"), torch.randn(3, 3, 32, 32)
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2}
    model = library.models.VisionTransformer(**sizes, num_heads=4, num_classes=4)
    labels = torch.tensor([0, 1, 2])
    return model, lambda m: F.cross_entropy(m(images), labels)


def lstm() -> Made:
    ids = tokens()
    return LanguageModel(), lambda m: F.cross_entropy(
        m(ids[:, :-1]).flatten(0, 1), ids[:, 1:].flatten()
    )


def gru() -> Made:
    source, target = tokens(), tokens(40, 7)
    lengths = torch.tensor([12, 5, 9])
    source = source * (torch.arange(12) < lengths.unsqueeze(1))
    return Seq2Seq(), lambda m: F.cross_entropy(
        m(source, lengths, target[:, :-1]).flatten(0, 1), target[:, 1:].flatten()
    )


MODELS = {make.__name__: make for make in (bert, gpt2, t5, vit, timm_vit, lstm, gru)}


@functools.lru_cache
def once(name: str) -> Made:
    torch.manual_seed(0)
    return MODELS[name]()


def made(name: str) -> Made:
    """A copy of a model, which is built once, in training mode."""
    model, loss = once(name)
    return copy.deepcopy(model).train(), loss


def gradients(model: nn.Module, loss: Callable[[nn.Module], Tensor]) -> list[Tensor]:
    """The loss, and the gradient of every parameter that has one."""
    model.zero_grad()
    value = loss(model)
    value.backward()
    found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    return [value.detach(), *found]


@pytest.mark.parametrize("name", MODELS)
def test_the_dense_recipe_is_autograd_and_leaves_no_trace(name: str) -> None:
    model, loss = made(name)
    keys, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    expected = gradients(model, loss)
    elision.elide(model, "dense")
    assert list(model.state_dict()) == keys
    assert all(map(torch.equal, gradients(model, loss), expected))
    elision.restore(model)
    assert [type(m) for m in model.modules()] == kinds
    with watch(model, lambda _: None):  # product by product
        found = gradients(model, loss)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", MODELS)
def test_every_recipe_trains_it_and_goes_without_a_trace(
    name: str, recipe: str
) -> None:
    model, loss = made(name)
    keys, kinds = list(model.state_dict()), [type(m) for m in model.modules()]
    elision.elide(model, recipe, engine="torch")
    own = {k for k in model.state_dict() if k.rpartition(".")[2].startswith("elision_")}
    assert [k for k in model.state_dict() if k not in own] == keys
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    elision.topology.attach(model, optimizer, steps=4)
    for _ in range(2):
        optimizer.zero_grad()
        loss(model).backward()
        optimizer.step()
    assert all(p.isfinite().all() for p in model.parameters())
    elision.restore(model)
    assert list(model.state_dict()) == keys
    assert [type(m) for m in model.modules()] == kinds


@pytest.mark.parametrize("name", MODELS)
def test_an_exact_saver_under_a_recipe_changes_no_gradient(name: str) -> None:
    model, loss = made(name)
    elision.elide(model, "bf16", engine="torch")
    expected = gradients(model, loss)
    with saver(model, "exact"):
        assert all(map(torch.equal, gradients(model, loss), expected))


@pytest.mark.parametrize("name", MODELS)
def test_explain_names_what_the_table_does_not_reach(name: str) -> None:
    model, loss = made(name)
    calls: list[Any] = []
    handle = model.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append((args, kwargs)), with_kwargs=True
    )
    loss(model)
    handle.remove()
    args, keywords = calls[0]
    found = elision.explain(model, *args, **keywords)
    assert found.share is not None
    assert found.share > 0.9
    named = [(part.name, part.what) for part in found.unreached]
    assert len(named) == len(set(named))
    # What multiplies outside of the table are calls: a recipe names them by products=.
    attention = {part.what for part in found.unreached if part.macs}
    # Older versions of Transformers write T5's attention as two matrix products.
    assert attention <= {"qk", "pv"} or attention <= {"matmul", "matmul_1"}


def test_gpt2s_own_linear_layer_is_in_the_table() -> None:
    model, loss = made("gpt2")
    found = elision.explain(model)
    assert "transformer.h.1.attn.c_attn" in found.reached
    layer: Any = model.get_submodule("transformer.h.1.attn.c_attn")
    elision.elide(model, "static:sparsity=0.5,distribution=uniform", engine="torch")
    mask = layer.elision_weight_for_forward_mask
    assert mask.shape == layer.weight.shape == (32, 96)
    assert not layer.weight[~mask].any()
    loss(model).backward()
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(loss(other), loss(model))
    torch.nn.init.normal_(elision.restore(layer).weight)
    pattern = elision.elide(copy.deepcopy(layer), METHODS["n-m"](dense=()))
    kept = elision.export.finalize(pattern).weight != 0
    # Two of four inputs of each output, whichever axis holds the inputs.
    assert (kept.view(8, 4, 96).sum(1) <= 2).all()


def test_a_head_that_is_the_embedding_is_named_in_one_message() -> None:
    for name, head in (("bert", "cls.predictions.decoder"), ("lstm", "head")):
        model, loss = made(name)
        with pytest.warns(TiedWeightWarning, match=f"{head} \\(with ") as caught:
            elision.elide(model, "rigl:sparsity=0.5", engine="torch")
        assert sum(w.category is TiedWeightWarning for w in caught) == 1
        with warnings.catch_warnings():
            warnings.simplefilter("error", DenseReadWarning)
            loss(model)


def test_padding_without_lengths_is_read_as_torch_reads_it() -> None:
    model, _ = made("gru")
    source, target = torch.zeros(2, 6, dtype=torch.int64), tokens(40, 3)[:2]
    lengths = torch.tensor([6, 6])
    expected = model(source, lengths, target)
    elision.elide(model, "dense")
    assert torch.equal(model(source, lengths, target), expected)
    with pytest.raises(RuntimeError, match="greater than 0"):
        model(source, torch.tensor([6, 0]), target)
