"""zerohero.gpt: laws that every option must keep, parity, the recipe."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from zerohero import gpt, train
from zerohero.generate import generate
from zerohero.gpt import GPT, GPTConfig

OPTIONS = {
    "plain": {},
    "tied": {"tie": True},
    "no bias": {"bias": False},
    "no gain": {"gain": False},
    "rotary": {"position": "rotary"},
    "relative": {"position": "relative"},
    "no position": {"position": "none"},
    "rms": {"norm": "rms"},
    "relu2": {"activation": "relu2"},
    "swiglu": {"activation": "swiglu"},
    "qk norm": {"qk_norm": True},
    "smear": {"smear": 2},
    "boundary": {"boundary": 0, "smear": 2, "position": "rotary"},
    "fast": {"position": "relative", "activation": "relu2", "smear": 2,
             "bias": False, "gain": False},
}


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def model(seed=0, lively=True, **options):
    config = GPTConfig(**{"vocab_size": 11, "block_size": 8, "n_layer": 2,
                          "n_head": 2, "n_embd": 16, **options})
    out = GPT(config, generator(seed))
    if lively:  # no zeros that could hide a mistake
        g = generator(seed + 1)
        with torch.no_grad():
            for p in out.parameters():
                p += 0.2 * torch.randn(p.shape, generator=g)
    return out


def text(*shape, seed=0, low=1):
    return torch.randint(low, 11, shape, generator=generator(seed))


each = pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)


@each
def test_the_future_does_not_leak(options):
    m, idx = model(**options), text(2, 8)
    before = m(idx)
    assert before.shape == (2, 8, 11)
    for t in range(8):
        other = idx.clone()
        other[:, t] = other[:, t] % 10 + 1
        after = m(other)
        assert_close(after[:, :t], before[:, :t], rtol=0, atol=0)
        assert (after[:, t:] != before[:, t:]).any(-1).all()


@each
def test_batch_and_length_do_not_matter(options):
    m, idx = model(**options), text(3, 8)
    whole = m(idx)
    assert_close(m(idx[1:2]), whole[1:2])
    assert_close(m(idx[:, :5]), whole[:, :5])


@each
def test_cache_gives_the_same_logits(options):
    m, idx = model(**options), text(2, 8, low=0)
    whole = m(idx)
    for sizes in ((1,) * 8, (3, 1, 4), (8,)):
        cache, parts = m.new_cache(), []
        for part in idx.split(sizes, dim=1):
            parts.append(m(part, cache=cache))
        assert_close(torch.cat(parts, dim=1), whole)
    with pytest.raises(ValueError, match="block_size=8"):
        m(idx[:, :1], cache=cache)


@each
def test_generation_with_cache_is_equal_token_for_token(options):
    m, idx = model(**options), text(2, 3, low=0)
    for hop in (1, 4):
        out = [generate(m, idx, 30, 8, cache=cache, hop=hop,
                        generator=generator(5)) for cache in (False, True)]
        assert torch.equal(*out) and out[0].shape == (2, 33)


@each
def test_every_parameter_learns_and_one_batch_is_overfit(options):
    m = model(lively=False, **options)
    x, y = text(4, 8), text(4, 8, seed=1)
    if options.get("boundary") is not None:
        x[0, 4] = 0
    start = train.evaluate(m, x, y)
    assert abs(start - math.log(11)) < 0.35
    optimizer = torch.optim.AdamW(m.parameters(), lr=0.01)
    h = train.fit(m, iter(lambda: (x, y), None), optimizer, 150, log=False)
    assert h.losses[-1] < 0.1
    for name, p in m.named_parameters():
        assert p.grad is not None and (p.grad != 0).any(), name


def test_order_matters_only_with_positions():
    idx = text(1, 8)
    mixed = idx[:, [2, 0, 5, 1, 3, 6, 4, 7]]
    for name in ("learned", "rotary", "relative", "none"):
        m = model(n_layer=1, position=name)
        same = torch.allclose(m(idx)[:, -1], m(mixed)[:, -1], atol=1e-5)
        assert same == (name == "none"), name


@pytest.mark.parametrize("position", ["rotary", "relative"])
def test_only_the_distance_counts(position):
    m = model(n_layer=1, position=position)
    q = m.blocks[0].attention
    x, mask = torch.randn(1, 4, 16, generator=generator()), torch.zeros(1)
    here = torch.arange(4)
    a, _ = q.weights(x, here, mask)
    b, _ = q.weights(x, here + (100 if position == "rotary" else 0), mask)
    assert_close(a, b, atol=1e-4, rtol=1e-4)
    turned = gpt.rotate(x, here)
    assert_close(turned.norm(dim=-1), x.norm(dim=-1))
    assert_close(turned[:, 0], x[:, 0])
    one = gpt.rotate(torch.tensor([[1.0, 0.0]]), torch.tensor([2]))
    assert_close(one, torch.tensor([[math.cos(2), math.sin(2)]]))
    # of four numbers the second pair turns by 1 / sqrt(10000) a position
    one = gpt.rotate(torch.tensor([[0.0, 1, 0, 0], [0, 0, 0, 1]]),
                     torch.tensor([50, 100]))
    assert_close(one, torch.tensor([
        [0, math.cos(0.5), 0, math.sin(0.5)],
        [0, -math.sin(1), 0, math.cos(1)]]))


def test_relative_bias_starts_as_alibi():
    bias = model(position="relative", n_head=2, lively=False
                 ).blocks[0].attention.distance_bias
    steps = torch.arange(8.0)
    assert_close(bias.data, torch.stack((-steps / 16, -steps / 256)))


def test_relative_bias_by_hand():
    m = model(position="relative")
    a = m.blocks[0].attention
    x, positions = torch.randn(1, 3, 16, generator=generator()), \
        torch.arange(3)
    mask = torch.zeros(3, 3).masked_fill(torch.ones(3, 3).triu(1) == 1,
                                         -math.inf)
    weights, _ = a.weights(x, positions, mask)
    q = a.query(x).view(1, 3, 2, 8).transpose(1, 2)
    k = a.key(x).view(1, 3, 2, 8).transpose(1, 2)
    scores = q @ k.mT / 8 ** 0.5 + mask
    for h in range(2):
        for i in range(3):
            for j in range(i + 1):
                scores[0, h, i, j] += a.distance_bias[h, i - j]
    assert_close(weights, scores.softmax(-1))


def test_boundary_starts_afresh():
    m = model(boundary=0, smear=2, position="relative")
    a = torch.tensor([[0, 3, 4, 0, 5, 6]])
    b = torch.tensor([[7, 8, 9, 0, 5, 6]])
    assert_close(m(a)[:, 3:], m(b)[:, 3:])
    assert not torch.allclose(m(a)[:, :3], m(b)[:, :3])
    assert_close(m(a)[:, 3:], m(a[:, 3:]))  # distances only: as if alone


def test_smear_by_hand():
    m = model(smear=2)
    x = torch.randn(1, 4, 16, generator=generator())
    out, taps = m._smear(x, None), m.taps
    assert_close(out[:, 0], x[:, 0])
    assert_close(out[:, 1], x[:, 1] + taps[0] * x[:, 0])
    assert_close(out[:, 3], x[:, 3] + taps[0] * x[:, 2] + taps[1] * x[:, 1])


def test_smear_begins_as_if_it_were_not_there():
    idx = text(2, 8)
    plain, smeared = model(lively=False), model(lively=False, smear=3)
    smeared.load_state_dict(plain.state_dict() | {"taps": smeared.taps})
    assert_close(smeared(idx), plain(idx), rtol=0, atol=0)
    assert smeared.taps.shape == (3, 16)


@pytest.mark.parametrize("boundary", [None, 0])
def test_smear_of_a_text_shorter_than_its_taps(boundary):
    m, idx = model(smear=5, boundary=boundary), text(2, 8)
    whole = m(idx)
    for T in range(1, 8):
        assert_close(m(idx[:, :T]), whole[:, :T])


def test_plain_gpt_is_torch_encoder_layer():
    """The same numbers from torch.nn.TransformerEncoder, causal."""
    m = model()
    layer = torch.nn.TransformerEncoderLayer(
        16, 2, 64, dropout=0.0, activation="gelu", batch_first=True,
        norm_first=True)
    theirs = torch.nn.TransformerEncoder(
        layer, 2, norm=torch.nn.LayerNorm(16), enable_nested_tensor=False)
    with torch.no_grad():
        for ours, their in zip(m.blocks, theirs.layers, strict=True):
            a = ours.attention
            parts = (a.query, a.key, a.value)
            their.self_attn.in_proj_weight.copy_(
                torch.cat([p.weight for p in parts]))
            their.self_attn.in_proj_bias.copy_(
                torch.cat([p.bias for p in parts]))
            for mine, other in (
                    (a.proj, their.self_attn.out_proj),
                    (ours.feed_forward.up, their.linear1),
                    (ours.feed_forward.down, their.linear2),
                    (ours.norm1, their.norm1), (ours.norm2, their.norm2)):
                other.weight.copy_(mine.weight)
                other.bias.copy_(mine.bias)
        theirs.norm.weight.copy_(m.norm.weight)
        theirs.norm.bias.copy_(m.norm.bias)
    idx = text(2, 8)
    x = m.embed.weight[idx] + m.place.weight
    mask = torch.ones(8, 8, dtype=torch.bool).triu(1)
    wanted = theirs(x, mask=mask) @ m.head.weight.T
    assert_close(m(idx), wanted, atol=1e-5, rtol=1e-4)


def test_swiglu_and_relu2_by_hand():
    x = torch.randn(1, 2, 16, generator=generator())
    f = model(activation="swiglu").blocks[0].feed_forward
    assert_close(f(x), f.down(F.silu(f.gate(x)) * f.up(x)))
    f = model(activation="relu2").blocks[0].feed_forward
    assert_close(f(x), f.down(f.up(x).clamp(min=0) ** 2))


def test_squared_relu_has_the_gradient_of_the_plain_one():
    x = torch.randn(5, 7, generator=generator(), dtype=torch.double,
                    requires_grad=True)
    assert torch.autograd.gradcheck(gpt.SquaredReLU.apply, (x,))
    assert_close(gpt.SquaredReLU.apply(x), x.clamp(min=0) ** 2)
    ours, = torch.autograd.grad(gpt.SquaredReLU.apply(x).sum(), x)
    assert_close(ours, 2 * x.detach().clamp(min=0))


def test_norms_by_hand():
    x = torch.randn(2, 3, 16, generator=generator()) * 3 + 1
    m = model(norm="rms", gain=True)
    rms = x / x.square().mean(-1, keepdim=True).sqrt()
    assert_close(m.norm(x), rms * m.norm.weight)
    m = model(gain=False)
    out = m.norm(x)
    assert_close(out.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    assert_close(out.var(-1, correction=0), torch.ones(2, 3), atol=1e-4,
                 rtol=0)


def test_queries_and_keys_normalized():
    m = model(qk_norm=True)
    a = m.blocks[0].attention
    x, mask = torch.randn(1, 4, 16, generator=generator()), torch.zeros(1)
    w, _ = a.weights(x, torch.arange(4), mask)
    with torch.no_grad():
        a.query.weight *= 7
        a.query.bias *= 7
    assert_close(a.weights(x, torch.arange(4), mask)[0], w)


def test_tied_weights_are_one():
    m = model(tie=True)
    assert m.head.weight is m.embed.weight
    untied = sum(p.numel() for p in model().parameters())
    assert untied - sum(p.numel() for p in m.parameters()) == 11 * 16
    twin = model(seed=4, tie=True)
    twin.load_state_dict(m.state_dict())
    assert_close(twin(text(1, 8)), m(text(1, 8)))


def test_initial_scale():
    big = GPT(GPTConfig(50, 64, n_layer=8, n_embd=128), generator())
    idx = torch.randint(50, (4, 64), generator=generator())
    stds = [x.std().item() for x in big.stream(idx)]
    assert stds[-1] < 2 * stds[0]  # branches start small: 1/sqrt(2 N)
    zero = GPT(GPTConfig(50, 64, start="zero"), generator())
    stages = zero.stream(idx)
    assert_close(stages[0], stages[-1], rtol=0, atol=0)
    assert (zero(idx) == 0).all()
    assert abs(train.evaluate(big, idx, idx) - math.log(50)) < 0.1


@pytest.mark.parametrize("tie", [False, True])
@pytest.mark.parametrize("position", ["learned", "none"])
def test_every_matrix_starts_with_its_own_scale(position, tie):
    V, T, C, H, layers = 500, 300, 64, 192, 3
    m = GPT(GPTConfig(V, T, layers, 4, C, widen=3.0, position=position,
                      activation="swiglu", tie=tie), generator())
    quiet = 1 / math.sqrt(2 * layers)  # what writes into the stream
    wanted = {"query": C**-0.5, "key": C**-0.5, "value": C**-0.5,
              "proj": quiet * C**-0.5, "up": C**-0.5, "gate": C**-0.5,
              "down": quiet * H**-0.5, "head": 0.02,
              "embed": 0.02 if tie else 1.0, "place": 0.02 if tie else 0.1}
    seen = set()
    for name, p in m.named_parameters():
        kind = name.split(".")[-2]
        if kind.startswith("norm"):
            assert (p == (name.endswith("weight"))).all(), name
        elif name.endswith("bias"):
            assert (p == 0).all(), name
        else:
            seen.add(kind)
            assert_close(p.std().item(), wanted[kind], rtol=0.06, atol=0,
                         msg=name)
    absent = {"head"} if tie else set()
    assert seen == set(wanted) - absent - (
        {"place"} if position == "none" else set())


def test_the_plain_configuration_has_gpt2s_parameters():
    """12 C^2 + 13 C for each block: the formula for GPT-2."""
    V, T, C, layers = 65, 64, 128, 4
    m = GPT(GPTConfig(V))
    assert sum(p.numel() for p in m.parameters()) == (
        2 * V * C + T * C + layers * (12 * C**2 + 13 * C) + 2 * C)
    assert m(torch.zeros(1, T).long()).shape == (1, T, V)
    assert len(m.attention_maps(torch.zeros(1, 2).long())[0, 0]) == 4
    m.train()
    idx = torch.arange(64)[None]
    assert torch.equal(m(idx), m(idx))  # no dropout unless asked for


def test_a_norm_of_nothing_is_nothing():
    for kind in ("layer", "rms"):
        x = torch.zeros(2, 16, requires_grad=True)
        out = model(norm=kind, lively=False).norm(x)
        out.sum().backward()
        assert (out == 0).all() and x.grad.isfinite().all()


def test_norms_of_small_numbers_are_torchs():
    """Here the eps counts as much as the numbers do."""
    x = 1e-3 * torch.randn(5, 16, generator=generator())
    assert_close(model(lively=False).norm(x), torch.nn.LayerNorm(16)(x))
    rms = torch.nn.RMSNorm(16, eps=1e-6)(x)
    assert_close(model(norm="rms", lively=False).norm(x), rms)
    assert_close(rms.square().mean(-1).mean(), torch.tensor(0.5), atol=0.1,
                 rtol=0)


def test_stream_and_maps_belong_to_the_forward_pass():
    m, idx = model(position="relative"), text(2, 8)
    stages = m.stream(idx)
    assert len(stages) == 3
    assert_close(m.head(m.norm(stages[-1])), m(idx))
    maps = m.attention_maps(idx)
    assert maps.shape == (2, 2, 2, 8, 8)
    assert_close(maps.sum(-1), torch.ones(2, 2, 2, 8))
    assert (maps.triu(1) == 0).all()


def test_dropout_in_three_places():
    m, idx = model(dropout=0.3), text(2, 8)
    torch.manual_seed(0)
    assert not torch.equal(m(idx), m(idx))
    m.eval()
    assert_close(m(idx), m(idx))
    kinds = [n for n, k in m.named_modules()
             if type(k).__name__ == "Dropout"]
    assert len(kinds) == 1 + 2 * 2
    for silent in kinds:  # each of them acts
        m = model(dropout=0.3)
        for name, k in m.named_modules():
            if type(k).__name__ == "Dropout" and name != silent:
                k.p = 0.0
        assert not torch.equal(m(idx), m(idx)), silent


def test_both_number_formats():
    idx = text(2, 8)
    for options in OPTIONS.values():
        full = model(**options)
        half = model(dtype=torch.bfloat16, **options)
        assert half(idx).dtype == torch.bfloat16
        assert all(p.dtype == torch.float32 for p in half.parameters())
        assert_close(half(idx).float(), full(idx), atol=0.15, rtol=0.1)


@pytest.mark.parametrize("wrong, name", [
    ({"n_head": 3}, "n_head=3"), ({"n_layer": 0}, "n_layer=0"),
    ({"norm": "batch"}, "norm='batch'"), ({"smear": 8}, "smear=8"),
    ({"smear": -1}, "smear=-1"), ({"vocab_size": 0}, "vocab_size=0"),
    ({"block_size": 0}, "block_size=0"), ({"n_head": 0}, "n_head=0"),
    ({"n_embd": 0}, "n_embd=0"), ({"start": "ones"}, "start='ones'"),
    ({"position": "rotary", "n_head": 16}, "even"),
    ({"activation": "tanh"}, "relu2")])
def test_bad_configuration(wrong, name):
    with pytest.raises(ValueError, match=name):
        model(**wrong)


def test_bad_input():
    with pytest.raises(ValueError, match="T=9.*block_size=8"):
        model()(text(1, 9))
    with pytest.raises(ValueError, match=r"\(B, T\)"):
        model()(text(8))


def test_same_seed_same_model():
    a, b, c = model(), model(), model(seed=3)
    assert_close(a(text(1, 8)), b(text(1, 8)), rtol=0, atol=0)
    assert not torch.equal(a(text(1, 8)), c(text(1, 8)))


# --------------------------------------------------------------- recipe
def test_fast_optimizers_take_each_parameter_once():
    m = GPT(gpt.fast_config(11, 32, n_embd=32), generator())
    muon, adam = gpt.fast_optimizers(m)
    taken = [p for o in (muon, adam) for g in o.param_groups
             for p in g["params"]]
    assert {id(p) for p in taken} == {id(p) for p in m.parameters()}
    assert len(taken) == len(list(m.parameters()))
    names = {id(p): n for n, p in m.named_parameters()}
    inside = {names[id(p)] for p in muon.param_groups[0]["params"]}
    assert len(inside) == 4 * 6
    assert all(n.startswith("blocks") and n.endswith("weight")
               for n in inside)


def test_the_settings_of_the_recipe():
    config = gpt.fast_config(65, 32, n_layer=2, smear=1)
    assert config == GPTConfig(
        65, 32, n_layer=2, smear=1, bias=False, gain=False,
        position="rotary", activation="relu2", start="zero")
    m = GPT(config)
    muon, adam = gpt.fast_optimizers(m, muon_lr=1.0, lr=2.0, embed_lr=3.0)
    table, rest = adam.param_groups
    assert [p is m.embed.weight for p in table["params"]] == [True]
    assert (muon.param_groups[0]["lr"], rest["lr"], table["lr"]) == (1, 2, 3)
    for group in (*muon.param_groups, table, rest):
        assert group["weight_decay"] == 0
    assert table["betas"] == rest["betas"] == (0.9, 0.98)
    for o in gpt.fast_optimizers(m):
        assert all(g["lr"] == 0.02 for g in o.param_groups)


def test_muon_gets_matrices_only():
    """No table, no row of taps, no bias, nothing narrower than 16."""
    m = GPT(GPTConfig(40, 32, n_layer=1, n_head=16, n_embd=16, smear=2,
                      position="relative", widen=0.5))
    muon, _ = gpt.fast_optimizers(m)
    names = {id(p): n for n, p in m.named_parameters()}
    assert m.blocks[0].attention.distance_bias.shape == (16, 32)
    assert {names[id(p)] for p in muon.param_groups[0]["params"]} == {
        f"blocks.0.attention.{k}.weight"
        for k in ("query", "key", "value", "proj")}  # up and down are 8 wide


def test_the_recipe_learns_a_rule():
    """Each symbol repeats the one three places back."""
    rows = text(200, 3).repeat(1, 11)
    m = GPT(gpt.fast_config(11, 32, n_embd=32, n_layer=2), generator())
    train.fit(m, train.Batches(rows[:, :-1], rows[:, 1:], 50, generator()),
              gpt.fast_optimizers(m), 60, log=False,
              schedule=train.linear_to_zero(60, 5))
    new = text(50, 3, seed=7).repeat(1, 11)
    loss = train.evaluate(m, new[:, 3:-1], new[:, 4:])
    out = generate(m, new[:, :6], 15, 32, temperature=0)
    assert loss < 0.6
    assert (out == new[:, :21]).float().mean() > 0.9


@pytest.mark.parametrize("names", [False, True])
@pytest.mark.parametrize("text", [20, 300, 5_000, 100_000, 5_000_000])
def test_the_plan_fits_every_text(text, names):
    for reads in (0, 1e4, 1e6, 1e7, 1e10):
        sizes = gpt.plan(text, reads, names)
        batch_size = sizes.pop("batch_size")
        GPTConfig(11, **sizes)
        T = sizes["block_size"]
        next(train.TextBatches(torch.zeros(text).long(), T, batch_size))


@pytest.mark.parametrize("text, reads, names, changes", [
    (10**7, 0, False, {}), (10**7, 4e5, False, {}),
    (10**7, 5e5, False, {"block_size": 128}),
    (10**7, 2.5e6, False, {"block_size": 128}),
    (10**7, 3e6, False, {"block_size": 128, "batch_size": 32}),
    (2 * 10**5, 8e5, False, {"block_size": 128}),
    (2 * 10**5, 8.1e5, False, {"block_size": 128, "dropout": 0.05}),
    (10**5, 6.1e5, False, {"block_size": 128, "dropout": 0.1}),
    (10**5, 6e5, True, {"block_size": 32, "batch_size": 48, "n_embd": 64}),
    (10**5, 1.51e6, False, {"block_size": 128, "dropout": 0.2}),
    (10**5, 3e6, True, {"block_size": 32, "batch_size": 48, "n_embd": 64,
                        "dropout": 0.2}),
    # 17 pieces of 64 are a batch of 16 and one to spare, 16 are not
    (17 * 64, 0, False, {}), (17 * 64 - 1, 0, False, {"block_size": 32}),
    # 700 symbols are 20 pieces of 32, and one to spare; 100 are 11 of 8
    (700, 0, False, {"block_size": 32}),
    (100, 0, False, {"block_size": 8, "batch_size": 11}),
    (17, 0, False, {"block_size": 8, "batch_size": 1})])
def test_the_plan_by_hand(text, reads, names, changes):
    assert gpt.plan(text, reads, names) == {
        "block_size": 64, "batch_size": 16, "n_layer": 4, "n_head": 4,
        "n_embd": 128, "dropout": 0.0, **changes}


def test_the_plan_grows_with_the_run_and_guards_against_learning_by_heart():
    runs = [gpt.plan(10**6, reads) for reads in (2e5, 1e6, 4e6)]
    assert runs[0]["block_size"] < runs[1]["block_size"]
    step = [r["block_size"] * r["batch_size"] for r in runs]
    assert step == sorted(set(step))
    assert gpt.plan(10**6, 2e5, True)["n_embd"] < runs[0]["n_embd"]
    drops = [gpt.plan(10**5, r)["dropout"] for r in (1e5, 1e6, 1e7)]
    assert drops[0] == 0 and drops == sorted(set(drops))
    assert gpt.plan(10**8, 1e7)["dropout"] == 0
