"""GNMT against its published sizes, and against a translation of its equations."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import elision
from elision.methods import Swat
from elision.workloads import make_model
from elision.workloads.models.attention import NormedAttention
from elision.workloads.models.gnmt import Gnmt
from elision.workloads.tokens import BOS, PAD


def small(**how) -> Gnmt:
    torch.manual_seed(0)
    return Gnmt(**{"vocabulary": 11, "width": 6, "layers": 3, **how}).eval()


def padded(lengths: list[int], seed: int = 0) -> Tensor:
    """Random sentences of these lengths."""
    draw = torch.Generator().manual_seed(seed)
    tokens = torch.randint(4, 11, (len(lengths), max(lengths)), generator=draw)
    return tokens.masked_fill(
        torch.arange(max(lengths)) >= torch.tensor(lengths)[:, None], PAD
    )


def parameters(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("vocabulary", "width", "layers", "encoder", "decoder", "attention", "tables"),
    [
        (32_000, 1024, 8, 79_765_504, 96_534_528, 2_099_201, 65_568_000),
        (32_000, 1024, 4, 46_178_304, 46_170_112, 2_099_201, 65_568_000),
        (1_000, 64, 2, 116_224, 82_944, 8_321, 129_000),
    ],
)
def test_the_published_sizes_have_the_published_numbers_of_parameters(
    vocabulary, width, layers, encoder, decoder, attention, tables
):
    with torch.device("meta"):
        model = make_model("gnmt", vocabulary=vocabulary, width=width, layers=layers)
    assert parameters(model.encoder) == encoder
    assert parameters(model.decoder.attention) == attention
    assert parameters(model.decoder) == decoder + attention
    assert parameters(model.embedding) + parameters(model.classifier) == tables
    assert parameters(model) == encoder + decoder + attention + tables


def test_an_embedding_that_is_not_shared_is_one_more_table():
    more = parameters(small(shared_embedding=False)) - parameters(small())
    assert more == 11 * 6


def test_the_weights_begin_in_a_range_that_follows_from_the_width():
    torch.manual_seed(0)
    for width, bound in ((1024, 0.1), (64, 0.4)):
        attention = Gnmt(vocabulary=50, width=width, layers=2).decoder.attention
        largest = float(attention.key.weight.detach().abs().max())
        assert 0.99 * bound < largest <= bound
        assert attention.scale.item() == width**-0.5
    model = small()
    assert not model.embedding.weight[PAD].any()
    assert not model.decoder.attention.bias.any()


def lstm(layer: nn.LSTM, x: Tensor) -> Tensor:
    """The equations of an LSTM on one sentence ``(T, inputs)``, a step at a time."""
    h = c = torch.zeros(layer.hidden_size)
    rows = []
    for step in x:
        gates = layer.weight_ih_l0 @ step + layer.bias_ih_l0
        gates = gates + layer.weight_hh_l0 @ h + layer.bias_hh_l0
        i, f, g, o = gates.chunk(4)
        c = f.sigmoid() * c + i.sigmoid() * g.tanh()
        h = o.sigmoid() * c.tanh()
        rows.append(h)
    return torch.stack(rows)


def attended(attention: NormedAttention, query: Tensor, values: Tensor) -> Tensor:
    """The context of every query of one sentence, a pair of tokens at a time."""
    direction = attention.direction / attention.direction.norm()
    contexts = []
    for y in query:
        scores = [
            attention.scale
            * (
                direction
                * torch.tanh(
                    attention.query.weight @ y
                    + attention.key.weight @ k
                    + attention.bias
                )
            ).sum()
            for k in values
        ]
        p = torch.cat(scores).softmax(0)
        contexts.append((p[:, None] * values).sum(0))
    return torch.stack(contexts)


def by_the_equations(model: Gnmt, source: Tensor, target: Tensor) -> Tensor:
    """Scores of one sentence without padding: what the module's text says."""
    x = model.embedding.weight[source]
    backwards = lstm(model.encoder.backwards, x.flip(0)).flip(0)
    x = torch.cat((lstm(model.encoder.forwards, x), backwards), -1)
    x = lstm(model.encoder.stack[0], x)
    for layer in model.encoder.stack[1:]:
        x = x + lstm(layer, x)
    values = x
    table = model.target_embedding or model.embedding
    x = lstm(model.decoder.first, table.weight[target])
    context = attended(model.decoder.attention, x, values)
    x = lstm(model.decoder.stack[0], torch.cat((x, context), -1))
    for layer in model.decoder.stack[1:]:
        x = x + lstm(layer, torch.cat((x, context), -1))
    return x @ model.classifier.weight.T + model.classifier.bias


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("layers", [2, 4])
def test_every_sentence_of_a_batch_has_the_scores_of_the_equations(
    layers, shared, packed
):
    model = small(layers=layers, shared_embedding=shared, packed=packed)
    lengths = [3, 1, 5]
    source, target = padded(lengths), padded([4, 4, 4], seed=1)
    found = model(source, target)
    for b, length in enumerate(lengths):
        wanted = by_the_equations(model, source[b, :length], target[b])
        torch.testing.assert_close(found[b], wanted, rtol=1e-5, atol=1e-6)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(1, 7)), min_size=1, max_size=5),
    st.integers(0, 99),
)
def test_packed_and_padded_batches_give_equal_scores_and_gradients(lengths, seed):
    source, target = (
        padded(list(side), seed + k)
        for k, side in enumerate(zip(*lengths, strict=True))
    )
    results = []
    for packed in (False, True):
        model = small(packed=packed)
        # What is said of a target's padding means nothing.
        scores = model(source, target)[target != PAD]
        scores.square().sum().backward()
        results.append((scores, [p.grad for p in model.parameters()]))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-5)


