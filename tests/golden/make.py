"""Reference values from PyTorch, torchvision, timm, lightly, scikit-image and scikit-learn, one safetensors file a case.

    pip install torch torchvision timm lightly scikit-image scikit-learn safetensors
    python make.py --out cases

Every file holds the inputs, the parameters, the outputs and, where there is a backward pass, the
upstream gradient (`grad_out`) and the gradients (`grad.NAME`). Images are NCHW and convolution
weights OIHW, as PyTorch has them. The file's metadata holds the settings as JSON under `case`.
All values are computed in float64 and stored as float32, unless the case says otherwise. A case's
random numbers depend on its name and the seed alone: adding or leaving out a case changes no other.
"""
import argparse, json, math, os, zlib
import torch, torch.nn as nn, torch.nn.functional as F
from safetensors.torch import save_file

OUT, SEED = "cases", 1


def seed(name):
    torch.manual_seed(zlib.crc32(f"{SEED}:{name}".encode()))


def save(name, case, **tensors):
    flat = {}
    for k, v in tensors.items():
        v = v.detach() if isinstance(v, torch.Tensor) else torch.as_tensor(v)
        flat[k] = (v.to(torch.float32) if v.dtype == torch.float64 else v).contiguous().clone()
    save_file(flat, os.path.join(OUT, name + ".safetensors"), {"case": json.dumps(case)})


def grads(out, leaves, grad_out=None):
    """Gradients of <out, grad_out> for the named leaves."""
    gs = torch.autograd.grad(out, list(leaves.values()), torch.ones_like(out) if grad_out is None else grad_out)
    return {f"grad.{k}": g for k, g in zip(leaves, gs)}


def rnd(*s, scale=1.0):
    """Normal, float64, exact in float32 so that both precisions see the same input."""
    return (torch.randn(*s) * scale).double().requires_grad_()


def op(name, case, fn, leaves):
    seed(name)
    leaves = leaves()
    out = fn(**leaves)
    g = torch.randn(out.shape).double()
    save(name, case, out=out, grad_out=g, **leaves, **grads(out, leaves, g))


# ---------------------------------------------------------------- operators

