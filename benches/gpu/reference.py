"""What PyTorch does for a case: each way to time, and the right values in higher precision.

`build(torch, case, sets)` gives a Reference for sets of inputs, dictionaries of tensors by the library's names. A way runs
on set i and gives what its operations give; `collect` makes of that our results by name, outside of what is timed.
"""
import struct
from dataclasses import dataclass
from typing import Callable

LAYER_EPS, BATCH_EPS, TEMPERATURE = 1e-6, 1e-5, 0.1
# As src/families/optim.rs, whose numbers are float32: of 0.999 that is one part in 10^5 of 1 - 0.999.
STEPS, RATE, DECAY, EPS, MOMENTUM, AVERAGE = 9, 1e-3, 0.05, 1e-8, 0.9, 0.996
BETAS = struct.unpack("2f", struct.pack("2f", 0.9, 0.999))


@dataclass
class Way:
    run: Callable
    collect: Callable


@dataclass
class Reference:
    ways: dict
    # The right results for set 0, by name.
    expected: Callable


def build(torch, case, sets):
    """See the module. `case` as in cases.py."""
    spec = dict(case["case"])
    return _KINDS[spec.pop("kind")](torch, sets, compile=case.get("compile", False), **spec)


def _ways(torch, function, names, compile, more=None):
    """One eager way, and the same compiled if asked for. `names` are of the results, in order."""
    collect = lambda results: dict(zip(names, results))
    ways = {"eager": Way(function, collect), **(more or {})}
    if compile:
        ways["torch.compile"] = Way(torch.compile(function, dynamic=False), collect)
    return ways


def _matmul(torch, sets, m, n, k, transpose_a=False, transpose_b=False, compile=False):
    def sides(s):
        return (s["a"].t() if transpose_a else s["a"]), (s["b"].t() if transpose_b else s["b"])
    def expected():
        a, b = sides(sets[0])
        return {"out": a.double() @ b.double()}
    return Reference({"torch.mm": Way(lambda i: torch.mm(*sides(sets[i])), lambda out: {"out": out})}, expected)


def _linear(torch, sets, m, n, k, compile=False):
    linear = torch.nn.functional.linear
    def run(i):
        s = sets[i]
        return linear(s["x"], s["weight"], s["bias"])
    def expected():
        s = sets[0]
        return {"out": linear(s["x"].double(), s["weight"].double(), s["bias"].double())}
    return Reference({"F.linear": Way(run, lambda out: {"out": out})}, expected)


def _linear_gelu(torch, sets, m, n, k, compile=False):
    functions = torch.nn.functional
    def chain(x, weight, bias):
        pre = functions.linear(x, weight, bias)
        return functions.gelu(pre), pre
    compiled = torch.compile(chain, dynamic=False) if compile else None
    def way(f):
        return Way(lambda i: f(sets[i]["x"], sets[i]["weight"], sets[i]["bias"]), lambda results: dict(zip(("out", "pre"), results)))
    def expected():
        s = sets[0]
        return dict(zip(("out", "pre"), chain(s["x"].double(), s["weight"].double(), s["bias"].double())))
    ways = {"F.linear, F.gelu": way(chain)}
    if compile:
        ways["torch.compile"] = way(compiled)
    return Reference(ways, expected)