def test_a_packed_decoder_does_not_run_over_the_padding():
    model, source = small(packed=True), padded([3, 4])
    target = padded([5, 3], seed=1)
    seen = []
    for module in model.modules():
        if isinstance(module, nn.LSTM):
            module.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    _, states, _ = model.decode(target, model.encode(source))
    assert [len(packed.data) for packed in seen] == [7] * 4 + [
        8
    ] * 3  # tokens of the sources, of the targets
    alone = small().decode(target[1:, :3], model.encode(source[1:]))[1]
    for (h, c), (h_alone, c_alone) in zip(states, alone, strict=True):
        torch.testing.assert_close((h[:, 1:], c[:, 1:]), (h_alone, c_alone))


def test_the_first_layer_is_torchs_bidirectional_lstm():
    model = small(layers=2)
    both = nn.LSTM(6, 6, batch_first=True, bidirectional=True)
    names = {"": model.encoder.forwards, "_reverse": model.encoder.backwards}
    both.load_state_dict(
        {k + end: v for end, one in names.items() for k, v in one.state_dict().items()}
    )
    x = torch.randn(1, 5, 6)
    wanted = model.encoder.stack[0](both(x)[0])[0]
    torch.testing.assert_close(model.encoder(x, torch.tensor([5])), wanted)


def test_what_stands_in_the_padding_changes_nothing():
    model, lengths = small(), [2, 4, 1]
    source, target = padded(lengths), padded([3] * 3)
    wanted = model(source, target)
    for filler in (7, 10, -1, 99):  # tokens, and numbers that are none
        other = source.masked_fill(source == PAD, filler)
        found = model(other, target, torch.tensor(lengths))
        assert torch.equal(found, wanted)
    wider = nn.functional.pad(source, (0, 3), value=PAD)
    torch.testing.assert_close(model(wider, target), wanted)


def test_decoding_token_by_token_gives_the_scores_of_the_whole():
    model, source, target = small(), padded([3, 5]), padded([4, 4], seed=1)
    encoded = model.encode(source)
    whole, _, attention = model.decode(target, encoded)
    states, scores, rows = None, [], []
    for t in range(4):
        step, states, row = model.decode(target[:, t : t + 1], encoded, states)
        scores.append(step)
        rows.append(row)
    torch.testing.assert_close(torch.cat(scores, 1), whole)
    torch.testing.assert_close(torch.cat(rows, 1), attention)
    torch.testing.assert_close(attention.sum(-1), torch.ones(2, 4))
    assert not attention[0, :, 3:].any()


def test_a_later_target_token_changes_no_earlier_score():
    model, source, target = small(), padded([3]), padded([4])
    other = target.clone()
    other[0, 3] = BOS
    same = model(source, target)[:, :3], model(source, other)[:, :3]
    assert torch.equal(*same)


def test_the_padding_is_not_learned():
    model = small()
    model(padded([1, 3]), padded([2, 4])).sum().backward()
    assert not model.embedding.weight.grad[PAD].any()
    assert model.embedding.weight.grad[4:].any()


@pytest.mark.parametrize(
    ("source", "lengths", "message"),
    [
        (
            [[4, 5], [0, 0]],
            None,
            "sentence 1 of the batch has 0 tokens: must be from 1 to 2",
        ),
        ([[4, 5], [4, 5]], [2, 3], "sentence 1 of the batch has 3 tokens"),
        ([[4, 5], [4, 5]], [-1, 2], "sentence 0 of the batch has -1 tokens"),
        ([[4, 5], [4, 5]], [2], r"2 sentences need as many lengths, got .* \(1,\)"),
        (
            [[4, 5, 6], [4, 0, 5]],
            None,
            "sentence 1 of the batch has a token after padding",
        ),
        ([[0, 5]], None, "sentence 0 of the batch has a token after padding"),
        ([[], []], None, r"at least one of each, got \(2, 0\)"),
        ([4, 5], None, r"must be \(sentences, tokens\).* got \(2,\)"),
    ],
)
def test_sentences_that_are_none_are_refused(source, lengths, message):
    given = None if lengths is None else torch.tensor(lengths)
    with pytest.raises(ValueError, match=message):
        small()(torch.tensor(source, dtype=torch.int64), padded([2, 2]), given)


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"layers": 1}, r"Gnmt\(layers=1\): must be an integer >= 2"),
        ({"width": 0}, r"Gnmt\(width=0\)"),
        ({"vocabulary": 1.5}, r"Gnmt\(vocabulary=1.5\)"),
        ({"dropout": 1}, r"Gnmt\(dropout=1\): must be a number in \[0, 1\)"),
    ],
)
def test_sizes_that_are_none_are_refused(how, message):
    with pytest.raises(ValueError, match=message):
        small(**how)


@pytest.mark.parametrize("packed", [False, True])
def test_the_weights_of_every_lstm_are_reached_by_a_recipe(packed):
    model, source, target = small(packed=packed), padded([3, 5]), padded([4, 4])
    wanted = model(source, target)
    dense = elision.elide(small(packed=packed), "dense")
    torch.testing.assert_close(dense(source, target), wanted)
    sparse = elision.elide(small(packed=packed), Swat(0.5))
    assert not torch.allclose(sparse(source, target), wanted)
    sparse(source, target).sum().backward()
    assert all(p.grad is not None for p in sparse.parameters())