def operators():
    for k, s, p, ci, co, h, w in [(3, 1, 1, 5, 7, 9, 11), (3, 2, 1, 8, 16, 14, 14), (1, 2, 0, 6, 10, 7, 9),
                                  (7, 2, 3, 3, 8, 23, 19), (4, 4, 0, 3, 12, 16, 16), (5, 1, 2, 1, 3, 8, 8)]:
        op(f"conv2d_k{k}s{s}p{p}", dict(op="conv2d", kernel=k, stride=s, padding=p),
           lambda x, weight: F.conv2d(x, weight, None, s, p),
           lambda: dict(x=rnd(3, ci, h, w), weight=rnd(co, ci, k, k, scale=.3)))
    op("conv2d_k3s1p2d2", dict(op="conv2d", kernel=3, stride=1, padding=2, dilation=2),
       lambda x, weight: F.conv2d(x, weight, None, 1, 2, 2),
       lambda: dict(x=rnd(2, 4, 9, 8), weight=rnd(6, 4, 3, 3, scale=.3)))
    op("conv2d_k3s2p1g3", dict(op="conv2d", kernel=3, stride=2, padding=1, groups=3),
       lambda x, weight: F.conv2d(x, weight, None, 2, 1, 1, 3),
       lambda: dict(x=rnd(2, 6, 9, 8), weight=rnd(9, 2, 3, 3, scale=.3)))
    op("conv2d_k3s1p1g8", dict(op="conv2d", kernel=3, stride=1, padding=1, groups=8),
       lambda x, weight: F.conv2d(x, weight, None, 1, 1, 1, 8),
       lambda: dict(x=rnd(2, 8, 7, 6), weight=rnd(8, 1, 3, 3, scale=.3)))
    op("conv_transpose2d_k4s2p1", dict(op="conv_transpose2d", kernel=4, stride=2, padding=1),
       lambda x, weight, bias: F.conv_transpose2d(x, weight, bias, 2, 1),
       lambda: dict(x=rnd(2, 6, 5, 7), weight=rnd(6, 4, 4, 4, scale=.3), bias=rnd(4)))
    for shape in [(6, 5, 4, 3), (16, 7)]:
        seed(f"batch_norm_{len(shape)}d")
        c = shape[1]
        w, b = rnd(c), rnd(c)
        rm, rv = torch.zeros(c).double(), torch.ones(c).double()
        for train in (True, False):
            x = rnd(*shape)
            out = F.batch_norm(x, rm, rv, w, b, train, 0.1, 1e-5)
            g = torch.randn(shape).double()
            if train:  # what evaluation starts from must be exact in float32
                rm, rv = rm.float().double(), rv.float().double()
            save(f"batch_norm_{'train' if train else 'eval'}_{len(shape)}d", dict(op="batch_norm", train=train, momentum=.1, eps=1e-5),
                 x=x, weight=w, bias=b, out=out, grad_out=g, running_mean=rm, running_var=rv, **grads(out, dict(x=x, weight=w, bias=b), g))
    op("layer_norm", dict(op="layer_norm", eps=1e-6), lambda x, weight, bias: F.layer_norm(x, (37,), weight, bias, 1e-6),
       lambda: dict(x=rnd(4, 5, 37), weight=rnd(37), bias=rnd(37)))
    for b, h, n, m, d in [(2, 3, 17, 17, 16), (1, 2, 65, 65, 64), (2, 1, 7, 33, 32)]:
        op(f"attention_{n}x{m}x{d}", dict(op="attention", scale="1/sqrt(d)", layout="batch, heads, tokens, dim"),
           lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
           lambda: dict(q=rnd(b, h, n, d), k=rnd(b, h, m, d), v=rnd(b, h, m, d)))
    op("gelu_erf", dict(op="gelu", approximate="none"), lambda x: F.gelu(x), lambda: dict(x=rnd(50, scale=3)))
    op("linear", dict(op="linear"), lambda x, weight, bias: F.linear(x, weight, bias),
       lambda: dict(x=rnd(3, 5, 17), weight=rnd(11, 17), bias=rnd(11)))
    op("normalize", dict(op="l2_normalize", dim=1, eps=1e-12), lambda x: F.normalize(x), lambda: dict(x=rnd(9, 13)))
    op("max_pool_k3s2p1", dict(op="max_pool2d", kernel=3, stride=2, padding=1), lambda x: F.max_pool2d(x, 3, 2, 1),
       lambda: dict(x=rnd(2, 3, 11, 9)))
    op("avg_pool_global", dict(op="global_avg_pool"), lambda x: x.mean((2, 3)), lambda: dict(x=rnd(2, 6, 5, 7)))
    for name, ls in [("ls0.0", 0.0), ("ls0.1", .1), ("soft", 0.0)]:
        seed(f"softmax_cross_entropy_{name}")
        x = rnd(13, 10, scale=4)
        t = torch.softmax(torch.randn(13, 10), 1).double() if name == "soft" else torch.randint(0, 10, (13,))
        loss = F.cross_entropy(x, t, label_smoothing=ls)
        save(f"softmax_cross_entropy_{name}", dict(op="softmax_cross_entropy", label_smoothing=ls, reduction="mean"),
             x=x, target=t, out=loss, **grads(loss, dict(x=x)))
    big = torch.tensor([[1e4, -1e4, 0.0], [-3e38, 3e38, 1.0]], dtype=torch.float32, requires_grad=True)
    loss = F.cross_entropy(big, torch.tensor([0, 1]))
    save("softmax_cross_entropy_extreme", dict(op="softmax_cross_entropy", label_smoothing=0.0, dtype="float32"), x=big,
         target=torch.tensor([0, 1]), out=loss, **grads(loss, dict(x=big)))
    for mode in ("bilinear", "bicubic"):
        seed(f"resize_{mode}")
        x = torch.randn(1, 6, 14, 14).double()
        save(f"resize_{mode}_antialias", dict(op="resize", mode=mode, align_corners=False, antialias=True), x=x,
             out=F.interpolate(x, (7, 9), mode=mode, align_corners=False, antialias=True),
             up=F.interpolate(x, (16, 21), mode=mode, align_corners=False, antialias=True))