def _attention(torch, sets, direction, samples, tokens, heads, size, compile=False):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    attend = torch.nn.functional.scaled_dot_product_attention
    backends = {"SDPA flash": SDPBackend.FLASH_ATTENTION, "SDPA cuDNN": SDPBackend.CUDNN_ATTENTION,
                "SDPA memory-efficient": SDPBackend.EFFICIENT_ATTENTION}
    if sets[0]["qkv"].device.type == "cpu":
        backends = {"SDPA math": SDPBackend.MATH}
    def split(qkv):
        # [B, T, 3, H, D] -> three [B, H, T, D], all in place.
        return [part.transpose(1, 2).detach() for part in qkv.unbind(2)]
    def forward(backend):
        parts = [split(s["qkv"]) for s in sets]
        def run(i):
            with torch.no_grad(), sdpa_kernel(backend):
                return attend(*parts[i])
        return Way(run, lambda out: {"out": out.transpose(1, 2)})
    def backward(backend):
        parts, outs = [[part.requires_grad_() for part in split(s["qkv"])] for s in sets], []
        for part in parts:
            with sdpa_kernel(backend):
                outs.append(attend(*part))
        douts = [s["dout"].transpose(1, 2) for s in sets]
        run = lambda i: torch.autograd.grad(outs[i], parts[i], douts[i], retain_graph=True)
        return Way(run, lambda grads: {"dqkv": torch.stack([g.transpose(1, 2) for g in grads], 2)})
    def expected():
        s = sets[0]
        q, k, v = (part.double().requires_grad_() for part in split(s["qkv"]))
        scores = q @ k.transpose(-1, -2) * size ** -0.5
        out = scores.softmax(-1) @ v
        if direction == "backward":
            grads = torch.autograd.grad(out, (q, k, v), s["dout"].transpose(1, 2).double())
            return {"dqkv": torch.stack([g.transpose(1, 2) for g in grads], 2)}
        return {"out": out.detach().transpose(1, 2), "lse": scores.detach().logsumexp(-1)}
    make = backward if direction == "backward" else forward
    return Reference({name: _Later(make, backend) for name, backend in backends.items()}, expected)


class _Later:
    """A way that is made when it is asked for, so that one which PyTorch does not have costs no other."""

    def __init__(self, make, *arguments):
        self.make, self.arguments, self.way = make, arguments, None

    def _made(self):
        if self.way is None:
            self.way = self.make(*self.arguments)
        return self.way

    def run(self, i):
        return self._made().run(i)

    def collect(self, results):
        return self._made().collect(results)


def _conv2d(torch, sets, images, side, channels, filters, kernel, stride, compile=False, **spec):
    which, padding = spec["pass"], kernel // 2
    # NHWC in memory is what PyTorch calls channels_last.
    first = lambda t: t.permute(0, 3, 1, 2)
    last = lambda t: t.permute(0, 2, 3, 1)
    any_set = next(iter(sets[0].values()))
    empty = lambda *shape: first(torch.empty(shape, dtype=any_set.dtype, device=any_set.device))
    def gradient(dy, x, weight, mask):
        return torch.ops.aten.convolution_backward(dy, x, weight, None, [stride] * 2, [padding] * 2, [1, 1], False, [0, 0], 1, mask)
    def compute(s, convert):
        get = lambda name: convert(first(s[name]))
        if which == "forward":
            return torch.nn.functional.conv2d(get("x"), get("weight"), None, stride, padding)
        if which == "input_gradient":
            return gradient(get("dy"), convert(shape_only), get("weight"), [True, False, False])[0]
        return gradient(get("dy"), get("x"), convert(shape_only), [False, True, False])[1]
    # The input's or the weight's values have no part in their own gradient.
    shape_only = empty(images, side, side, channels) if which == "input_gradient" else empty(filters, kernel, kernel, channels)
    name = {"forward": "y", "input_gradient": "dx", "weight_gradient": "dweight"}[which]
    def expected():
        # In float64 on the CPU; on a GPU in float32, whose error is nothing beside bf16's rounding.
        precise = torch.float64 if any_set.device.type == "cpu" else torch.float32
        before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, False
        try:
            return {name: last(compute(sets[0], lambda t: t.to(precise)))}
        finally:
            torch.backends.cudnn.benchmark = before
    return Reference({"cuDNN channels_last": Way(lambda i: compute(sets[i], lambda t: t), lambda out: {name: last(out)})}, expected)


