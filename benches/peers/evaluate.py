"""k nearest neighbours and every linear-probe protocol in scikit-learn and PyTorch, beside `pretext` on the same features.

    pip install torch scikit-learn safetensors
    pretext embed RUN --data sample --blocks 4 --out features.safetensors
    python benches/peers/evaluate.py features.safetensors --pretext target/release/pretext

Prints a Markdown table: test top-1 of both, and the difference. Exits with 1 if one differs by more than --allow points.
With --same-choice the peer trains with the rate or C, and on the features, that pretext chose, instead of choosing on a held-out
tenth of its own: a fraction of the time, and differences are of training alone.

Written from the protocols' descriptions (docs/evaluation.md) alone: order of samples, initial weights and the held-out
tenth are PyTorch's own, so that differences are those of two correct programs.
"""
import argparse, json, math, subprocess, sys
import numpy as np, torch
import torch.nn.functional as F
from safetensors import safe_open
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors


def load(path):
    with safe_open(path, "pt") as f:
        tensors, notes = {k: f.get_tensor(k) for k in f.keys()}, f.metadata() or {}
    parts = []
    for part in notes.get("blocks", "").split(","):
        if part.strip():
            block, token, start, end = part.split()
            parts.append((int(block), token, int(start), int(end)))
    return tensors, parts


def knn(tensors, k, temperature, center):
    train, test = tensors["train"].double().numpy(), tensors["test"].double().numpy()
    if center:
        mean = train.mean(0)
        train, test = train - mean, test - mean
    unit = lambda x: x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    labels, truth = tensors["train_labels"].numpy(), tensors["test_labels"].numpy()
    distance, index = NearestNeighbors(n_neighbors=k, algorithm="brute", metric="cosine").fit(unit(train)).kneighbors(unit(test))
    votes = np.zeros((len(test), labels.max() + 1))
    for column in range(k):
        np.add.at(votes, (np.arange(len(test)), labels[index[:, column]]), np.exp(-distance[:, column] / temperature))
    return 100 * (votes.argmax(1) == truth).mean()


def inputs(protocol, tensors, parts):
    """Pairs of training and test features that a protocol looks at."""
    own = [(tensors["train"], tensors["test"])]
    def columns(keep):
        chosen = [slice(s, e) for b, t, s, e in parts if keep(b, t)]
        return tuple(torch.cat([tensors[f"{split}_blocks"][:, c] for c in chosen], 1) for split in ("train", "test"))
    has_class, last = any(t == "class" for _, t, _, _ in parts), max((b for b, *_ in parts), default=0)
    if protocol == "dino" and has_class:
        width = parts[0][3] - parts[0][2]
        return [columns(lambda b, t: b == last if width >= 768 else t == "class")]
    if protocol == "dinov2-sweep" and has_class:
        return [columns(lambda b, t: t == "class" and b == last), columns(lambda b, t: b == last),
                columns(lambda b, t: t == "class"), columns(lambda b, t: t == "class" or b == last)]
    if protocol == "dinov2-sweep" and parts:
        return [columns(lambda b, t: b == last), columns(lambda b, t: True)]
    return own


class Lars(torch.optim.Optimizer):
    """MAE's: the trust ratio on tensors of two dimensions, the learning rate outside of the momentum."""
    def __init__(self, params, lr):
        super().__init__(params, dict(lr=lr, momentum=.9, trust=.001))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                d = p.grad
                if p.ndim > 1:
                    w, g = p.norm(), d.norm()
                    d = d * (group["trust"] * w / g if w > 0 and g > 0 else 1.0)
                state = self.state[p]
                state["v"] = state.get("v", torch.zeros_like(p)) * group["momentum"] + d
                p -= group["lr"] * state["v"]