# ---------------------------------------------------------------- objectives

def objectives():
    from lightly.loss import DINOLoss, IBOTPatchLoss, KoLeoLoss, NTXentLoss
    torch.set_default_dtype(torch.float64)
    for n, d, t in [(8, 16, .5), (33, 24, .1), (5, 128, .07)]:
        name = f"ntxent_n{n}_t{t}"
        seed(name)
        a, b = rnd(n, d), rnd(n, d)
        loss = NTXentLoss(t)(a, b)
        save(name, dict(loss="nt-xent", temperature=t, source="lightly NTXentLoss"), z0=a, z1=b, out=loss, **grads(loss, dict(z0=a, z1=b)))
    seed("moco_queue")
    n, d, k, t = 7, 16, 29, .2
    q, key, queue = rnd(n, d), rnd(n, d).detach(), F.normalize(torch.randn(k, d)).float().double()
    qn = F.normalize(q)
    logits = torch.cat([(qn * F.normalize(key)).sum(1, keepdim=True), qn @ queue.T], 1) / t
    loss = F.cross_entropy(logits, torch.zeros(n, dtype=torch.long))
    save("moco_queue", dict(loss="InfoNCE with a queue (MoCo v1, v2)", temperature=t), q=q, k=key, queue=queue, out=loss, **grads(loss, dict(q=q)))
    seed("moco_v3")
    q1, q2, k1, k2 = rnd(n, d), rnd(n, d), rnd(n, d).detach(), rnd(n, d).detach()

    def contrast(q, k):
        return F.cross_entropy(F.normalize(q) @ F.normalize(k).T / t, torch.arange(n)) * (2 * t)

    loss = contrast(q1, k2) + contrast(q2, k1)
    save("moco_v3", dict(loss="InfoNCE in the batch, both directions, each times 2 * temperature (MoCo v3)", temperature=t), q1=q1, q2=q2,
         k1=k1, k2=k2, out=loss, **grads(loss, dict(q1=q1, q2=q2)))
    seed("byol")
    p0, p1, z0, z1 = rnd(n, d), rnd(n, d), rnd(n, d).detach(), rnd(n, d).detach()
    loss = (2 - 2 * F.cosine_similarity(p0, z1).mean()) + (2 - 2 * F.cosine_similarity(p1, z0).mean())
    save("byol", dict(loss="sum over both directions of mean(2 - 2 cos)", source="BYOL eq. 2, symmetrised"), p0=p0, p1=p1, z0=z0, z1=z1,
         out=loss, **grads(loss, dict(p0=p0, p1=p1)))
    k = 24
    criterion = DINOLoss(output_dim=k, warmup_teacher_temp=.04, teacher_temp=.07, warmup_teacher_temp_epochs=3)
    for step, epoch in enumerate([0, 1, 5]):  # three steps of one object: the centre is carried
        seed(f"dino_step{step}")
        teacher, student = [rnd(5, k).detach() for _ in range(2)], [rnd(5, k) for _ in range(4)]
        before = criterion.center.clone()
        loss = criterion(teacher, student, epoch=epoch)
        temperature = float(criterion.teacher_temp_schedule[epoch]) if epoch < 3 else .07
        save(f"dino_step{step}", dict(loss="dino", student_temperature=.1, teacher_temperature=temperature, center_momentum=.9,
                                      source="lightly DINOLoss", views="2 of the teacher, 4 of the student"),
             center_before=before.reshape(-1), center_after=criterion.center.reshape(-1), out=loss,
             **{f"teacher{i}": x for i, x in enumerate(teacher)}, **{f"student{i}": x for i, x in enumerate(student)},
             **grads(loss, {f"student{i}": x for i, x in enumerate(student)}))
    seed("ibot_patch")
    mask = torch.zeros(3, 4, 4, dtype=torch.bool)  # the last image has none
    mask[0, :2], mask[1, 1, :3] = True, True
    teacher, student = rnd(int(mask.sum()), k).detach(), rnd(int(mask.sum()), k)
    criterion = IBOTPatchLoss(output_dim=k, teacher_temp=.05)
    loss = criterion(teacher, student, mask)
    save("ibot_patch", dict(loss="iBOT on masked patches", student_temperature=.1, teacher_temperature=.05, center_momentum=.9,
                            source="lightly IBOTPatchLoss"), teacher=teacher, student=student, mask=mask.to(torch.uint8),
         center_after=criterion.center.value.reshape(-1), out=loss, **grads(loss, dict(student=student)))
    patch, side = 4, 4
    for norm in (False, True):
        name = f"mae_norm_{str(norm).lower()}"
        seed(name)
        images, prediction = rnd(3, 3, 16, 16).detach(), rnd(3, side * side, patch * patch * 3)
        patches = images.reshape(3, 3, side, patch, side, patch).permute(0, 2, 4, 3, 5, 1).reshape(3, side * side, -1)
        removed = torch.rand(3, side * side) > .25
        mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
        target = (patches - mean) / (variance + 1e-6) ** .5 if norm else patches
        loss = (((prediction - target) ** 2).mean(-1) * removed).sum() / removed.sum()
        save(name, dict(loss="mae", patch=patch, normalize_targets=norm, variance="unbiased", source="facebookresearch/mae"), images=images,
             patches=patches, prediction=prediction, removed=removed.to(torch.uint8), out=loss, **grads(loss, dict(prediction=prediction)))
    seed("koleo")
    x = rnd(9, 12)
    loss = KoLeoLoss()(x)
    save("koleo", dict(loss="koleo", eps=1e-8, source="lightly KoLeoLoss"), x=x, out=loss, **grads(loss, dict(x=x)))
    seed("sinkhorn_knopp")
    scores, temperature, iterations = torch.randn(11, 24).float().double(), .06, 3
    q = torch.exp(scores / temperature).T
    q = q / q.sum()
    for _ in range(iterations):
        q = q / q.sum(1, keepdim=True) / q.shape[0]
        q = q / q.sum(0, keepdim=True) / q.shape[1]
    save("sinkhorn_knopp", dict(op="sinkhorn-knopp as in SwAV/DINOv2", temperature=temperature, iterations=iterations),
         scores=scores, out=(q * q.shape[1]).T)
    a, ap, b = torch.tensor([[1., 0.]]), torch.tensor([[.9, .4]]), torch.tensor([[-.5, .8]])
    save("cosine_pairs", dict(note="positive 0.9/sqrt(0.97), negative -0.5/sqrt(0.89)"), a=a, positive=ap, negative=b,
         cos_positive=F.cosine_similarity(a, ap), cos_negative=F.cosine_similarity(a, b))
    torch.set_default_dtype(torch.float32)