def _layer_norm(torch, sets, direction, rows, width, residual=False, compile=False):
    norm = torch.nn.functional.layer_norm
    # PyTorch's kernel wants weights of the rows' type.
    weights = [(s["weight"].to(s["x"].dtype), s["bias"].to(s["x"].dtype)) for s in sets]
    if direction == "forward":
        def chain(i):
            s, (weight, bias) = sets[i], weights[i]
            total = s["x"] + s["branch"] if residual else s["x"]
            y = norm(total, (width,), weight, bias, LAYER_EPS)
            return (y, total) if residual else (y,)
        def expected():
            s = sets[0]
            # The sum that is normalised is the rounded one.
            total = s["x"] + s["branch"] if residual else s["x"]
            y = norm(total.double(), (width,), s["weight"].double(), s["bias"].double(), LAYER_EPS)
            return {"y": y, "sum": s["x"].double() + s["branch"].double()} if residual else {"y": y}
        return Reference(_ways(torch, chain, ("y", "sum"), compile), expected)
    def gradients(convert, forward):
        """For each set a function that runs the backward pass alone."""
        runs = []
        for s, pair in zip(sets, weights):
            x = convert(s["x"]).detach().requires_grad_()
            weight, bias = (convert(t).detach().requires_grad_() for t in (pair if convert is _same else (s["weight"], s["bias"])))
            results = forward(x, weight, bias)
            cotangents = (convert(s["dy"]), convert(s["dsum"])) if residual else (convert(s["dy"]),)
            runs.append(lambda r=results, inputs=(x, weight, bias), c=cotangents: torch.autograd.grad(r, inputs, c, retain_graph=True))
        return runs
    def forward(x, weight, bias):
        y = norm(x, (width,), weight, bias, LAYER_EPS)
        return (y, x.view_as(x)) if residual else (y,)
    return _of_gradients(torch, gradients, forward, ("dx", "dweight", "dbias"), compile)


def _same(t):
    return t


def _of_gradients(torch, gradients, forward, names, compile, collect=None, expected=None):
    """A backward pass alone, of a forward pass that is run before."""
    collect = collect or (lambda results: dict(zip(names, results)))
    def way(f):
        runs = gradients(_same, f)
        return Way(lambda i: runs[i](), collect)
    ways = {"eager": _Later(way, forward)}
    if compile:
        # The same saved tensors serve many backward passes.
        torch._functorch.config.donated_buffer = False
        ways["torch.compile"] = _Later(way, torch.compile(forward, dynamic=False))
    return Reference(ways, expected or (lambda: collect(gradients(lambda t: t.double(), forward)[0]())))


def _batch_norm(torch, sets, direction, images, side, channels, residual=False, compile=False):
    functions = torch.nn.functional
    first = lambda t: t.permute(0, 3, 1, 2)
    last = lambda t: t.permute(0, 2, 3, 1)
    def forward(x, weight, bias, other=None):
        y = functions.batch_norm(x, None, None, weight, bias, True, 0.0, BATCH_EPS)
        return functions.relu(y + other if residual else y)
    def arguments(s, convert=_same):
        return [convert(t) for t in (first(s["x"]), s["weight"], s["bias"])] + ([convert(first(s["residual"]))] if residual else [])
    if direction == "forward":
        chain = lambda i: (last(forward(*arguments(sets[i]))),)
        return Reference(_ways(torch, chain, ("y",), compile), lambda: {"y": last(forward(*arguments(sets[0], lambda t: t.double())))})
    def gradients(convert, forward):
        runs = []
        for s in sets:
            inputs = [t.detach().requires_grad_() for t in arguments(s, convert)]
            y = forward(*inputs)
            runs.append(lambda y=y, inputs=inputs, dy=convert(first(s["dy"])): torch.autograd.grad(y, inputs, dy, retain_graph=True))
        return runs
    def collect(results):
        named = dict(zip(("dx", "dweight", "dbias", "dresidual"), results))
        return {name: last(t) if t.dim() == 4 else t for name, t in named.items()}
    def expected():
        # By the formulas, with the mask and the statistics that are given: near zero another rounding has another mask.
        s, count = sets[0], images * side * side
        x, dy, weight = s["x"].double(), s["dy"].double(), s["weight"].double()
        rstd = (s["variance"].double() + BATCH_EPS).rsqrt()
        unit = (x - s["mean"].double()) * rstd
        masked = dy * (s["y"] > 0)
        dbias, dweight = masked.sum((0, 1, 2)), (masked * unit).sum((0, 1, 2))
        dx = weight * rstd * (masked - (dbias + unit * dweight) / count)
        return {"dx": dx, "dweight": dweight, "dbias": dbias, **({"dresidual": masked} if residual else {})}
    return _of_gradients(torch, gradients, forward, (), compile, collect, expected)