def recipe(protocol, n):
    largest = 2 ** int(math.log2(max(n // 32, 8)))
    fixed = dict(sgd=(30, 256, (.003, .01, .03, .1, .3)), moco=(100, min(256, largest), (.3, 1, 3, 10, 30)),
                 mae=(90, min(16384, largest), (.1, .3, 1, 3, 10)), dino=(100, min(1024, largest), (.001, .01, .1, 1)))
    if protocol in fixed:
        epochs, batch, rates = fixed[protocol]
    else:
        batch = min(128, largest)
        epochs = max(1, min(30, 12500 * batch // n))
        rates = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 1e-2, 2e-2, 5e-2, .1)
    return epochs, batch, [r * (1 if protocol == "sgd" else batch / 256) for r in rates]


def factor(protocol, t):
    if protocol == "moco":
        return .1 ** sum(t >= p for p in (.6, .8))
    warm = 10 / 90 if protocol == "mae" else 0
    return t / warm if t < warm else .5 * (1 + math.cos(math.pi * (t - warm) / (1 - warm)))


def train_layer(protocol, x, y, classes, epochs, batch, rate, seed):
    """A function from features to classes."""
    torch.manual_seed(seed)
    layer = torch.nn.Linear(x.shape[1], classes)
    torch.nn.init.zeros_(layer.bias)
    torch.nn.init.zeros_(layer.weight) if protocol == "sgd" else torch.nn.init.normal_(layer.weight, std=.01)
    prepare = torch.nn.Identity()
    if protocol == "sgd":
        mean, std = x.double().mean(0), x.double().std(0, unbiased=False) + 1e-5
        prepare = lambda v: ((v.double() - mean) / std).float()
    if protocol == "mae":
        prepare = torch.nn.BatchNorm1d(x.shape[1], affine=False, eps=1e-6)
    optimiser = Lars(layer.parameters(), rate) if protocol == "mae" else torch.optim.SGD(layer.parameters(), rate, momentum=.9)
    per_epoch = len(x) // batch if protocol == "mae" and len(x) >= batch else -(-len(x) // batch)
    ready = prepare(x) if protocol == "sgd" else x
    for step in range(epochs * per_epoch):
        if step % per_epoch == 0:
            order = torch.randperm(len(x))
        rows = order[step % per_epoch * batch:][:batch]
        for group in optimiser.param_groups:
            group["lr"] = rate * factor(protocol, step / (epochs * per_epoch))
        batch_x = ready[rows] if protocol == "sgd" else prepare(ready[rows])
        loss = F.cross_entropy(layer(batch_x), y[rows])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    if protocol == "mae":
        prepare.eval()
    return lambda v: layer(prepare(v)).argmax(1)


def logreg(x, y, c):
    fit = LogisticRegression(C=c, tol=1e-5, max_iter=1000).fit(x.double().numpy(), y.numpy())
    return lambda v: torch.tensor(fit.predict(v.double().numpy()))


def choice(text, pairs):
    """What pretext chose, such as "rate 0.1, class tokens of the last 4 blocks": the input's number and the rate or C."""
    strength, _, name = text.partition(", ")
    several, average = "blocks" in name or "stages" in name, "average of patches" in name
    return (2 * several + average if len(pairs) == 4 else int(several) if len(pairs) == 2 else 0), float(strength.split()[1])


def probe(protocol, tensors, parts, seed, chosen=None):
    y, truth = tensors["train_labels"].long(), tensors["test_labels"].long()
    classes, n = int(y.max()) + 1, len(y)
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    held_out, rest = order[: n // 10], order[n // 10:]
    pairs = inputs(protocol, tensors, parts)
    if protocol == "logreg":
        candidates = [(0, 10.0 ** p) for p in np.linspace(-6, 5, 45)]
        fit = lambda x, y, c: logreg(x, y, c)
    else:
        epochs, batch, rates = recipe(protocol, n)
        candidates = [(i, rate) for i in range(len(pairs)) for rate in rates]
        fit = lambda x, y, rate: train_layer(protocol, x, y, classes, epochs, batch, rate, seed)
    def score(candidate):
        i, strength = candidate
        predict = fit(pairs[i][0][rest], y[rest], strength)
        return (predict(pairs[i][0][held_out]) == y[held_out]).double().mean().item()
    best = choice(chosen, pairs) if chosen else max(candidates, key=score)
    predict = fit(pairs[best[0]][0], y, best[1])
    return 100 * (predict(pairs[best[0]][1]) == truth).double().mean().item(), best


def ours(program, arguments):
    out = subprocess.run([program, *arguments, "--json"], check=True, capture_output=True, text=True).stdout
    return next(e for e in map(json.loads, out.splitlines()) if e["event"] == "result")


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("features")
    ap.add_argument("--pretext", default="target/release/pretext")
    ap.add_argument("--protocols", default="sgd,moco,mae,dino,dinov2-sweep,logreg")
    ap.add_argument("--seeds", type=int, default=3, help="of both programs, for the probes whose training is random")
    ap.add_argument("--same-choice", action="store_true")
    ap.add_argument("--allow", type=float, default=.3)
    a = ap.parse_args()
    torch.set_num_threads(1)
    tensors, parts = load(a.features)
    rows = []
    for k, t, center in ((20, .07, False), (200, .1, False), (20, .07, True)):
        flags = ["-k", str(k), "--temperature", str(t)] + (["--center"] if center else [])
        mine = ours(a.pretext, ["knn", a.features, *flags])["top1"]
        rows.append((f"kNN {' '.join(flags)}", mine, knn(tensors, k, t, center), ""))
    for protocol in a.protocols.split(","):
        # The held-out tenth differs between the programs in every protocol, so that each is run with several.
        mine = [ours(a.pretext, ["probe", a.features, "--protocol", protocol, "--seed", str(s)]) for s in range(1, a.seeds + 1)]
        peer = [probe(protocol, tensors, parts, s, mine[s - 1]["chosen"] if a.same_choice else None) for s in range(1, a.seeds + 1)]
        chosen = f"{mine[0]['chosen']} / {peer[0][1][1]:.3g}"
        rows.append((protocol, np.mean([m["top1"] for m in mine]), np.mean([p[0] for p in peer]), chosen))
        print(protocol, [m["top1"] for m in mine], [round(p[0], 2) for p in peer], file=sys.stderr)
    print("| protocol | pretext | peer | difference | chosen |\n|---|---:|---:|---:|---|")
    for name, mine, peer, chosen in rows:
        print(f"| {name} | {mine:.2f} | {peer:.2f} | {mine - peer:+.2f} | {chosen} |")
    sys.exit(any(abs(mine - peer) > a.allow for _, mine, peer, _ in rows))