# ---------------------------------------------------------------- optimisers and schedules

def optimisers():
    from lightly.utils.lars import LARS
    from lightly.utils.scheduler import cosine_warmup_schedule

    def run(name, case, make):
        seed(name)
        w, b = rnd(7, 5), rnd(7)
        rec = dict(w0=w.clone(), b0=b.clone())
        opt = make(w, b)
        for i in range(1, 6):
            w.grad, b.grad = rnd(7, 5).detach(), rnd(7).detach()
            rec[f"gw{i}"], rec[f"gb{i}"] = w.grad.clone(), b.grad.clone()
            opt.step()
            rec[f"w{i}"], rec[f"b{i}"] = w.clone(), b.clone()
        save(name, case, **rec)

    run("sgd_nesterov", dict(opt="sgd", lr=.1, momentum=.9, weight_decay=1e-2, nesterov=True),
        lambda w, b: torch.optim.SGD([w, b], .1, .9, weight_decay=1e-2, nesterov=True))
    run("sgd_momentum", dict(opt="sgd", lr=.1, momentum=.9, weight_decay=1e-2, nesterov=False),
        lambda w, b: torch.optim.SGD([w, b], .1, .9, weight_decay=1e-2))
    run("adamw", dict(opt="adamw", lr=1e-2, beta1=.9, beta2=.95, eps=1e-8, weight_decay=.05),
        lambda w, b: torch.optim.AdamW([w, b], 1e-2, (.9, .95), 1e-8, .05))
    run("lars", dict(opt="lars", lr=.3, momentum=.9, weight_decay=1e-2, trust=1e-3, excluded=["b"], source="lightly LARS"),
        lambda w, b: LARS([dict(params=[w]), dict(params=[b], weight_decay=0.0)], lr=.3, momentum=.9, weight_decay=1e-2))
    for n, warm, lo, hi in [(50, 10, 0.0, 1.0), (7, 0, .01, .3)]:
        v = [cosine_warmup_schedule(i, n, hi, lo, warm, 0.0) if warm else lo + (hi - lo) * (1 + math.cos(math.pi * i / (n - 1))) / 2
             for i in range(n)]
        save(f"cosine_schedule_{n}_{warm}", dict(steps=n, warmup=warm, start=0.0, peak=hi, end=lo), value=torch.tensor(v, dtype=torch.float64))
    m = [1 - (1 - .996) * (math.cos(math.pi * i / 40) + 1) / 2 for i in range(41)]
    save("ema_momentum_schedule", dict(start=.996, end=1.0, steps=40, source="BYOL, DINO"), value=torch.tensor(m, dtype=torch.float64))