def _cross_entropy(torch, sets, direction, rows, classes, compile=False):
    loss_of = torch.nn.functional.cross_entropy
    names = {"forward": ("loss",), "backward": ("dlogits",), "both": ("loss", "dlogits")}[direction]
    labels = [s["labels"].long() for s in sets]
    def passes(logits, label, dloss, convert):
        """The results in order; a cast, if any, is a part of the computation as it is under autocast."""
        loss = loss_of(convert(logits), label, reduction="none")
        if direction == "forward":
            return (loss,)
        gradient = torch.autograd.grad(loss, logits, dloss.to(loss.dtype))[0]
        return (gradient,) if direction == "backward" else (loss.detach(), gradient)
    leaves = [s["logits"].detach().requires_grad_(direction != "forward") for s in sets]
    def way(convert):
        return Way(lambda i: passes(leaves[i], labels[i], sets[i]["dloss"], convert), lambda results: dict(zip(names, results)))
    ways = {"eager": way(_same)}
    if leaves[0].dtype != torch.float32:
        ways["eager, float32 logits"] = way(lambda t: t.float())
    if compile:
        # Forward and gradient by hand in one function, so that the compiler sees both.
        def chain(logits, label, dloss):
            x = logits.float()
            lse = x.logsumexp(1)
            loss = lse - x.gather(1, label[:, None])[:, 0]
            onehot = (torch.arange(classes, device=x.device)[None] == label[:, None]).float()
            return loss, (((x - lse[:, None]).exp() - onehot) * dloss[:, None]).to(logits.dtype)
        compiled = torch.compile(chain, dynamic=False)
        run = lambda i: compiled(sets[i]["logits"], labels[i], sets[i]["dloss"])
        ways["torch.compile"] = Way(run, lambda results: dict(zip(("loss", "dlogits"), results)))
    def expected():
        x = sets[0]["logits"].double().detach().requires_grad_(direction != "forward")
        return dict(zip(names, passes(x, labels[0], sets[0]["dloss"].double(), _same)))
    return Reference(ways, expected)


def _ntxent(torch, sets, direction, pairs, width, compile=False):
    rows = 2 * pairs
    names = {"forward": ("loss",), "backward": ("drows",), "both": ("loss", "drows")}[direction]
    device = sets[0]["rows"].device
    diagonal, targets = torch.eye(rows, dtype=torch.bool, device=device), torch.arange(rows, device=device).roll(-pairs)
    def loss_of(u):
        scores = u @ u.t()
        # In bf16 the product is rounded, as under autocast, and the loss is computed in float32.
        scores = scores if scores.dtype == torch.float64 else scores.float()
        return torch.nn.functional.cross_entropy((scores / TEMPERATURE).masked_fill(diagonal, float("-inf")), targets, reduction="none")
    def passes(u, dloss, loss_of):
        loss = loss_of(u)
        if direction == "forward":
            return (loss,)
        gradient = torch.autograd.grad(loss, u, dloss)[0]
        return (gradient,) if direction == "backward" else (loss.detach(), gradient)
    leaves = [s["rows"].detach().requires_grad_(direction != "forward") for s in sets]
    def way(f):
        return Way(lambda i: passes(leaves[i], sets[i]["dloss"], f), lambda results: dict(zip(names, results)))
    ways = {"eager": way(loss_of)}
    if compile:
        ways["torch.compile"] = way(torch.compile(loss_of, dynamic=False))
    def expected():
        u = sets[0]["rows"].double().detach().requires_grad_(direction != "forward")
        return dict(zip(names, passes(u, sets[0]["dloss"].double(), loss_of)))
    return Reference(ways, expected)


def _parameters(sets, state):
    """For each set the tensors of every parameter, by name; values and state are copied, for steps write them."""
    count = sum(name.startswith("value.") for name in sets[0])
    copy = lambda s, name: s[name].detach().clone()
    return [[{"gradient": s[f"gradient.{i}"].float(), **{name: copy(s, f"{name}.{i}") for name in ("value", *state)}} for i in range(count)] for s in sets]


def _results_of_step(parameters, names):
    return {f"{name}.{i}": p[name].detach() for i, p in enumerate(parameters) for name in names}


def _doubled(parameters):
    return [{name: t.double() for name, t in p.items()} for p in parameters]