# ---------------------------------------------------------------- augmentations with given parameters

def augmentations():
    import torchvision.transforms.v2.functional as T
    from skimage import color
    seed("aug")
    img = torch.rand(3, 24, 20)
    save("aug_adjust", dict(op="torchvision adjust_*, float image in [0,1]", brightness=1.3, contrast=.6, saturation=1.7, hue=-.17), x=img,
         brightness=T.adjust_brightness(img, 1.3), contrast=T.adjust_contrast(img, .6), saturation=T.adjust_saturation(img, 1.7),
         hue=T.adjust_hue(img, -.17), grayscale=T.rgb_to_grayscale(img, 3), solarize=T.solarize(img, .5),
         blur=T.gaussian_blur(img, [5, 5], [1.1, 1.1]), hflip=T.horizontal_flip(img))
    save("aug_resized_crop", dict(op="torchvision resized_crop, antialias", top=3, left=5, height=14, width=11), x=img,
         bilinear=T.resized_crop(img, 3, 5, 14, 11, [16, 16], antialias=True),
         bicubic=T.resized_crop(img, 3, 5, 14, 11, [16, 16], interpolation=T.InterpolationMode.BICUBIC, antialias=True),
         down=T.resized_crop(img, 0, 0, 24, 20, [8, 8], antialias=True))
    square = img[:, :20]
    save("aug_rotate", dict(op="torch.rot90 k=1,2,3 counter-clockwise"), x=square,
         **{f"r{90 * k}": torch.rot90(square, k, (1, 2)) for k in (1, 2, 3)})
    seed("color_lab")
    rgb = torch.rand(24, 20, 3).double().numpy()
    lab = color.rgb2lab(rgb)
    save("color_lab", dict(op="skimage rgb2lab, D65, 2 degrees; HWC"), rgb=rgb, lab=lab, back=color.lab2rgb(lab))


# ---------------------------------------------------------------- models