def _adamw(torch, sets, sizes, average=False, compile=False):
    names = ("value", "first", "second") + (("average",) if average else ())
    all_parameters = _parameters(sets, names[1:])
    cuda = all_parameters[0][0]["value"].is_cuda
    def optimiser(parameters):
        leaves = []
        for p in parameters:
            p["value"].requires_grad_()
            p["value"].grad = p["gradient"]
            leaves.append(p["value"])
        made = torch.optim.AdamW(leaves, lr=RATE, betas=BETAS, eps=EPS, weight_decay=DECAY, fused=True, capturable=cuda)
        for p in parameters:
            made.state[p["value"]] = {"step": torch.tensor(float(STEPS), device=p["value"].device), "exp_avg": p["first"], "exp_avg_sq": p["second"]}
        return made
    optimisers = [optimiser(parameters) for parameters in all_parameters]
    def run(i):
        optimisers[i].step()
        if average:
            parameters = all_parameters[i]
            torch._foreach_lerp_([p["average"] for p in parameters], [p["value"].detach() for p in parameters], 1 - AVERAGE)
    def expected():
        results = []
        for p in _doubled(_parameters(sets[:1], names[1:])[0]):
            g, step = p["gradient"], STEPS + 1
            first = BETAS[0] * p["first"] + (1 - BETAS[0]) * g
            second = BETAS[1] * p["second"] + (1 - BETAS[1]) * g * g
            update = first / (1 - BETAS[0] ** step) / ((second / (1 - BETAS[1] ** step)).sqrt() + EPS)
            value = p["value"] * (1 - RATE * DECAY) - RATE * update
            results.append({"value": value, "first": first, "second": second})
            if average:
                results[-1]["average"] = AVERAGE * p["average"] + (1 - AVERAGE) * value
        return _results_of_step(results, names)
    name = "AdamW(fused), _foreach_lerp_" if average else "AdamW(fused)"
    return Reference({name: Way(run, lambda _: _results_of_step(all_parameters[0], names))}, expected)


def _sgd(torch, sets, sizes, compile=False):
    names = ("value", "first")
    all_parameters = _parameters(sets, names[1:])
    def optimiser(parameters):
        for p in parameters:
            p["value"].requires_grad_()
            p["value"].grad = p["gradient"]
        made = torch.optim.SGD([p["value"] for p in parameters], lr=RATE, momentum=MOMENTUM, weight_decay=DECAY, fused=True)
        for p in parameters:
            made.state[p["value"]] = {"momentum_buffer": p["first"]}
        return made
    optimisers = [optimiser(parameters) for parameters in all_parameters]
    def expected():
        results = []
        for p in _doubled(_parameters(sets[:1], names[1:])[0]):
            first = MOMENTUM * p["first"] + p["gradient"] + DECAY * p["value"]
            results.append({"value": p["value"] - RATE * first, "first": first})
        return _results_of_step(results, names)
    return Reference({"SGD(fused)": Way(lambda i: optimisers[i].step(), lambda _: _results_of_step(all_parameters[0], names))}, expected)


def _elementwise(torch, sets, what, rows, columns, compile=False):
    x = sets[0]["x"]
    other = torch.float32 if x.dtype == torch.bfloat16 else torch.bfloat16
    operations = {
        "scale": lambda x: x * 0.5,
        "transpose": lambda x: x.t().contiguous(),
        "cast": lambda x: x.to(other),
        "gelu": torch.nn.functional.gelu,
    }
    function = operations[what]
    ways = {"eager": Way(lambda i: function(sets[i]["x"]), lambda y: {"y": y})}
    if what == "scale":
        # The yardstick: it moves the same bytes, and its values are not ours.
        ways["copy_"] = Way(lambda i: torch.empty_like(sets[i]["x"]).copy_(sets[i]["x"]), lambda _: {})
    def expected():
        return {"y": x.double() if what == "cast" else function(x.double())}
    return Reference(ways, expected)


_KINDS = {
    "matmul": _matmul,
    "linear": _linear,
    "linear_gelu": _linear_gelu,
    "attention": _attention,
    "conv2d": _conv2d,
    "layer_norm": _layer_norm,
    "batch_norm": _batch_norm,
    "cross_entropy": _cross_entropy,
    "ntxent": _ntxent,
    "adamw": _adamw,
    "sgd": _sgd,
    "elementwise": _elementwise,
}