def models():
    import torchvision
    for name, block in [("basic", torchvision.models.resnet.BasicBlock), ("bottleneck", torchvision.models.resnet.Bottleneck)]:
        seed(f"model_resnet_{name}")

        class Small(torchvision.models.ResNet):
            def _make_layer(self, block, planes, blocks, stride=1, dilate=False):
                return super()._make_layer(block, planes // 8, blocks, stride, dilate)

        r = Small(block, [1, 1, 1, 1], num_classes=10)
        r.fc = nn.Linear(64 * block.expansion, 10)
        for p in r.parameters():
            nn.init.normal_(p, std=.2) if p.dim() > 1 else nn.init.uniform_(p, .5, 1.5)
        state = {f"state.{k}": t.clone() for k, t in r.state_dict().items()}
        x = torch.randn(4, 3, 64, 64)
        r.double().train()
        out = r(x.double())
        g = torch.randn(out.shape).double()
        out.backward(g)
        norms = {f"gradnorm.{k}": p.grad.norm() for k, p in r.named_parameters()}
        after = {f"after.{k}": t for k, t in r.state_dict().items() if "running" in k}
        r.eval()
        save(f"model_resnet_{name}", dict(model="torchvision ResNet, ImageNet stem of 64, stages of 8, 16, 32, 64 planes", blocks=[1, 1, 1, 1], block=name),
             images=x, out=out, out_eval=r(x.double()), grad_out=g, **norms, **state, **after)
    from timm.models.vision_transformer import VisionTransformer
    for name, text, kwargs in [
            ("timm", "timm VisionTransformer", dict(img_size=32, patch_size=4, embed_dim=48, depth=3, num_heads=3, num_classes=10)),
            ("dinov2_reg", "timm VisionTransformer, DINOv2 with registers: LayerScale, 4 register tokens, no_embed_class",
             dict(img_size=28, patch_size=7, embed_dim=48, depth=2, num_heads=2, num_classes=0, init_values=.1, reg_tokens=4, no_embed_class=True))]:
        seed(f"model_vit_{name}")
        v = VisionTransformer(**kwargs)
        for p in v.parameters():
            nn.init.normal_(p, std=.2)
        x = torch.randn(2, 3, kwargs["img_size"], kwargs["img_size"])
        out = v(x)
        case = dict(model=text, img_size=kwargs["img_size"], patch=kwargs["patch_size"], dim=48, depth=kwargs["depth"],
                    heads=kwargs["num_heads"], dtype="float32")
        tensors = dict(images=x, tokens=v.forward_features(x), out=out)
        if kwargs["num_classes"]:
            case["classes"] = kwargs["num_classes"]
            tensors["grad_out"] = torch.randn_like(out)
            out.backward(tensors["grad_out"])
            tensors |= {f"gradnorm.{k}": p.grad.norm() for k, p in v.named_parameters()}
        save(f"model_vit_{name}", case, **tensors, **{f"state.{k}": t for k, t in v.state_dict().items()})


# ---------------------------------------------------------------- evaluation

def evaluation():
    from sklearn.linear_model import LogisticRegression
    for c in (.01, 1., 100.):
        name = f"logistic_regression_c{c:g}"
        seed(name)
        y = torch.randint(0, 4, (120,))
        x = (torch.randn(120, 6) + .5 * y[:, None] * torch.tensor([1., -1, .5, 0, 0, 0])) * torch.tensor([1., .3, 2, 1, 5, .1])
        fit = LogisticRegression(C=c, solver="newton-cholesky", tol=1e-12, max_iter=10000).fit(x.double().numpy(), y.numpy())
        save(name, dict(model="sklearn LogisticRegression", c=c), x=x, labels=y.int(), coef=torch.tensor(fit.coef_),
             intercept=torch.tensor(fit.intercept_), scores=torch.tensor(fit.decision_function(x.double().numpy())))


if __name__ == "__main__":
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--seed", type=int, default=1)
    ap.add_argument("--out", default="cases")
    a = ap.parse_args()
    OUT, SEED = a.out, a.seed
    os.makedirs(OUT, exist_ok=True)
    for f in (operators, objectives, optimisers, augmentations, models, evaluation):
        f()
    print(len(os.listdir(OUT)), "cases in", OUT)
